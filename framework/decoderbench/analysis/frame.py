"""Records as pandas frames: one row per cell, summarized to one row per variant. No torch here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from decoderbench import kinds
from decoderbench.analysis.definitions import find_mixed_metrics, notes_on_missing
from decoderbench.analysis.tuning import load_trials, seconds_of_tuning, state_of_tuning
from decoderbench.conditions import CONDITIONS, COSTLY, conditions_of
from decoderbench.config.cell import Cell
from decoderbench.files.integrity import UnreadableError
from decoderbench.files.storage import StorageError
from decoderbench.metrics import BUILT_IN, Definition, built_in_definitions, sources_of
from decoderbench.records.record_files import missing_artifacts
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import UNVERIFIED_FORMAT, Plan, RunRecord
from decoderbench.scalars import to_plain

logger = logging.getLogger("decoderbench")
ExtraColumns = Callable[[RunRecord], Mapping[str, object]]
"""A function that returns additional columns of a record, as names and values."""

VARIANT = list(kinds.VARIANT)
"""The columns that identify a variant; `setting` is empty without settings."""

METRICS = list(BUILT_IN)
COSTS = ["param_count", "training_only_param_count", "gmacs", *COSTLY]
SEVERITY = ["done", "pending", "infeasible", "diverged", "timeout", "oom", "failed", "crashed"]
"""Statuses from best to worst; a variant has the worst status of its cells."""

_DTYPES = {
    "experiment": "str",
    "dataset": "str",
    **dict.fromkeys(VARIANT, "str"),
    "seed": "int64",
    "fold": "Int64",
    "folds": "Int64",
    "status": "str",
    "reason": "str",
    **dict.fromkeys(METRICS, "float64"),
    "num_test": "Int64",
    "param_count": "float64",
    "training_only_param_count": "float64",
    "gmacs": "float64",
    "train_samples_per_sec": "float64",
    "infer_samples_per_sec": "float64",
    "latency_ms": "float64",
    "train_peak_memory_mb": "float64",
    "infer_peak_memory_mb": "float64",
    "train_seconds": "float64",
    "frames": "Int64",
    "train_limit": "Int64",
    "tuned": "str",
    "tuning_seconds": "float64",
    **dict.fromkeys(CONDITIONS, "str"),
    "cell_id": "str",
    "name": "str",
}


@dataclass(frozen=True)
class Results:
    """The input of a report: a plan, its records, and both combined as a frame."""

    directory: ResultsDirectory
    plan: Plan

    records: tuple[RunRecord, ...]
    """In plan order, without the cells that have no record."""

    cells: pd.DataFrame
    """One row per cell of the plan; cells without a record have the status `pending`."""

    trials: pd.DataFrame
    """One line per trial of tuning, as `load_trials` returns it."""

    metric_notes: tuple[str, ...] = ()
    """Footnotes on columns whose numbers are of different definitions of a metric, or missing in some rows."""

    file_notes: tuple[str, ...] = ()
    """Footnotes on files: results without a sha256, and files that are missing."""

    definitions: Mapping[str, Definition] = field(default_factory=built_in_definitions)
    """The metrics that this process could compute, by name."""

    @property
    def recorded(self) -> pd.DataFrame:
        """One row per cell that has a record."""
        return self.cells[self.cells["status"] != "pending"].reset_index(drop=True)


def load_results(
    path: str | Path | ResultsDirectory,
    *,
    plan: Plan | None = None,
    extra_columns: ExtraColumns | None = None,
    metrics: Mapping[str, Definition] | None = None,
) -> Results:
    """Read a results directory: the records of a plan, by default the one that is there.

    A cell whose files are damaged has no record: they are renamed, and its row has the reason.

    Additional metrics and columns whose name already exists are ignored, with a warning. If the numbers of a metric are
    of different definitions, or not of that in `metrics` (by default the built-in ones), a warning is logged, and the
    frame gets a column `<metric>_source`.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    directory = path if isinstance(path, ResultsDirectory) else ResultsDirectory(path)
    plan = plan or directory.read_plan()
    read = [_read(directory, cell) for cell in plan.cells]
    records = [record for record, _ in read]
    cells = _build_frame(plan.cells, records, extra_columns)
    trials = load_trials(directory, plan)
    tuning_seconds = seconds_of_tuning(trials)
    cells["tuning_seconds"] = [tuning_seconds.get(cell.variant) for cell in plan.cells]
    for row, (record, reason) in enumerate(read):
        if record is None:
            cells.loc[row, "reason"] = reason or state_of_tuning(trials, plan.cells[row])
    definitions = built_in_definitions() if metrics is None else metrics
    mixed = find_mixed_metrics(plan.cells, records, sources_of(definitions.values()))
    for metric in mixed:
        _add_column(cells, f"{metric.name}_source", [metric.sources.get(cell.cell_id) for cell in plan.cells], "str")
    notes = *(metric.note for metric in mixed), *notes_on_missing(plan.cells, records)
    for note in notes:
        logger.warning("%s", note)
    found = tuple(record for record in records if record is not None)
    on_files = tuple(_notes_on_files(directory, found))
    return Results(directory, plan, found, cells, trials, notes, on_files, definitions)


