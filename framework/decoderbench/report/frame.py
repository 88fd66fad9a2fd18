"""Records to pandas: one row a cell, and from that one row a variant. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from decoderbench.config.cell import Cell
from decoderbench.kinds import AXES
from decoderbench.metrics import BUILT_IN
from decoderbench.records import Plan, ResultsDirectory, RunRecord

logger = logging.getLogger("decoderbench")
ExtraColumns = Callable[[RunRecord], Mapping[str, object]]
"""Further columns of a record: names and values."""

VARIANT = list(AXES)
METRICS = list(BUILT_IN)
COSTS = [
    "param_count",
    "gmacs",
    "latency_ms",
    "train_samples_per_sec",
    "infer_samples_per_sec",
    "peak_memory_mb",
]
SEVERITY = ["done", "pending", "infeasible", "diverged", "oom", "failed"]

_DTYPES = {
    "experiment": "str",
    "dataset": "str",
    **dict.fromkeys(VARIANT, "str"),
    "seed": "int64",
    "status": "str",
    "reason": "str",
    **dict.fromkeys(METRICS, "float64"),
    "num_test": "Int64",
    "param_count": "float64",
    "gmacs": "float64",
    "train_samples_per_sec": "float64",
    "infer_samples_per_sec": "float64",
    "latency_ms": "float64",
    "peak_memory_mb": "float64",
    "train_seconds": "float64",
    "frames": "Int64",
    "device": "str",
    "cell_id": "str",
    "name": "str",
}


@dataclass(frozen=True)
class Results:
    """What a report is made from: a plan, its records, and both as frames."""

    directory: ResultsDirectory
    plan: Plan

    records: tuple[RunRecord, ...]
    """In plan order; cells that have none are left out."""

    cells: pd.DataFrame
    """One row a cell of the plan; the status of a cell without a record is `pending`."""

    @property
    def recorded(self) -> pd.DataFrame:
        """One row a cell that has a record."""
        return self.cells[self.cells["status"] != "pending"].reset_index(drop=True)


def load_results(path: str | Path, *, extra_columns: ExtraColumns | None = None) -> Results:
    """Read a results directory. A further metric or column whose name is taken is left out, with a warning.

    Raises:
        DataError: the directory has no plan, or a damaged one.
    """
    directory = ResultsDirectory(path)
    plan = directory.read_plan()
    records = [directory.read(cell) for cell in plan.cells]
    cells = _frame(plan.cells, records, extra_columns)
    return Results(directory, plan, tuple(record for record in records if record is not None), cells)


def load_frame(path: str | Path, *, extra_columns: ExtraColumns | None = None) -> pd.DataFrame:
    """Return one row a cell that has a record, in plan order.

    Rates are fractions of 1, `param_count` is in millions, `gmacs` in 10^9, `peak_memory_mb` in 10^6 bytes,
    and all else is in the unit that the column's name ends with. After the fixed columns come further metrics
    by name, then `extra_columns`. Metrics of a cell that is not done are missing.

    Raises:
        DataError: the directory has no plan, or a damaged one.
    """
    return load_results(path, extra_columns=extra_columns).recorded


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a variant, in the order of the frame of one experiment.

    `num_seeds` of `num_cells` are done. Over those, `<metric>_mean` and `<metric>_std` are the mean and the
    sample standard deviation of the metrics (missing for one seed), and costs are means, in the units of
    `load_frame`. `name` is empty for a variant that has none, `status` is the worst of the row's, and `reasons`
    says why cells are not done.
    """
    done = frame["status"] == "done"
    numbers = frame[METRICS + COSTS].where(done)
    reasons = (frame["status"] + ": " + frame["reason"]).mask(done, "").str.removesuffix(": ")
    rows = frame[[*VARIANT, "name", "status"]].assign(done=done, reasons=reasons, **numbers)
    return rows.groupby(VARIANT, sort=False, as_index=False).agg(
        name=("name", "first"),
        num_seeds=("done", "sum"),
        num_cells=("done", "size"),
        **{f"{name}_{kind}": (name, kind) for name in METRICS for kind in ("mean", "std")},
        **{name: (name, "mean") for name in COSTS},
        status=("status", lambda statuses: max(statuses, key=SEVERITY.index)),
        reasons=("reasons", lambda sentences: "; ".join(filter(None, dict.fromkeys(sentences)))),
    )


def _frame(
    cells: tuple[Cell, ...], records: list[RunRecord | None], extra_columns: ExtraColumns | None
) -> pd.DataFrame:
    rows = [_row(cell, record) for cell, record in zip(cells, records, strict=True)]
    frame = pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
    measured = [record.metrics if record and record.status == "done" else {} for record in records]
    recorded = {name for record in records if record for name in record.metrics}
    for name in sorted(recorded.difference(METRICS)):
        _add_column(frame, name, [metrics.get(name) for metrics in measured], "float64")
    extras = [extra_columns(record) if record and extra_columns else {} for record in records]
    for name in dict.fromkeys(name for extra in extras for name in extra):
        values = [extra.get(name) for extra in extras]
        integers = pd.api.types.infer_dtype(values, skipna=True) == "integer"
        _add_column(frame, name, values, "Int64" if integers else None)
    return frame


def _row(cell: Cell, record: RunRecord | None) -> dict[str, Any]:
    """Labels and counts come from the plan: a variant may have been renamed since its record was made."""
    row: dict[str, Any] = {
        "experiment": cell.experiment,
        "dataset": cell.dataset,
        **dict(zip(VARIANT, cell.variant, strict=True)),
        "seed": cell.seed,
        "status": "pending",
        "reason": "",
        "param_count": cell.param_count,
        "gmacs": cell.gmacs,
        "frames": cell.frames,
        "device": "",
        "cell_id": cell.cell_id,
        "name": cell.name,
    }
    if record is not None:
        row |= record.model_dump(include={"status", "reason", "num_test", "device"}) | dict(record.cost)
        if record.status == "done":
            row |= {name: record.metrics.get(name) for name in METRICS}
    return row


def _add_column(frame: pd.DataFrame, name: str, values: list[Any], dtype: str | None) -> None:
    if name in frame:
        logger.warning("report column %r exists already, a plugin's is left out; give it another name", name)
        return
    frame[name] = pd.Series(values, index=frame.index, dtype=dtype)
