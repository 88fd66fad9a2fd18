"""The main table: one row per variant, its scores with intervals, what is wrong with it, and what it costs.

No torch here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from decoderbench.analysis import Analysis
from decoderbench.analysis.frame import METRICS, VARIANT
from decoderbench.analysis.tuning import notes_on_tuning
from decoderbench.config.cell import shown_axes
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.report.footnotes import Footnotes, footnotes_of
from decoderbench.report.metric_texts import metric_name, metric_with_interval
from decoderbench.report.row_notes import notes_on_rows, remarks_on
from decoderbench.report.settings import notes_on_learning
from decoderbench.report.tables import Table, format_significant

SEEDS = "seeds"
COSTS = {
    "param_count": "Params (M)",
    "training_only_param_count": "Training-only params (M)",
    "gmacs": "GMACs",
    "latency_ms": "ms/image",
    "train_samples_per_sec": "Train img/s",
    "infer_samples_per_sec": "Test img/s",
    "train_peak_memory_mb": "Train MB",
    "infer_peak_memory_mb": "Test MB",
    "tuning_seconds": "Tuning (s)",
}
"""The headers of costs, by the names of their columns."""

SHOWN = (*METRICS, SEEDS, "param_count", "gmacs", "latency_ms", "train_samples_per_sec")
IN_A_PAPER = ("exact_match", "cer", SEEDS, "param_count", "latency_ms")
"""The columns for which a page of a paper has room."""


def main_table(analysis: Analysis, columns: Sequence[str] = ()) -> Table:
    """Return the main table with every axis that the plan shows; without `columns`, those usually shown.

    A column of names comes first if any row has a name. The column of seeds is always there, that of parameters which
    training alone uses if any row has some.
    """
    names = ["name"] if (analysis.rows["name"] != "").any() else []
    usual = [*SHOWN, *(["tuning_seconds"] if len(analysis.results.trials) else [])]
    if (analysis.rows["training_only_param_count"] > 0).any():
        usual.insert(usual.index("param_count") + 1, "training_only_param_count")
    return _table(analysis, [*names, *shown_axes(analysis.results.plan.cells)], columns or usual)


def paper_table(analysis: Analysis, columns: Sequence[str] = IN_A_PAPER) -> Table:
    """Return the main table as a paper has room for it: rows by their name, or by the axes in which they differ."""
    labels = label_columns(analysis)
    axes = [axis for axis in shown_axes(analysis.results.plan.cells) if axis not in labels]
    same = "; ".join(f"{axis} {analysis.rows[axis].iloc[0]}" for axis in axes if analysis.rows[axis].nunique() == 1)
    table = _table(analysis, labels, columns)
    notes = [f"the same in all rows: {same}"] if same and labels != ["name"] else []
    return Table(**vars(table) | {"notes": [*notes, *table.notes]})


def label_columns(analysis: Analysis) -> list[str]:
    """Return the columns that tell rows apart: their names if all have one of their own, else the axes that vary."""
    rows = analysis.rows
    if (rows["name"] != "").all() and rows["name"].is_unique:
        return ["name"]
    return [axis for axis in VARIANT if rows[axis].nunique() > 1] or ["decoder"]


def row_labels(analysis: Analysis) -> list[str]:
    """Return a short text for each row that tells it from the others."""
    return [" / ".join(labels) for labels in analysis.rows[label_columns(analysis)].itertuples(index=False, name=None)]


def check_columns(analysis: Analysis, columns: Sequence[str]) -> None:
    """Raise `ConfigError` for a column that no main table has, or that is named twice."""
    known = [*analysis.samples.metrics, SEEDS, *COSTS]
    mistakes = [
        f"--columns {name}: there is no such column{did_you_mean(name, known)}; known: {', '.join(known)}"
        for name in dict.fromkeys(columns)
        if name not in known
    ]
    mistakes += [f"--columns {name}: is named twice; name it once" for name in known if columns.count(name) > 1]
    if mistakes:
        raise ConfigError(mistakes)


def _table(analysis: Analysis, labels: Sequence[str], columns: Sequence[str]) -> Table:
    results, rows = analysis.results, analysis.rows
    marks = footnotes_of(results.cells, shown_axes(results.plan.cells))
    columns = list(dict.fromkeys(columns))
    if SEEDS not in columns:
        columns.insert(sum(name in analysis.samples.metrics for name in columns), SEEDS)
    remarks = remarks_on(analysis)
    lines = [
        [
            *(row[label] for label in labels),
            *(_number(row, name, marks) for name in columns),
            *([remark] if any(remarks) else []),
        ]
        for row, remark in zip(rows.to_dict("records"), remarks, strict=True)
    ]
    metrics = [name for name in columns if name in analysis.samples.metrics]
    pending = int((results.cells["status"] == "pending").sum())
    return Table(
        name="main",
        caption="accuracy on the test split, and cost",
        headers=[
            *map(str.capitalize, labels),
            *("Seeds" if name == SEEDS else COSTS.get(name) or metric_name(name) for name in columns),
            *(["Remarks"] if any(remarks) else []),
        ],
        rows=lines,
        num_labels=len(labels),
        num_remarks=int(any(remarks)),
        notes=[
            *notes_on_rows(analysis, metrics),
            *notes_on_tuning(results.plan, results.trials),
            *marks.notes,
            *results.metric_notes,
            *results.file_notes,
            *results.plan.data_notes,
            *notes_on_learning(results.plan),
            *([f"pending: {pending} of {len(results.cells)} cells"] if pending else []),
        ],
        bold=frozenset(
            (place, len(labels) + columns.index(metric))
            for metric in metrics
            for place in rows.index[rows[f"{metric}_bold"]]
        ),
    )


def _number(row: Mapping[Hashable, Any], name: str, marks: Footnotes) -> str:
    variant = tuple(row[axis] for axis in VARIANT)
    if name == SEEDS:
        of = f" of {row['num_planned_seeds']}" if row["num_seeds"] < row["num_planned_seeds"] else ""
        return f"{row['num_seeds']}{of}{marks.mark_row(variant)}"
    if name in COSTS:
        return format_significant(row[name]) + marks.mark_cost(variant, name)
    return metric_with_interval(name, row, name, f"{name}_low", f"{name}_high")
