"""Figures as SVG. The same records give the same bytes. matplotlib imports slowly, so only drawing imports it."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.analysis.frame import VARIANT, Results, summarize
from decoderbench.config.cell import shown_axes
from decoderbench.records import read_lines
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.tables import to_single_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

STEPS, LATENCY = "accuracy_vs_steps.svg", "accuracy_vs_latency.svg"
CAPTIONS = {
    STEPS: "Exact match on the validation split against optimizer steps; thick lines are means, thin lines single "
    "seeds",
    LATENCY: "Exact match on the test split against the time to transcribe one image; bars are the ± of the table; "
    "with more than 12 rows, only named rows and the Pareto front (gray line) are labeled",
}

NOT_ALIKE = (
    "Times were not all measured alike: those with a note of the table cannot be compared with the rest;\n"
    "rows whose seeds were measured differently are not shown"
)
_MANY_ROWS = 12
"""With more rows, curves are split into panels, and a legend replaces most of the labels at points."""

# Okabe and Ito 2008: distinguishable with every kind of color vision. Yellow is omitted, as it is too pale on white.
_COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_DASHES = ["-", "--", ":", "-."]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h"]
_LABEL_OFFSETS = [
    (side, across, 12 * rows)
    for rows in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
    for side, across in (("left", 9), ("right", -9))
]
"""Positions of a label relative to its point, best first: the side that faces the point, and x and y in pixels."""


def draw_figures(results: Results) -> dict[str, str]:
    """Return the SVG of each figure by file name, without the figures that have no data."""
    summary = summarize(results.cells)
    varying = [axis for axis in VARIANT if summary[axis].nunique() > 1] or ["decoder"]
    figures = {}
    curves = _validation_curves(results)
    if not curves.empty:
        figures[STEPS] = _to_svg(lambda figure: _draw_steps(figure, curves, summary, varying))
    rows = _with_styles(summary, varying)
    points = rows[rows["exact_match_mean"].notna() & (rows["latency_ms"] > 0)]
    if not points.empty:
        marks = footnotes_of(results.cells, shown_axes(results.plan.cells))
        noted = [
            marks.mark_cost(variant, "latency_ms") for variant in points[VARIANT].itertuples(index=False, name=None)
        ]
        points = points.assign(label=points["label"] + noted, alike=[not note for note in noted])
        figures[LATENCY] = _to_svg(lambda figure: _draw_latency(figure, points, alike="latency_ms" not in marks.costs))
    return figures


def _to_svg(draw: Callable[[Figure], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The file keeps text as text, so a glyph missing here may exist in the font of the reader.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "decoderbench",
                "svg.fonttype": "none",
                "font.size": 9,
                "lines.markersize": 5,
                "axes.titlesize": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": "0.9",
                "grid.linewidth": 0.6,
            }
        )
        figure = Figure(figsize=(9, 4.8), dpi=72, layout="constrained")  # at 72 dpi, a pixel is a point
        draw(figure)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def _validation_curves(results: Results) -> pd.DataFrame:
    """Return one row per validation of a done cell: variant, seed, step, val_exact_match in percent."""
    columns = [*VARIANT, "seed", "step", "val_exact_match"]
    rows = []
    for cell, row in zip(results.plan.cells, results.cells.to_dict("records"), strict=True):
        if row["status"] == "done":
            history = read_lines(results.directory.cell_directory(cell) / "history.jsonl")
            rows += [row | line for line in history]
    curves = pd.DataFrame(rows, columns=columns).dropna(subset="val_exact_match")
    # A cell that was interrupted and restarted has written its first steps twice.
    curves = curves.drop_duplicates([*VARIANT, "seed", "step"], keep="last")
    return curves.assign(val_exact_match=100 * curves["val_exact_match"])


def _draw_steps(figure: Figure, curves: pd.DataFrame, summary: pd.DataFrame, varying: list[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel_axis = _panel_axis(summary, varying)
    rows = _with_styles(summary, [axis for axis in varying if axis != panel_axis], use_names=panel_axis is None)
    panels = list(rows.groupby(panel_axis, sort=False)) if panel_axis else [("", rows)]
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure.set_figheight(max(4.8, 2.4 * down))
    places = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    entries: dict[tuple[str, ...], tuple[Line2D, str]] = {}
    for axes, (title, members) in zip(places, panels, strict=False):
        axes.set_title(to_single_line(str(title)), parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=max(4, 9 // across), integer=True, min_n_ticks=1))
        for _, row in members.iterrows():
            own = curves[(curves[VARIANT] == row[VARIANT]).all(axis="columns")]
            if not own.empty:
                entries.setdefault(row["kind"], (_draw_curve(axes, own, *row["style"]), row["label"]))
    places[0].set(ylim=(-2, 102))
    for unused in places[len(panels) :]:
        unused.remove()
    figure.supxlabel("Optimizer steps", fontsize=9)
    figure.supylabel("Exact match on the validation split (%)", fontsize=9)
    _add_legend(figure, *zip(*(entries[kind] for kind in dict.fromkeys(rows["kind"]) if kind in entries), strict=True))


def _panel_axis(summary: pd.DataFrame, varying: list[str]) -> str | None:
    """Return the axis with one panel per label: the stage before the decoder that varies most, or None for few rows."""
    stages = [axis for axis in varying if axis != "decoder"] if len(varying) > 1 and len(summary) > _MANY_ROWS else []
    return max(stages, key=lambda axis: summary[axis].nunique(), default=None)


def _draw_curve(axes: Axes, own: pd.DataFrame, color: str, dash: str, marker: str) -> Line2D:
    """Draw the curves of one variant and return the line of the mean."""
    seeds = [group.sort_values("step") for _, group in own.groupby("seed")]
    for seed in seeds if len(seeds) > 1 else []:
        axes.plot(seed["step"], seed["val_exact_match"], dash, color=color, linewidth=0.6, alpha=0.5)
    mean = own.groupby("step")["val_exact_match"].mean()
    (line,) = axes.plot(mean.index, mean, dash, color=color, linewidth=1.8, marker=marker)
    line.set_markevery(max(1, len(mean) // 10))
    return line


def _add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Add a legend to the right of a figure, and make the figure high enough for it."""
    figure.set_figheight(max(figure.get_figheight(), 0.2 * sum(label.count("\n") + 1 for label in labels)))
    # Labels are set afterwards, because `legend` ignores labels that start with an underscore.
    legend = figure.legend(handles, [""] * len(handles), loc="outside right upper", frameon=False)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, parse_math=False)


