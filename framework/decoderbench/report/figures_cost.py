"""Accuracy against a cost: the rows with their intervals, and the Pareto front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.report.figures_scale import AccuracyScale, set_log_scale
from decoderbench.report.figures_style import add_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_ALIKE = (
    "Times were not all measured alike: those with a note of the table cannot be compared with the rest,\n"
    "and are not on the front; rows whose seeds were measured differently are not shown"
)


@dataclass(frozen=True)
class CostAxis:
    """A cost that accuracy is drawn against."""

    column: str
    """In the rows of a report."""

    label: str
    caption: str


COST_AXES = {
    "accuracy_vs_latency": CostAxis(
        "latency_ms", "Time to transcribe one image (ms", "the time to transcribe one image"
    ),
    "accuracy_vs_parameters": CostAxis("param_count", "Parameters (millions", "the number of parameters"),
    "accuracy_vs_macs": CostAxis("gmacs", "Multiply-accumulates per image (10⁹", "multiply-accumulates per image"),
    "accuracy_vs_training_time": CostAxis("train_seconds", "Training time (s", "the time to train one model"),
}


def draw_cost(figure: Figure, points: pd.DataFrame, cost: CostAxis) -> None:
    """Draw exact match against a cost.

    Args:
        figure: an empty figure.
        points: rows with a value and a cost above 0: `exact_match` with `_low` and `_high` as fractions of 1, the
            cost's column, `label`, `style`, and `alike`: whether the cost can be compared with those of other rows.
        cost: the cost.
    """
    axes = figure.add_subplot()
    value, low, high = (100 * points[f"exact_match{end}"] for end in ("", "_low", "_high"))
    low, high = low.fillna(value), high.fillna(value)
    scale = AccuracyScale.of(value)
    front = pareto_front(points[points["alike"]], cost.column)
    least, most = points[cost.column].min(), points[cost.column].max()
    margin = 1.1 * (most / least) ** 0.06
    last = most * margin
    steps = [*front[cost.column], last], [*front["exact_match"], front["exact_match"].max()]
    axes.step(steps[0], [100 * step for step in steps[1]], where="post", color="0.7", linewidth=1, zorder=1)
    handles = []
    for position, row in enumerate(points.to_dict("records")):
        center, style = value.iloc[position], row["style"]
        bar = [[max(center - low.iloc[position], 0)], [max(high.iloc[position] - center, 0)]]
        handles.append(
            axes.errorbar(row[cost.column], center, bar, fmt=style.marker, color=style.color, elinewidth=1, capsize=3)
        )
    axes.set_xlabel(f"{cost.label}, log scale)")
    set_log_scale(axes, least / margin, last)
    scale.apply(axes, "y", [*value, *low, *high])
    axes.set_ylabel(f"Exact match on the test split ({scale.suffix})")
    if not points["alike"].all():
        axes.set_title(NOT_ALIKE)
    add_legend(figure, [handle.lines[0] for handle in handles], list(points["label"]))


def pareto_front(points: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the Pareto front, cheapest first: each point is more accurate than all others that cost no more."""
    ordered = points.sort_values([cost, "exact_match"], ascending=[True, False])
    return ordered[ordered["exact_match"] > ordered["exact_match"].cummax().shift(fill_value=-1.0)]
