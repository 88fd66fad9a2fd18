"""Figures as SVG, the same bytes from the same records. matplotlib loads slowly: imported only to draw."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.records import read_lines
from decoderbench.report.frame import VARIANT, Results, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

STEPS, LATENCY = "accuracy_vs_steps.svg", "accuracy_vs_latency.svg"
CAPTIONS = {
    STEPS: "Exact match on the validation split against optimiser steps: thick the mean, thin each seed",
    LATENCY: "Exact match on the test split against the time to transcribe one image: bars are the table's ±",
}

# Okabe and Ito 2008, told apart with every kind of colour vision; without yellow, too pale on white.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_DASHES = ["-", "--", ":", "-."]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h"]
_PLACES = [
    (side, across, 12 * rows)
    for rows in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
    for side, across in (("left", 9), ("right", -9))
]
"""Where a label may lie from its point, best first: its side that faces the point, and pixels."""


def draw_figures(results: Results) -> dict[str, bytes]:
    """Return the SVG of each figure by file name; one that has no data is left out."""
    summary = summarize(results.cells)
    summary["label"] = _short_labels(summary)
    summary["look"] = [_look(position) for position in range(len(summary))]
    figures = {}
    curves = _curves(results)
    if not curves.empty:
        figures[STEPS] = _svg(lambda figure, axes: _draw_steps(figure, axes, curves, summary))
    points = summary[summary["exact_match_mean"].notna() & (summary["latency_ms"] > 0)]
    if not points.empty:
        figures[LATENCY] = _svg(lambda figure, axes: _draw_latency(figure, axes, points))
    return figures


def _svg(draw: Callable[[Figure, Axes], None]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text stays text in the file, and the reader's font may have what ours lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": "decoderbench", "svg.fonttype": "none", "font.size": 9, "lines.markersize": 5}
        )
        figure = Figure(figsize=(9, 4.8), dpi=72, layout="constrained")  # 72: a pixel is a point
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        draw(figure, axes)
        drawing = io.BytesIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def _curves(results: Results) -> pd.DataFrame:
    """Return one row a validation of a done cell: variant, seed, step, val_exact_match in percent."""
    columns = [*VARIANT, "seed", "step", "val_exact_match"]
    rows = []
    for cell, row in zip(results.plan.cells, results.cells.to_dict("records"), strict=True):
        if row["status"] == "done":
            history = read_lines(results.directory.cell_directory(cell) / "history.jsonl")
            rows += [row | line for line in history]
    curves = pd.DataFrame(rows, columns=columns).dropna(subset="val_exact_match")
    # A cell that was cut off and began anew has written its first steps twice.
    curves = curves.drop_duplicates([*VARIANT, "seed", "step"], keep="last")
    return curves.assign(val_exact_match=100 * curves["val_exact_match"])


def _draw_steps(figure: Figure, axes: Axes, curves: pd.DataFrame, summary: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    lines: list[Line2D] = []
    labels = []
    for _, row in summary.iterrows():
        colour, dash, marker = row["look"]
        own = curves[(curves[VARIANT] == row[VARIANT]).all(axis="columns")]
        if own.empty:
            continue
        seeds = [group.sort_values("step") for _, group in own.groupby("seed")]
        for seed in seeds if len(seeds) > 1 else []:
            axes.plot(seed["step"], seed["val_exact_match"], dash, color=colour, linewidth=0.6, alpha=0.5)
        mean = own.groupby("step")["val_exact_match"].mean()
        lines += axes.plot(mean.index, mean, dash, color=colour, linewidth=1.8, marker=marker)
        lines[-1].set_markevery(max(1, len(mean) // 10))
        labels.append(row["label"])
    axes.set(xlabel="Optimiser steps", ylabel="Exact match on the validation split (%)", ylim=(-2, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    # Labels come later: `legend` itself leaves out those that start with an underscore.
    legend = figure.legend(lines, [""] * len(lines), loc="outside right upper", frameon=False)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False)


def _draw_latency(figure: Figure, axes: Axes, points: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for _, row in points.iterrows():
        colour, _, marker = row["look"]
        mean, spread = 100 * row["exact_match_mean"], 100 * row["exact_match_std"]
        bar = None if pd.isna(spread) else spread
        axes.errorbar(row["latency_ms"], mean, bar, fmt=marker, color=colour, elinewidth=1, capsize=3)
    axes.set(
        xscale="log",
        xlim=(points["latency_ms"].min() / 1.6, points["latency_ms"].max() * 1.6),
        xlabel="Time to transcribe one image (ms, logarithmic)",
        ylabel="Exact match on the test split (%)",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    _annotate(figure, axes, points)


def _annotate(figure: Figure, axes: Axes, points: pd.DataFrame) -> None:
    """Write each label beside its point, at the first place that is free of points, bars and labels."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # until then nothing has a place
    frame = axes.get_window_extent()
    low, high = axes.get_ylim()
    centres = list(zip(points["latency_ms"], 100 * points["exact_match_mean"], strict=True))
    bars = (100 * points["exact_match_std"].fillna(0) * frame.height / (high - low)).clip(lower=4)
    pixels = axes.transData.transform(centres)
    taken = [Bbox.from_bounds(x - 4, y - bar, 8, 2 * bar) for (x, y), bar in zip(pixels, bars, strict=True)]
    for centre, (x, y), label in zip(centres, pixels, points["label"], strict=True):
        size = Text(text=label, fontsize=8, parse_math=False, figure=figure).get_window_extent()
        for side, across, up in (*_PLACES, _PLACES[0]):
            left = x + across - (size.width if side == "right" else 0)
            box = Bbox.from_bounds(left, y + up - size.height / 2, size.width, size.height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            label,
            centre,
            xytext=(across, up),
            textcoords="offset pixels",
            horizontalalignment=side,
            verticalalignment="center",
            fontsize=8,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": "0.6",
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0 if side == "left" else 1, 0.5),
            },
        ).set_in_layout(False)


def _short_labels(summary: pd.DataFrame) -> list[str]:
    """Return the labels of the axes that vary, in lines of at most 32 characters."""
    varying = [axis for axis in VARIANT if summary[axis].nunique() > 1] or ["decoder"]
    return [textwrap.fill(" / ".join(labels), 32) for labels in summary[varying].itertuples(index=False)]


def _look(position: int) -> tuple[str, str, str]:
    """Return colour, dash and marker of a variant; no two of the first 77 look alike."""
    colour = _COLOURS[position % len(_COLOURS)]
    return colour, _DASHES[position // len(_COLOURS) % len(_DASHES)], _MARKERS[position % len(_MARKERS)]
