"""Accuracy on the validation split against optimizer steps, with every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.report.figures_scale import AccuracyScale
from decoderbench.report.figures_style import Style, add_legend, label_of, style_of, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_MANY_ROWS = 12
"""With more rows, curves are split into panels."""


def draw_steps(figure: Figure, curves: pd.DataFrame, rows: pd.DataFrame, varying: Sequence[str]) -> None:
    """Draw a thin line per seed and a thick one per row: the mean over the seeds that learned, or over all if none did.

    Args:
        figure: an empty figure.
        curves: one line per validation: `index` of the row, `seed`, `fold`, `step`, `val_exact_match` as a fraction of
            1, and `learned`: whether the model learned anything. The line of one that did not ends with a cross.
        rows: the labels of the `varying` axes, `label` and `style`, by index.
        varying: the axes that tell the rows apart.
    """
    from matplotlib.ticker import MaxNLocator

    panel_axis = _panel_axis(rows, varying)
    if panel_axis:
        rows = _style_alike(rows, [axis for axis in varying if axis != panel_axis])
    panels = list(rows.groupby(panel_axis, sort=False)) if panel_axis else [("", rows)]
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure.set_figheight(max(4.8, 2.4 * down))
    places = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    last = curves.sort_values("step").groupby(["index", "seed", "fold"])["val_exact_match"].last()
    scale = AccuracyScale.of(100 * last.groupby("index").max())
    entries: dict[str, Line2D] = {}
    for axes, (title, members) in zip(places, panels, strict=False):
        axes.set_title(wrap(str(title)), parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=max(4, 9 // across), integer=True, min_n_ticks=1))
        for index, row in zip(members.index, members.to_dict("records"), strict=True):
            own = curves[curves["index"] == index]
            if not own.empty:
                entries.setdefault(row["label"], _draw_curve(axes, own, row["style"]))
        scale.apply(axes, "y", [0.0, *(100 * curves["val_exact_match"])])
    for unused in places[len(panels) :]:
        unused.remove()
    for lowest in places[max(0, len(panels) - across) : len(panels)]:
        lowest.tick_params(labelbottom=True)
    figure.supxlabel("Optimizer steps", fontsize=9)
    figure.supylabel(f"Exact match on the validation split ({scale.suffix})", fontsize=9)
    labels = [label for label in dict.fromkeys(rows["label"]) if label in entries]
    add_legend(figure, [entries[label] for label in labels], labels)


def _panel_axis(rows: pd.DataFrame, varying: Sequence[str]) -> str | None:
    """Return the axis with one panel per label: the one before the decoder that varies most, or None for few rows."""
    stages = [axis for axis in varying if axis != "decoder"] if len(varying) > 1 and len(rows) > _MANY_ROWS else []
    return max(stages, key=lambda axis: rows[axis].nunique(), default=None)


def _style_alike(rows: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Return rows whose label and style depend on some of the axes only, for panels with one legend."""
    kinds = list(rows[axes].itertuples(index=False, name=None))
    positions = {kind: position for position, kind in enumerate(dict.fromkeys(kinds))}
    styles = [style_of(positions[kind]) for kind in kinds]
    return rows.assign(label=[*map(label_of, kinds)], style=pd.Series(styles, index=rows.index, dtype=object))


def _draw_curve(axes: Axes, own: pd.DataFrame, style: Style) -> Line2D:
    """Draw the curves of one row and return the line of the mean."""
    seeds = [seed.sort_values("step") for _, seed in own.groupby(["seed", "fold"])]
    for seed in seeds:
        percent = 100 * seed["val_exact_match"]
        if len(seeds) > 1:
            axes.plot(seed["step"], percent, style.dash, color=style.color, linewidth=0.6, alpha=0.5)
        if not seed["learned"].all():
            axes.plot(
                seed["step"].iloc[-1:], percent.iloc[-1:], "x", color=style.color, markersize=8, markeredgewidth=2
            )
    learned = own[own["learned"]]
    mean = 100 * (own if learned.empty else learned).groupby("step")["val_exact_match"].mean()
    (line,) = axes.plot(mean.index, mean, style.dash, color=style.color, linewidth=1.8, marker=style.marker)
    line.set_markevery(max(1, len(mean) // 10))
    return line
