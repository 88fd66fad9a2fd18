"""LocalContext: the `CellContext` of a cell that runs in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.torch
import torch

from decoderbench.alignments import encode_alignments
from decoderbench.config.cell import Cell
from decoderbench.data.augmentation import Augmentation
from decoderbench.data.dataset import Split
from decoderbench.data.resident_dataset import Batch, ResidentDataset
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.files.storage import write_atomically
from decoderbench.metrics import Definition, Evaluation, sources_of
from decoderbench.model.recognizer import Recognizer, weights_of
from decoderbench.records.predictions import encode_predictions
from decoderbench.records.record_files import CHECKPOINTS
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost, RunRecord, pack_flags
from decoderbench.registry.context import Resumable
from decoderbench.registry.executor import CellEvent, Report
from decoderbench.registry.metric_definitions import definitions_with
from decoderbench.registry.registry import Registry
from decoderbench.scalars import to_number, to_plain
from decoderbench.seeds import derive_seed
from decoderbench.training import timing
from decoderbench.training.attempt import Attempt
from decoderbench.training.checkpoint import CHECKPOINT_SECONDS, Checkpoints
from decoderbench.training.devices import device_name
from decoderbench.training.evaluation import evaluate
from decoderbench.training.measuring import Turn
from decoderbench.training.memory import TrainingMemory, transcription_peak_mb
from decoderbench.training.provenance import describe_arithmetic
from decoderbench.training.start import build_started, read_start

if TYPE_CHECKING:
    from numpy.typing import NDArray

THROUGHPUT_BATCHES = 8
IMAGES_TO_DRAW = 6
"""Test images whose alignments are kept, at equal distances in the data set, so they are the same for all rows."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class LocalContext:
    """What a trainer needs, as `CellContext` documents it.

    Attributes:
        cell: the cell to train.
        registry: the components to build it from, the metrics to score it with, and the observers.
        dataset: the images and labels of the cell; its fold and its limit are applied to what it is given.
        directory: the folder of the cell.
        environment: versions, machine, commit and date, for the record.
        deadline: when the run ends; the cell stays pending then.
        report: receives the events of the cell, which observers see.
        checkpoint_every: seconds of training between two checkpoints; None for no checkpoints.
        turn: lets one process on the machine measure alone; its `between_steps` is the `pause` of the deadline.
    """

    cell: Cell
    registry: Registry
    dataset: ResidentDataset
    directory: Path
    environment: Mapping[str, str]
    deadline: Deadline = NO_DEADLINE
    report: Report = lambda event: None
    checkpoint_every: float | None = CHECKPOINT_SECONDS
    turn: Turn = field(default_factory=Turn)
    _recognizers: list[bool] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        choose = self.dataset.of_all if self.cell.purpose == "refit" else self.dataset.of_fold
        object.__setattr__(self, "dataset", choose(self.cell.fold))
        if self.cell.purpose == "tuning":
            object.__setattr__(self, "dataset", self.dataset.without_test())
        if self.cell.train_limit is not None:
            object.__setattr__(self, "dataset", self.dataset.limited_to(self.cell.train_limit, self.cell.training_seed))

    @property
    def device(self) -> torch.device:
        """Where the recognizer and the batches are."""
        return self.dataset.device

    @cached_property
    def metrics(self) -> dict[str, Definition]:
        """The built-in metrics and those of plugins."""
        return definitions_with(self.registry["metric"])

    @property
    def started(self) -> bool:
        """Whether a trainer has built a recognizer."""
        return bool(self._recognizers)

    @cached_property
    def _attempt(self) -> Attempt:
        """What is saved of this attempt at the cell; it begins with the first use."""
        folder = self.directory / CHECKPOINTS
        checkpoints = Checkpoints(folder, self.cell, self.environment, self.checkpoint_every)
        return Attempt(checkpoints, self.directory / "history.jsonl", self.device)

    @cached_property
    def _memory(self) -> TrainingMemory:
        """The measurement of memory, which begins with the first use."""
        return TrainingMemory(self.device)

    def recognizer(self) -> Recognizer:
        """Build the recognizer of the cell on the device."""
        self._recognizers.append(True)
        self.deadline.pause()  # a process that was paused until now deletes nothing of the new holder
        self._attempt.begin()
        self._memory.restart()  # its baseline is taken before the recognizer exists
        start, pack = self.cell.start, None
        if start is not None:
            pack = read_start(ResultsDirectory(self.directory.parents[1]).start_file(start.digest), start)
        recognizer = build_started(self.cell, self.registry, self.device, pack)[0]
        self._attempt.add_recognizer(recognizer)
        return recognizer

    def batches(self, steps: int, *, start: int = 1) -> Iterator[Batch]:
        """Yield the augmented training batch of each step from `start` to `steps`."""
        sampler = self.dataset.sampler(self.cell.training.batch_size, derive_seed(self.cell.training_seed, "data"))
        augmentation = Augmentation(self.cell.augmentation, self.cell.training_seed, self.device)
        for step in range(start, steps + 1):
            self._between_steps(f"at step {step} of {steps}")
            yield augmentation(self.dataset.gather(sampler.batch(step - 1)), step)

    def between_steps(self) -> None:
        """Save a checkpoint if one is due, wait while other cells are timed, and end here if the run ends."""
        self._between_steps("between two steps")

    def _between_steps(self, where: str) -> None:
        self.deadline.check(where)  # first: a cell that another process has taken over is not saved
        self._attempt.save_if_due()

    def resuming(self, trainer: Resumable) -> AbstractContextManager[None]:
        """Continue a cell in the block, from its last checkpoint if it has one, and save checkpoints of it."""
        self.deadline.pause()  # as above
        return self._attempt.resuming(trainer)

    @property
    def idle_seconds(self) -> float:
        """Seconds so far in which `between_steps` saved or waited."""
        return self._attempt.checkpoints.seconds + self.turn.waited_seconds

    def evaluate(self, recognizer: Recognizer, split: Split = "val") -> Evaluation:
        """Transcribe and score a split."""
        return self._evaluate(recognizer, split)

    def _evaluate(self, recognizer: Recognizer, split: Split, **options: Any) -> Evaluation:
        with self._memory.not_counted(), self._attempt.evaluating():
            return evaluate(
                recognizer,
                self.dataset,
                self.dataset.rows(split),
                self.cell.evaluation,
                self.metrics,
                normalize=self.cell.labels.normalize,
                deadline=self.deadline,
                **options,
            )

    def progressed(self, step: int, loss: float) -> None:
        """Report progress to the observers."""
        arguments = {"cell": self.cell, "step": to_plain(step), "loss": to_plain(loss)}
        self.report(CellEvent("cell_progressed", arguments))

    def validated(self, step: int, scores: Mapping[str, float | None], evaluation: Evaluation | None = None) -> None:
        """Append a validation to the history and report it to the observers, with plain numbers."""
        step, row = int(to_number(step)), {name: to_plain(value) for name, value in scores.items()}
        self._attempt.add_row({"step": step, **row, **self._correct_in(evaluation)})
        self.report(CellEvent("cell_validated", {"cell": self.cell, "step": step, "scores": row}))

    def finish(self, recognizer: Recognizer, *, kept_step: int, cost: Cost | None = None) -> RunRecord:
        """Evaluate the test split, write predictions and weights, measure speed, and return the record.

        A trial of tuning is scored on the validation split alone: no weights, no test, no speed.
        """
        cost = (cost or Cost()).model_copy(update={"train_peak_memory_mb": self._memory.peak_mb()})
        with self._attempt.evaluating():  # all of it is repeated if the run ends within
            if self.cell.purpose == "tuning":
                validation = self.evaluate(recognizer, "val")
                write_atomically(self.directory / "val_predictions.parquet", encode_predictions(validation))
                return self._record(validation, kept_step, cost)
            test_rows = self.dataset.rows("test")
            test = self._evaluate(recognizer, "test", with_details=True, drawn=spread(test_rows, IMAGES_TO_DRAW))
            validation = self._evaluate(recognizer, "val", with_details=True)
            write_atomically(self.directory / "predictions.parquet", encode_predictions(test))
            write_atomically(self.directory / "val_predictions.parquet", encode_predictions(validation))
            if test.alignments:
                write_atomically(self.directory / "alignments.npz", encode_alignments(test.alignments))
            write_atomically(self.directory / "weights.safetensors", safetensors.torch.save(weights_of(recognizer)))
            costs, how = self._measure_transcription(recognizer, test)
            return self._record(test, kept_step, cost.model_copy(update=costs), measured=how)

    def _record(self, scored: Evaluation, kept_step: int, cost: Cost, **environment: str) -> RunRecord:
        return RunRecord(
            cell=self.cell,
            status="done",
            metrics=dict(scored.scores),
            metric_sources=sources_of(self.metrics.values()),
            num_test=len(scored.keys),
            kept_step=kept_step,
            cost=cost,
            device=device_name(self.device),
            environment=dict(self.environment) | describe_arithmetic(self.device) | environment,
        )

    def _correct_in(self, evaluation: Evaluation | None) -> dict[str, str]:
        """Return which images of the validation split were right, for the history."""
        if evaluation is None:
            return {}
        rows = self.dataset.in_order(self.dataset.rows("val"), self.cell.evaluation.batch_size)
        if list(evaluation.keys) != [self.dataset.store.keys[row] for batch in rows for row in batch]:
            raise ValueError(
                "the evaluation is not one of the validation split; give what evaluate(recognizer) returns"
            )
        pairs = zip(evaluation.references, evaluation.hypotheses, strict=True)
        return {"val_correct": pack_flags([reference == hypothesis for reference, hypothesis in pairs])}

    def _measure_transcription(self, recognizer: Recognizer, test: Evaluation) -> tuple[dict[str, Any], str]:
        """Return speed and memory of transcription, and how they were measured, as `Measurement` says it."""
        images, beam_size, deadline = self._images_to_time(), self.cell.evaluation.beam_size, self.deadline
        middle, largest = images[len(images) // 2].first(), max(images, key=lambda batch: batch.images.numel())
        image_of_length = self._images_by_length(test)
        with self.turn.alone() as measurement:
            throughput = timing.measure_throughput(recognizer, images, beam_size, deadline)
            latency = timing.measure_latency_ms(recognizer, middle, beam_size, deadline)
            by_length = timing.measure_latency_by_length(recognizer, image_of_length, beam_size, deadline)
        return {
            "infer_samples_per_sec": throughput,
            "latency_ms": latency,
            "latency_ms_by_length": by_length,
            "infer_peak_memory_mb": transcription_peak_mb(recognizer, largest, beam_size),
        }, measurement.how

    def _images_to_time(self) -> list[Batch]:
        """Return a few batches of test images on the device, of all widths if widths vary."""
        dataset = self.dataset
        batches = list(dataset.in_order(dataset.rows("test"), self.cell.evaluation.batch_size))
        return [dataset.gather(rows).to_float() for rows in spread(batches, THROUGHPUT_BATCHES)]

    def _images_by_length(self, test: Evaluation) -> dict[int, Batch]:
        """Return a batch of one test image for each of up to 6 lengths of the texts that were read, ascending."""
        dataset = self.dataset
        batches = dataset.in_order(dataset.rows("test"), self.cell.evaluation.batch_size)
        rows = dict(zip(map(len, test.hypotheses), np.concatenate(list(batches)), strict=True))
        lengths = spread(sorted(rows), timing.LENGTHS_TO_TIME)
        return {length: dataset.gather(rows[length][None]).to_float() for length in lengths}


def spread(items: Sequence[Item] | NDArray[Any], most: int) -> list[Item]:
    """Return up to `most` items at equal distances, the first and the last included."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]