def load_frame(path: str | Path, *, extra_columns: ExtraColumns | None = None) -> pd.DataFrame:
    """Return one row per cell that has a record, in plan order.

    Rates are fractions of 1, `param_count` and `training_only_param_count` are in millions, `gmacs` in 10^9. For other
    columns, the end of the name gives the unit; an MB is 10^6 bytes. The fixed columns are followed by additional
    metrics, sorted by name, then by `extra_columns`. Metrics of cells that are not done are missing.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    return load_results(path, extra_columns=extra_columns).recorded


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant of one experiment, in the order of its frame.

    `num_seeds` of `num_planned_seeds` seeds are done, with folds all folds of them; `num_cells` is the number of cells.
    Numbers are in the units of `load_frame`: `<metric>_mean` and `<metric>_std` (the sample standard deviation, missing
    for one seed) over done seeds, as `values_of_seeds` returns them, and the means of the costs over done cells. Times
    and memory are missing for a variant whose cells were measured on several machines, or otherwise not alike. `name`
    is empty for a variant without a name, `status` is the worst status of its cells, and `reasons` explains why cells
    are not done.
    """
    done = frame["status"] == "done"
    numbers = frame[COSTS].where(done)
    differing = _differ_within_variants(frame, done)
    for cost, conditions in COSTLY.items():
        numbers[cost] = numbers[cost].mask(differing[sorted(conditions)].any(axis="columns"))
    reasons = (frame["status"] + ": " + frame["reason"]).mask(done, "").str.removesuffix(": ")
    rows = frame[[*VARIANT, "name", "status"]].assign(reasons=reasons, **numbers)
    of_cells = rows.groupby(VARIANT, sort=False, as_index=False).agg(
        name=("name", "first"),
        num_cells=("status", "size"),
        **{name: (name, "mean") for name in COSTS},
        status=("status", lambda statuses: max(statuses, key=SEVERITY.index)),
        reasons=("reasons", lambda sentences: "; ".join(filter(None, dict.fromkeys(sentences)))),
    )
    of_seeds = (
        values_of_seeds(frame, METRICS)
        .groupby(VARIANT, sort=False, as_index=False)
        .agg(
            num_seeds=("done", "sum"),
            num_planned_seeds=("done", "size"),
            **{f"{name}_{kind}": (name, kind) for name in METRICS for kind in ("mean", "std")},
        )
    )
    joined = of_cells.merge(of_seeds, on=VARIANT)
    ends = ["status", "reasons"]
    first = [*VARIANT, "name", "num_seeds", "num_planned_seeds", "num_cells"]
    return joined[[*first, *(name for name in of_seeds if name not in first), *COSTS, *ends]]


