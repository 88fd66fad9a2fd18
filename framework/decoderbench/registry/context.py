"""CellContext: everything that a trainer needs to train one cell. The public surface of `run_cell`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from decoderbench.data.dataset import Split
    from decoderbench.data.resident_dataset import ResidentDataset
    from decoderbench.labels import Labels
    from decoderbench.metrics import Evaluation
    from decoderbench.model.recognizer import Recognizer
    from decoderbench.records import Cost, RunRecord


class CellContext(Protocol):
    """What `run_cell` gets beside the cell.

    A trainer builds the recognizer, takes optimizer steps on the batches, evaluates, and returns the record:

        recognizer = context.recognizer()
        for step, (images, labels) in enumerate(context.batches(cell.training.steps), start=1):
            ...
        return context.finish(recognizer, kept_step=cell.training.steps)
    """

    @property
    def device(self) -> torch.device:
        """Where the recognizer and the batches are."""

    @property
    def directory(self) -> Path:
        """The folder of this cell; artifacts go here."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Date, versions, machine and commit of the run, for the record."""

    @property
    def dataset(self) -> ResidentDataset:
        """All images and labels of the experiment, for trainers that need other batches than `batches` yields."""

    @property
    def started(self) -> bool:
        """Whether a trainer has built a recognizer, and so has taken the cell."""

    def recognizer(self) -> Recognizer:
        """Build the recognizer of the cell on the device, each stage initialized from a seed of its own.

        One encoder starts from the same weights under every decoder of the same seed. A trainer that leaves the cell to
        others must not call this.
        """

    def batches(self, steps: int, *, start: int = 1) -> Iterator[tuple[Tensor, Labels]]:
        """Yield the training batch of each step from `start` to `steps`: augmented images and their labels.

        Images are float32 in about [-1, 1], (B, C, H, W), on the device. The batch of a step depends on the cell's seed
        and the step alone, so every decoder is trained on the same images in the same order.

        Raises:
            PendingCellsError: the time of the run is up (`--stop-after`); let it pass, and the cell is dropped.
        """

    def evaluate(self, recognizer: Recognizer, split: Split = "val") -> Evaluation:
        """Transcribe and score a split, with the beam size and the metrics of the experiment. Leaves eval mode on.

        Raises:
            DivergedError: a score is not a finite number.
            PendingCellsError: the time of the run is up; let it pass.
        """

    def progressed(self, step: int, loss: float) -> None:
        """Report progress to the observers; `loss` is in nats per character. Call it about twice per second."""

    def validated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Append a validation to the cell's `history.jsonl` and report it to the observers.

        `scores` must hold `val_exact_match`, a fraction of 1, for the curves of the report.
        """

    def finish(self, recognizer: Recognizer, *, kept_step: int, cost: Cost | None = None) -> RunRecord:
        """Evaluate the test split, write predictions and weights, measure speed, and return the record.

        Args:
            recognizer: with the weights to test.
            kept_step: the optimizer step that these weights come from.
            cost: what the trainer measured: `train_samples_per_sec` and `train_seconds`. Latency, throughput of
                transcription and peak memory are measured here. Peak memory of training is that since `recognizer()`,
                without evaluations.
        """
