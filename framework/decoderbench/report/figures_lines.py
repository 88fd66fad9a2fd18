"""One line per row: against the length of texts, positions, coverage, labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.report.figures_scale import AccuracyScale, set_log_scale
from decoderbench.report.figures_style import add_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LineAxes:
    """What a figure of lines shows; the label of an axis of accuracies gets the unit of its scale."""

    x: str
    y: str
    accuracy: bool = True
    logarithmic: bool = False
    integers: bool = True
    band: bool = False
    """Whether intervals are a band along the line, for many points, and not a bar at each of them."""


def draw_lines(figure: Figure, lines: pd.DataFrame, rows: pd.DataFrame, shown: LineAxes) -> None:
    """Draw a line per row, in the order of `rows`.

    Args:
        figure: an empty figure.
        lines: `index` of the row, `x`, `y` (accuracies in percent), and perhaps `low` and `high`.
        rows: `label` and `style`, by index, and `exact_match`, which decides the scale of accuracies.
        shown: the axes.
    """
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    handles, labels = [], []
    for index, row in zip(rows.index, rows.to_dict("records"), strict=True):
        own = lines[lines["index"] == index].sort_values("x")
        if own.empty:
            continue
        style = row["style"]
        (line,) = axes.plot(own["x"], own["y"], style.dash, color=style.color, marker=style.marker, linewidth=1.5)
        line.set_markevery(max(1, len(own) // 10))
        if shown.band:
            axes.fill_between(own["x"], own["low"], own["high"], color=style.color, alpha=0.12, linewidth=0)
        elif "low" in own:
            axes.vlines(own["x"], own["low"], own["high"], color=style.color, linewidth=1)
        handles.append(line)
        labels.append(row["label"])
    axes.set(xlabel=shown.x, ylabel=shown.y)
    if shown.logarithmic:
        set_log_scale(axes, lines["x"].min() / 1.1, lines["x"].max() * 1.1)
    elif shown.integers:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if shown.accuracy:
        ends = [end for name in ("low", "high") if name in lines for end in lines[name].dropna()]
        scale = AccuracyScale.of(100 * rows["exact_match"])
        scale.apply(axes, "y", [*lines["y"], *ends])
        axes.set_ylabel(f"{shown.y} ({scale.suffix})")
    else:
        axes.set_ylim(bottom=0)
    add_legend(figure, handles, labels)
