"""One row trained once more on all images, to be used: its accuracy is that of the folds, which were tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from decoderbench.analysis.predictions import TEST, read_predictions
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import ConfigError, DataError
from decoderbench.files.integrity import read_bytes
from decoderbench.inference.choice import WEIGHTS, Chosen, choose_model
from decoderbench.inference.confidence import OF_FOLDS, Confidence
from decoderbench.inference.loading import StoredModel, write_model
from decoderbench.inference.model_card import model_card
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord
from decoderbench.registry.registry import Registry
from decoderbench.runs.reproduction import plan_again
from decoderbench.runs.runner import execute

FOLDER = "refit"


@dataclass(frozen=True)
class Refit:
    """A model that was trained on all images.

    Attributes:
        chosen: the model of a fold whose row, options and seed it has.
        record: its record; the scores in it say nothing.
        folder: its results folder.
        confidence: what the images say of log p, each read by the model of the fold that was not trained on it.
    """

    chosen: Chosen
    record: RunRecord
    folder: Path
    confidence: Confidence

    def lines(self) -> tuple[str, ...]:
        """Return what it is, as lines for people."""
        cell = self.chosen.record.cell
        of_all = f"trained on all images, with the options and the seed of {cell.model_title}"
        return self.chosen.reasons[0], f"model      {of_all}; its training is in {self.folder}"

    def pack(self, file: str | Path, registry: Registry) -> None:
        """Write it as a pack, whose model card has the accuracy of the folds."""
        cell = self.record.cell
        weights = ResultsDirectory(self.folder).cell_directory(cell) / WEIGHTS
        stored = StoredModel(cell, lambda: read_bytes(weights), self.confidence)
        write_model(file, stored, self.record, model_card(self.chosen, refit=True), registry)


def refit(
    source: str | Path,
    registry: Registry,
    *,
    device: torch.device,
    row: str | None = None,
    base_dir: str | Path | None = None,
    threads: int | None = None,
    executor: str | None = None,
    command: str = "decoderbench.runs.refit.refit(...)",
    deadline: Deadline = NO_DEADLINE,
) -> Refit:
    """Train a row of an experiment with folds once more, on all images, and keep its last weights.

    Nothing is trained if that has been done in `refit` in the results folder.

    Args:
        source: the results folder.
        registry: the components.
        device: where to train.
        row: title or name of the row; default: the one whose models are best on validation images.
        base_dir: where relative paths of the experiment start; default: where they did.
        threads: how many threads train; default: as for `run`.
        executor: as `run` takes it.
        command: the command line that the report names as its origin.
        deadline: when training is saved and ends early; default: never.

    Raises:
        ConfigError: the experiment has no folds, or not all of them have a result.
        DataError: the folder does not state its experiment, or data, components or settings are others now.
        DecoderBenchError: the training failed.
    """
    directory = ResultsDirectory(source)
    chosen = choose_model(directory.path, row=row)
    cell = chosen.record.cell
    if not cell.folds:
        rule = "is for experiments with folds, whose accuracy is that of all images; without them none would be left"
        raise ConfigError([f"--refit: {rule}; omit it"])
    if cell.train_limit is not None:
        raise ConfigError([f"--refit: the row is trained on {cell.train_limit:,} images; choose another with --row"])
    confidence = _confidence_of_folds(directory, chosen)
    planned = plan_again(directory, directory.read_plan(), cell, registry, base_dir, deadline)
    on_all = planned.cells[0].model_copy(
        update={"purpose": "refit", "training": cell.training.model_copy(update={"keep": "last"})}
    )
    into = ResultsDirectory(directory.path / FOLDER / on_all.cell_id)
    execute(
        replace(planned, cells=(on_all,)), into, device, threads=threads, executor=executor, jobs=1, command=command
    )
    record = into.read(on_all)
    if record is None or record.status != "done":
        why = f"{record.status}: {record.reason}" if record else "its result cannot be read"
        raise DataError(f"{into.path}: the training on all images failed: {why}; remove the folder to train again")
    return Refit(chosen, record, into.path, confidence)


def _confidence_of_folds(directory: ResultsDirectory, chosen: Chosen) -> Confidence:
    """Return the confidence by the test images of all folds of one seed."""
    samples, cell = chosen.analysis.samples, chosen.record.cell
    records = samples.records(chosen.row, cell.seed)
    if len(records) != cell.folds:
        raise ConfigError(
            [f"--refit: {len(records)} of {cell.folds} folds have a result; run the experiment to its end"]
        )
    log_prob: list[float] = []
    right: list[bool] = []
    for record in records:
        try:
            table = read_predictions(directory, record, TEST)
        except DataError as error:
            raise DataError(f"{directory.cell_directory(record.cell) / TEST}: {error}") from None
        columns = (table[name].to_pylist() for name in ("text_log_prob", "reference", "hypothesis"))
        known = [(score, text == read) for score, text, read in zip(*columns, strict=True) if score is not None]
        log_prob += [score for score, _ in known]
        right += [is_right for _, is_right in known]
    return Confidence.of(log_prob, right, OF_FOLDS)
