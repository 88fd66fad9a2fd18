"""CellContext: everything that a trainer needs to train one cell. The public surface of `run_cell`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from decoderbench.data.dataset import Split
    from decoderbench.data.resident_dataset import Batch, ResidentDataset
    from decoderbench.metrics import Evaluation
    from decoderbench.model.recognizer import Recognizer
    from decoderbench.records.schema import Cost, RunRecord


class Resumable(Protocol):
    """A trainer whose state can be saved and loaded, so that a cell goes on where a run was interrupted."""

    step: int
    """The optimizer steps that the state includes: 0 before training; raise it right after each step."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides how training goes on, beside what the context saves itself.

        Optimizers, schedulers and modules have a `state_dict` to put in it. It may hold dictionaries, lists and tuples
        of tensors, numbers, texts, truth values and None.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned in the process before, `step` included; its tensors are on the CPU."""


class CellContext(Protocol):
    """What `run_cell` gets beside the cell.

    A trainer builds the recognizer, takes optimizer steps on the batches, evaluates, and returns the record:

        recognizer = context.recognizer()
        for step, (images, labels, columns) in enumerate(context.batches(cell.training.steps), start=1):
            loss = recognizer.loss(images, labels, columns).sum() / labels.lengths.sum()
            ...
        return context.finish(recognizer, kept_step=cell.training.steps)
    """

    @property
    def device(self) -> torch.device:
        """Where the recognizer and the batches are."""

    @property
    def directory(self) -> Path:
        """The folder of this cell; artifacts go here.

        Size and sha256 of each file become part of the record that is returned, so no file may be written afterwards.
        """

    @property
    def environment(self) -> Mapping[str, str]:
        """Date, versions, machine and commit of the run, for the record."""

    @property
    def dataset(self) -> ResidentDataset:
        """All images and labels of the experiment, for trainers that need other batches than `batches` yields.

        Its `rows` are those that the cell may train, validate and test on: with folds, those of its fold.
        """

    @property
    def started(self) -> bool:
        """Whether a trainer has built a recognizer, and so has taken the cell."""

    def recognizer(self) -> Recognizer:
        """Build the recognizer of the cell on the device, each stage initialized from a seed of its own.

        One encoder starts from the same weights under every decoder of the same seed. A trainer that leaves the cell to
        others must not call this.
        """

    def batches(self, steps: int, *, start: int = 1) -> Iterator[Batch]:
        """Yield the training batch of each step from `start` to `steps`: augmented images, labels, and valid columns.

        Images are float32 in about [-1, 1], (B, C, H, W), on the device. The batch of a step depends on the cell's seed
        and the step alone, so every decoder is trained on the same images in the same order.

        Raises:
            PendingCellsError: the run ends before the cell is done; let it pass.
        """

    def between_steps(self) -> None:
        """Save a checkpoint if one is due, wait while other cells are timed, and end here if the run ends.

        `batches` does this before each batch. Call it before each step if you make batches of your own.

        Raises:
            PendingCellsError: the run ends before the cell is done; let it pass.
        """

    def resuming(self, trainer: Resumable) -> AbstractContextManager[None]:
        """Continue a cell in the block, from its last checkpoint if it has one, and save checkpoints of it.

        First the trainer's state is loaded; then `trainer.step` says where to go on. The recognizers that
        `recognizer()` has built by then, the random states and the history are saved and loaded with it. A checkpoint
        is saved about every minute, before a batch, and if the run ends in the block, also within an evaluation, which
        the next attempt must repeat: let the state say which step was validated. Train and call `finish` in the block.

        Without it, a cell under way starts again at step 0 when the run ends.
        """

    @property
    def idle_seconds(self) -> float:
        """Seconds so far in which `between_steps` saved or waited: no time of training."""

    def evaluate(self, recognizer: Recognizer, split: Split = "val") -> Evaluation:
        """Transcribe and score a split, with the beam size and the metrics of the experiment. Leaves eval mode on.

        Raises:
            DivergedError: a score is not a finite number.
            PendingCellsError: the run ends before the cell is done; let it pass.
        """

    def progressed(self, step: int, loss: float) -> None:
        """Report progress to the observers; `loss` is in nats per character. Call it about twice per second."""

    def validated(self, step: int, scores: Mapping[str, float | None], evaluation: Evaluation | None = None) -> None:
        """Append a validation to the cell's `history.jsonl` and report it to the observers.

        Args:
            step: the optimizer steps so far.
            scores: a row of numbers; it must hold `val_exact_match`, a fraction of 1, for the curves of the report.
            evaluation: what `evaluate(recognizer)` returned. The history then also keeps which images were right, which
                observers do not get. With a validation at `cell.training.nine_tenths` and at the last step, the report
                can tell whether the cell was still learning.

        Raises:
            ValueError: the evaluation is not one of the validation split.
        """

    def finish(self, recognizer: Recognizer, *, kept_step: int, cost: Cost | None = None) -> RunRecord:
        """Read the test and validation splits, write predictions and weights, measure speed, and return the record.

        A trial of tuning (`cell.purpose == "tuning"`) is scored on the validation split instead, and its speed is not
        measured; `dataset` then refuses to return test images.

        Args:
            recognizer: with the weights to test.
            kept_step: the optimizer step that these weights come from.
            cost: what the trainer measured: `train_samples_per_sec` and `train_seconds`. Latency, throughput of
                transcription and peak memory are measured here. Peak memory of training is that since `recognizer()`,
                without evaluations.
        """
