"""A finished cell trained again from what its results folder states, and whether the same comes out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from decoderbench.analysis.predictions import read_predictions
from decoderbench.conditions import CONDITIONS, DECISIVE, conditions_of, differing
from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, parse_experiment
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import ConfigError, DataError
from decoderbench.inference.choice import WEIGHTS, find_id
from decoderbench.planning.prepare import Prepared, prepare
from decoderbench.records.cell_differences import why_missing
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord
from decoderbench.registry.registry import Registry
from decoderbench.report.metric_texts import metric_name, metric_text
from decoderbench.runs.runner import execute

logger = logging.getLogger("decoderbench")

FOLDER = "reproduced"


@dataclass(frozen=True)
class Reproduction:
    """A cell that was trained twice.

    Attributes:
        before: its record.
        after: that of the training now, which may have failed.
        folder: the results folder of the training now.
        texts: for each test image, in the order of the data, what was read and what is read now; empty if it failed.
    """

    before: RunRecord
    after: RunRecord
    folder: Path
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def changed(self) -> int:
        """The number of test images that are read otherwise now."""
        return sum(before != after for before, after in self.texts)

    @property
    def came_back(self) -> bool:
        """Whether all test images are read as before, so that every rate of the record is what it was."""
        return self.after.status == "done" and not self.changed

    @property
    def has_same_weights(self) -> bool:
        """Whether the weights are those of before to the last bit."""
        files = [record.artifacts.get(WEIGHTS) for record in (self.before, self.after)]
        return None not in files and files[0] == files[1]

    def lines(self) -> Iterator[str]:
        """Yield what came out, as lines for people."""
        if self.after.status != "done":
            yield f"the cell has no result now: {self.after.status}: {self.after.reason}"
            return
        for name, before in self.before.metrics.items():
            yield f"{metric_name(name)}: {_then_and_now(name, before, self.after.metrics.get(name))}"
        total = len(self.texts)
        yield (
            f"all {total:,} test images are read as before"
            if not self.changed
            else f"{self.changed:,} of {total:,} test images are read otherwise"
        )
        yield f"weights: {'the same to the last bit' if self.has_same_weights else 'others'}"
        conditions = [conditions_of(record.environment) for record in (self.before, self.after)]
        names = [name for name in DECISIVE | {"python"} if name != "sources" or not self.has_same_weights]
        for name in differing(conditions[0], conditions[1], names):
            yield f"{CONDITIONS[name]}: {conditions[0][name]} then, {conditions[1][name]} now"


def reproduce(
    source: str | Path,
    cell: str,
    registry: Registry,
    *,
    device: torch.device,
    results: str | Path | None = None,
    base_dir: str | Path | None = None,
    threads: int | None = None,
    executor: str | None = None,
    command: str = "decoderbench.runs.reproduction.reproduce(...)",
    deadline: Deadline = NO_DEADLINE,
) -> Reproduction:
    """Train a finished cell again, and compare.

    Args:
        source: the results folder.
        cell: its id, or the beginning of it.
        registry: the components.
        device: where to train.
        results: the results folder of the new training; default: `reproduced/<id>` in that of the old one. If the cell
            has a result there, nothing is trained.
        base_dir: where relative paths of the experiment start; default: where they did.
        threads: how many threads train; default: on a CPU as many as before.
        executor: as `run` takes it.
        command: the command line that the report names as its origin.
        deadline: when training is saved and ends early; default: never.

    Raises:
        ConfigError: no finished cell has this id.
        DataError: the folder does not state its experiment, or the data, components or settings are others now.
    """
    directory = ResultsDirectory(source)
    plan = directory.read_plan()
    before = _find_finished(directory, plan, cell)
    planned = plan_again(directory, plan, before.cell, registry, base_dir, deadline)
    if threads is None and device.type == "cpu" and before.environment.get("threads", "").isdecimal():
        threads = int(before.environment["threads"])
    again = ResultsDirectory(results or directory.path / FOLDER / before.cell.cell_id)
    execute(planned, again, device, threads=threads, executor=executor, jobs=1, command=command)
    after = again.read(planned.cells[0])
    if after is None:
        raise DataError(f"{again.path}: the result of {before.cell.title} cannot be read; remove the folder")
    texts = [_texts_of(directory, before), _texts_of(again, after)] if after.status == "done" else [{}, {}]
    common = tuple((text, texts[1].get(sample, "")) for sample, text in texts[0].items())
    return Reproduction(before, after, again.path, common)


def _find_finished(directory: ResultsDirectory, plan: Plan, wanted: str) -> RunRecord:
    ids = {cell.cell_id: cell for cell in plan.cells}
    wanted = find_id(wanted, list(ids), "cell")
    record = directory.read(ids[wanted])
    if record is None or record.status != "done":
        state = f"its status is {record.status}" if record else "it has no result yet"
        raise ConfigError([f"--cell {wanted}: {state}, so there is nothing to compare with; give a finished cell"])
    return record


def plan_again(
    directory: ResultsDirectory,
    plan: Plan,
    cell: Cell,
    registry: Registry,
    base_dir: str | Path | None,
    deadline: Deadline,
) -> Prepared:
    """Return the experiment of a results folder with one cell alone, with the values that tuning chose for it.

    Raises:
        DataError: the folder does not state its experiment, or data, components or settings are others now.
    """
    prepared = prepare_again(directory, plan, registry, base_dir, deadline)
    planned = prepared.decide(directory.read)
    same = [other for other in planned if other.cell_id == cell.cell_id]
    if not same:
        raise DataError(f"{cell.title} cannot be trained again as it was: {why_missing(cell, planned)}")
    data = {cell.data_key: prepared.data[cell.data_key]}
    starts = tuple(start for start in prepared.starts if cell.start and start.point.digest == cell.start.digest)
    return replace(prepared, cells=(same[0],), tuning=None, data=data, starts=starts)


def prepare_again(
    directory: ResultsDirectory, plan: Plan, registry: Registry, base_dir: str | Path | None, deadline: Deadline
) -> Prepared:
    """Prepare the experiment of a results folder from what its plan states.

    Raises:
        DataError: the plan does not state it.
    """
    if not plan.definition:
        move = "give the run command again, which trains nothing that is finished and writes it"
        raise DataError(f"{directory.path}: its plan does not state the experiment; {move}")
    stated = json.loads(plan.definition)
    experiment: Experiment = parse_experiment(stated["experiment"], source=str(directory.path))
    base_dir = directory.path / stated["base_dir"] if base_dir is None else base_dir
    return prepare(experiment, registry=registry, base_dir=base_dir, deadline=deadline, audit_images=True)


def _texts_of(directory: ResultsDirectory, record: RunRecord) -> dict[str, str]:
    try:
        table = read_predictions(directory, record)
    except DataError as error:
        file = directory.cell_directory(record.cell) / "predictions.parquet"
        raise DataError(f"{file}: {error}, so transcriptions cannot be compared") from None
    return dict(zip(table["sample"].to_pylist(), table["hypothesis"].to_pylist(), strict=True))


def _then_and_now(metric: str, before: float | None, after: float | None) -> str:
    then, now = ("n/a" if value is None else metric_text(metric, value) for value in (before, after))
    if before == after:
        return f"{then}, the same"
    return f"{then}, now {now}" if then != now else f"{then}, the same as far as shown"