def values_of_seeds(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one line per variant and seed: whether it is `done`, and its metrics; missing unless it is.

    A seed is done if all of its cells are, and none is missing in the frame. With folds, its metric is the mean over
    folds, weighted by their images.
    """
    done = frame["status"] == "done"
    weights = frame["num_test"].astype("float64").where(frame["fold"].notna(), 1.0)
    terms = {metric: (frame[metric] * weights).where(done) for metric in metrics}
    table = frame[[*VARIANT, "seed"]].assign(done=done, wanted=frame["folds"].fillna(1), weight=weights, **terms)
    sums = dict.fromkeys(metrics, lambda values: values.sum(skipna=False))
    counts = {"done": "sum", "wanted": "first", "weight": "sum"}
    found = table.groupby([*VARIANT, "seed"], sort=False, as_index=False).agg({**counts, **sums})
    complete = (found["done"] == found["wanted"]).astype(bool)
    values = {metric: (found[metric] / found["weight"]).where(complete) for metric in metrics}
    return found[[*VARIANT, "seed"]].assign(done=complete, **values)


def _read(directory: ResultsDirectory, cell: Cell) -> tuple[RunRecord | None, str]:
    """Return a cell's record, or None and why the one that it had cannot be used.

    Its cell is that of the plan: labels and names may have changed since it was trained.
    """
    try:
        record = directory.check(cell)
    except (UnreadableError, StorageError) as error:
        return None, directory.reason_of_damage(cell) or str(error)
    if record is None:
        return None, directory.reason_of_damage(cell)
    return record.model_copy(update={"cell": cell}), ""


def _notes_on_files(directory: ResultsDirectory, records: Sequence[RunRecord]) -> Iterator[str]:
    if unverified := sum(record.format == UNVERIFIED_FORMAT for record in records):
        yield (
            f"unverified: {unverified} of {len(records)} results are of an earlier format without sha256, so damage of "
            f"their files may go unnoticed"
        )
    missing = Counter(
        name for record in records for name in missing_artifacts(directory.cell_directory(record.cell), record)
    )
    if missing:
        names = ", ".join(f"{name} ({number} cell{'s' * (number > 1)})" for name, number in sorted(missing.items()))
        yield f"missing files, on which no number of this table depends any more: {names}"


def _differ_within_variants(frame: pd.DataFrame, done: pd.Series[bool]) -> pd.DataFrame:
    """Return for each cell and each condition of a cost whether the done cells of its variant differ in it."""
    known = frame[sorted(set().union(*COSTLY.values()))].where(done, "").replace("", None)
    variants = [frame[axis] for axis in VARIANT]
    return known.groupby(variants, sort=False).transform("nunique").gt(1)


def _build_frame(
    cells: tuple[Cell, ...], records: list[RunRecord | None], extra_columns: ExtraColumns | None
) -> pd.DataFrame:
    rows = [_cell_row(cell, record) for cell, record in zip(cells, records, strict=True)]
    frame = pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
    measured = [record.metrics if record and record.status == "done" else {} for record in records]
    recorded = {name for record in records if record for name in record.metrics}
    for name in sorted(recorded.difference(METRICS)):
        _add_column(frame, name, [metrics.get(name) for metrics in measured], "float64")
    extras = [extra_columns(record) if record and extra_columns else {} for record in records]
    for name in dict.fromkeys(name for extra in extras for name in extra):
        values = _plain_column(name, [extra.get(name) for extra in extras])
        integers = pd.api.types.infer_dtype(values, skipna=True) == "integer" and all(map(_fits_int64, values))
        _add_column(frame, name, values, "Int64" if integers else None)
    return frame


def _cell_row(cell: Cell, record: RunRecord | None) -> dict[str, Any]:
    """Return the row of a cell. Labels and counts come from the plan, since variants may be renamed after a run."""
    row: dict[str, Any] = {
        "experiment": cell.experiment,
        "dataset": cell.dataset,
        **dict(zip(VARIANT, cell.variant, strict=True)),
        "seed": cell.seed,
        "fold": cell.fold,
        "folds": cell.folds,
        "status": "pending",
        "reason": "",
        "param_count": None if cell.num_parameters is None else cell.num_parameters / 1e6,
        "training_only_param_count": None if cell.num_parameters is None else cell.num_training_only_parameters / 1e6,
        "gmacs": cell.gmacs,
        "frames": cell.frames,
        "train_limit": cell.train_limit,
        "tuned": cell.tuned_text,
        **conditions_of({}),
        "cell_id": cell.cell_id,
        "name": cell.name,
    }
    if record is not None:
        row |= record.model_dump(include={"status", "reason", "num_test"}) | dict(record.cost)
        device = {"machine": record.device} if record.device else {}
        row |= conditions_of(record.environment | device)
        if record.status == "done":
            row |= {name: record.metrics.get(name) for name in METRICS}
    return row


def _plain_column(name: str, values: Sequence[object]) -> list[str | bool | int | float | None]:
    """Return a plugin's column as text, truth values, numbers or None; any other value is left out, with a warning."""
    column: list[str | bool | int | float | None] = []
    refused = []
    for value in values:
        try:
            column.append(to_plain(value))
        except ValueError as error:
            refused.append(error)
            column.append(None)
    if refused:
        logger.warning(
            "report column %r: %s; left out in %d of %d rows; return text, a number, True, False or None",
            name, refused[0], len(refused), len(values),
        )  # fmt: skip
    return column


def _fits_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _add_column(frame: pd.DataFrame, name: str, values: list[Any], dtype: str | None) -> None:
    if name in frame:
        logger.warning("report column %r already exists, so a plugin's is ignored; give it another name", name)
        return
    frame[name] = pd.Series(values, index=frame.index, dtype=dtype)