def _draw_latency(figure: Figure, points: pd.DataFrame, *, alike: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes = figure.add_subplot()
    many = len(points) > _MANY_ROWS
    front = _pareto_front(points[points["alike"]])
    points = points.assign(labeled=not many or (points["name"] != "") | points.index.isin(front.index))
    if many:
        axes.plot(front["latency_ms"], 100 * front["exact_match_mean"], color="0.7", linewidth=1, zorder=1)
    handles = []
    for _, row in points.iterrows():
        color, _, marker = row["style"]
        mean, spread = 100 * row["exact_match_mean"], 100 * row["exact_match_std"]
        bar = None if pd.isna(spread) else spread
        handles.append(axes.errorbar(row["latency_ms"], mean, bar, fmt=marker, color=color, elinewidth=1, capsize=3))
    axes.set(
        xscale="log",
        xlim=(points["latency_ms"].min() / 1.6, points["latency_ms"].max() * 1.6),
        xlabel="Time to transcribe one image (ms, log scale)",
        ylabel="Exact match on the test split (%)",
    )
    if not alike:
        axes.set_title(NOT_ALIKE)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    if many:
        _add_legend(figure, [handle.lines[0] for handle in handles], list(points["label"]))
    _annotate(figure, axes, points)


def _pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """Return the Pareto front, fastest first: each point has a higher exact match than all others as fast or faster."""
    ordered = points.sort_values(["latency_ms", "exact_match_mean"], ascending=[True, False])
    return ordered[ordered["exact_match_mean"] > ordered["exact_match_mean"].cummax().shift(fill_value=-1.0)]


def _annotate(figure: Figure, axes: Axes, points: pd.DataFrame) -> None:
    """Write a label next to each `labeled` point, at the first offset that overlaps no point, bar or other label."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # computes the layout
    frame = axes.get_window_extent()
    low, high = axes.get_ylim()
    centers = list(zip(points["latency_ms"], 100 * points["exact_match_mean"], strict=True))
    bars = (100 * points["exact_match_std"].fillna(0) * frame.height / (high - low)).clip(lower=4)
    pixels = axes.transData.transform(centers)
    occupied = [Bbox.from_bounds(x - 4, y - bar, 8, 2 * bar) for (x, y), bar in zip(pixels, bars, strict=True)]
    labels = points["label"].where(points["labeled"])
    for center, (x, y), label in zip(centers, pixels, labels, strict=True):
        if pd.isna(label):
            continue
        size = Text(text=label, fontsize=8, parse_math=False, figure=figure).get_window_extent()
        for side, across, up in (*_LABEL_OFFSETS, _LABEL_OFFSETS[0]):
            left = x + across - (size.width if side == "right" else 0)
            box = Bbox.from_bounds(left, y + up - size.height / 2, size.width, size.height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in occupied):
                break
        occupied.append(box)
        axes.annotate(
            label,
            center,
            xytext=(across, up),
            textcoords="offset pixels",
            horizontalalignment=side,
            verticalalignment="center",
            fontsize=8,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            zorder=1.5,  # above the line of the Pareto front, below points and bars
            arrowprops={
                "arrowstyle": "-",
                "color": "0.6",
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0 if side == "left" else 1, 0.5),
            },
        ).set_in_layout(False)


def _with_styles(summary: pd.DataFrame, axes: list[str], *, use_names: bool = True) -> pd.DataFrame:
    """Return the rows with three more columns: `kind`, `label` and `style`.

    The kind is the row's labels on the given axes; rows of the same kind have the same style. The label is the row's
    name if `use_names` and it has one, else the kind, wrapped to lines of at most 32 characters.
    """
    kinds = list(summary[axes].itertuples(index=False, name=None))
    positions = {kind: position for position, kind in enumerate(dict.fromkeys(kinds))}
    names = summary["name"] if use_names else [""] * len(kinds)
    titles = (to_single_line(name or " / ".join(kind)) for name, kind in zip(names, kinds, strict=True))
    labels = [textwrap.fill(title, 32) for title in titles]
    styles = [_style(positions[kind]) for kind in kinds]
    return summary.assign(kind=pd.Series(kinds), label=labels, style=pd.Series(styles))


def _style(position: int) -> tuple[str, str, str]:
    """Return color, dash and marker of a kind of row; the first 77 styles are distinct."""
    color = _COLORS[position % len(_COLORS)]
    return color, _DASHES[position // len(_COLORS) % len(_DASHES)], _MARKERS[position % len(_MARKERS)]
