"""The drawings of the page, as inline SVG. Rows have the same color, dash and shape in all of them. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from decoderbench.analysis import Analysis
from decoderbench.analysis.frame import VARIANT
from decoderbench.config.cell import shown_axes
from decoderbench.report.figures import models_word, rows_by_labels
from decoderbench.report.figures_cost import COST_AXES, pareto_front
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.html_tables import is_number
from decoderbench.report.metric_texts import metric_text
from decoderbench.report.svg import Axis, Plot, accuracy_axis, linear_axis, log_axis, shorten

PRIMARY = "exact_match"
MAX_POINTS = 60
"""The most points of a line; of longer ones, equally spaced points are drawn, and the last."""


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption; `rows` are the numbers of the rows in it, from 0."""

    drawing: Markup
    caption: str
    rows: tuple[int, ...]


def row_plot(rows: pd.DataFrame, seeds: pd.DataFrame, labels: Sequence[str]) -> Figure | None:
    """Draw exact match of each row with its interval, and of every seed as a dot.

    Args:
        rows: one line per row.
        seeds: the cells, with `index`, the position of their row, `fold`, and whether they `learned` anything.
        labels: of the rows.
    """
    scored = rows[rows[PRIMARY].notna()]
    if scored.empty:
        return None
    ticks = [(-place, f"{row + 1}  {shorten(labels[row])}") for place, row in enumerate(scored.index)]
    y = Axis("", -len(scored) + 0.4, 0.6, ticks)
    single = [100 * float(value) for value in seeds[PRIMARY].dropna()]
    x = accuracy_axis("Exact match on the test split", *_shown(scored, single))
    plot = Plot(x, y, width=640, height=60 + 24 * len(scored), left=230)
    for place, (row, line) in enumerate(zip(scored.index, scored.to_dict("records"), strict=True)):
        own = seeds[(seeds["index"] == row) & seeds[PRIMARY].notna()]
        for value, nothing in zip(own[PRIMARY], own["learned"].eq(False).fillna(False), strict=True):
            plot.dot(100 * float(value), -place - 0.3, row, crossed=bool(nothing))
        plot.point(100 * line[PRIMARY], -place, row, x_interval=_interval(line), text=_estimate_text(line, row))
    return Figure(
        plot.render("plot-rows", "Exact match of each row, with its 95 % interval"),
        f"Each row with its 95 % interval, and every {models_word(seeds)} as a dot below it; a cross is one that did "
        "not learn.",
        tuple(map(int, scored.index)),
    )


def curve_plots(curves: pd.DataFrame, positions: Mapping[tuple[str, ...], int]) -> list[Figure]:
    """Draw validation exact match and nats per character against steps: means thick, single seeds thin.

    Args:
        curves: as `validation_curves` returns them.
        positions: of the rows, by their variants.
    """
    named = curves.assign(row=[positions[variant] for variant in curves[VARIANT].itertuples(index=False, name=None)])
    figures = []
    for metric, label, factor in (
        ("val_exact_match", "Validation exact match (%)", 100.0),
        ("val_nats_per_char", "Validation nats per character", 1.0),
    ):
        known = named.dropna(subset=metric)
        if known.empty:
            continue
        values = [factor * value for value in known[metric]]
        x = linear_axis("Optimizer steps", [0, *known["step"]], bounds=(0, float("inf")), whole=True)
        y = (
            linear_axis(label, [0, 100], bounds=(0, 100))
            if factor > 1
            else log_axis(f"{label} (log)", [max(value, 1e-4) for value in values])
        )
        plot = Plot(x, y)
        for number in _rows_of(known["row"]):
            of_row = known[known["row"] == number]
            seeds = [of_seed.sort_values("step") for _, of_seed in of_row.groupby(["seed", "fold"])]
            for seed in seeds if len(seeds) > 1 else []:
                plot.line(_thin(seed["step"], factor * seed[metric]), number, thin=True)
            mean = of_row.groupby("step")[metric].mean()
            plot.line(_thin(mean.index, factor * mean), number)
        models = "models, one per seed and fold" if (known["fold"] >= 0).any() else "seeds"
        caption = f"{label} during training. Thick lines: means over {models}; thin lines: single ones."
        figures.append(Figure(plot.render(f"plot-{metric}", label + " against steps"), caption, _rows_of(known["row"])))
    return figures


def cost_plots(analysis: Analysis) -> list[Figure]:
    """Draw exact match with its interval against each cost; the line is the Pareto front of what can be compared."""
    figures = []
    rows = analysis.rows
    marks = footnotes_of(analysis.results.cells, shown_axes(analysis.results.plan.cells))
    for axis in COST_AXES.values():
        known = rows[rows[PRIMARY].notna() & (rows[axis.column] > 0)]
        if known.empty:
            continue
        noted = [marks.mark_cost(variant, axis.column) for variant in known[VARIANT].itertuples(index=False, name=None)]
        label = f"{axis.label}, log scale)"
        plot = Plot(log_axis(label, list(known[axis.column])), accuracy_axis("Exact match", *_shown(known)))
        if len(front := pareto_front(known[[not note for note in noted]], axis.column)):
            plot.front([(float(x), 100 * float(y)) for x, y in zip(front[axis.column], front[PRIMARY], strict=True)])
        for row, line, note in zip(known.index, known.to_dict("records"), noted, strict=True):
            text = f"{_estimate_text(line, row)}; {line[axis.column]:.3g}{note}"
            plot.point(
                line[axis.column], 100 * line[PRIMARY], row, y_interval=_interval(line), text=text, number=str(row + 1)
            )
        other = "; rows with a note were not measured like the rest and are not on it" if any(noted) else ""
        figures.append(
            Figure(
                plot.render(f"plot-{axis.column}", f"Exact match against {axis.caption}"),
                f"Exact match against {axis.caption}. Bars are 95 % intervals, numbers those of the rows, the gray "
                f"line is the Pareto front{other}.",
                _rows_of(known.index),
            )
        )
    return figures


def line_plot(
    frame: pd.DataFrame,
    columns: tuple[str, str],
    *,
    identity: str,
    labels: tuple[str, str],
    caption: str,
    factor: float = 100.0,
    points: bool = True,
    band: bool = False,
) -> Figure | None:
    """Draw one line per row of the report; None if there are fewer than two places.

    Args:
        frame: one line per row, by `index`, and place.
        columns: the places, and the values.
        identity: of the element.
        labels: of both axes.
        caption: below the drawing.
        factor: of the values; by default they are shares.
        points: draw points too.
        band: fill the intervals, from the columns of the values with `_low` and `_high`.
    """
    x, y = columns
    known = frame.dropna(subset=[x, y])
    if known.empty or known[x].nunique() < 2:
        return None
    places, values = [float(place) for place in known[x]], [factor * float(value) for value in known[y]]
    ends = [factor * float(end) for name in ("low", "high") if band for end in known[f"{y}_{name}"].dropna()]
    bounds = (0.0, 100.0 if factor == 100 else float("inf"))
    plot = Plot(linear_axis(labels[0], places, whole=True), linear_axis(labels[1], [*values, *ends], bounds=bounds))
    for number in _rows_of(known["index"]):
        ordered = known[known["index"] == number].sort_values(x)
        line = _thin(ordered[x], factor * ordered[y])
        if band:
            for run in _known_runs(ordered[[x, f"{y}_low", f"{y}_high"]].astype("float64")):
                low, high = ((factor * run[f"{y}_{end}"]).tolist() for end in ("low", "high"))
                plot.band(run[x].tolist(), low, high, number)
        plot.line(line, number)
        for place, value in line if points else []:
            plot.point(place, value, number, text=f"row {number + 1}, {place:g}: {value:.3g}")
    return Figure(plot.render(identity, f"{labels[1]} against {labels[0]}"), caption, _rows_of(known["index"]))


def _known_runs(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the lines between those with missing values, where there are two at least."""
    known = frame.notna().all(axis="columns")
    for _, run in frame[known].groupby((~known).cumsum()[known]):
        if len(run) > 1:
            yield run


def label_plot(analysis: Analysis) -> Figure | None:
    """Draw exact match against the number of labels: a line through the rows that differ in nothing else."""
    rows = analysis.rows[analysis.rows[PRIMARY].notna()]
    places = rows_by_labels(analysis, rows)
    if places.empty:
        return None
    x = log_axis("Labels for training and validation together (log scale)", places["labels"].astype(float).tolist())
    plot = Plot(x, accuracy_axis("Exact match", *_shown(rows.loc[places["row"]])))
    for first in _rows_of(places["index"]):
        own = places[places["index"] == first].sort_values("labels", kind="stable")
        lines = rows.loc[own["row"]].to_dict("records")
        points = [(float(n), 100 * float(line[PRIMARY])) for n, line in zip(own["labels"], lines, strict=True)]
        plot.line(points, first)
        for point, row, line in zip(points, own["row"].tolist(), lines, strict=True):
            text = _estimate_text(line, row)
            plot.point(*point, first, y_interval=_interval(line), text=text, number=str(row + 1))
    return Figure(
        plot.render("plot-labels", "Exact match against the number of labels"),
        "Exact match against the number of labels, of rows that differ in nothing else but what tuning chose. Bars are "
        "95 % intervals, numbers those of the rows.",
        _rows_of(places["index"]),
    )


def latency_plot(analysis: Analysis) -> Figure | None:
    """Draw the time to read one image against the length of its text, of rows whose seeds were measured alike."""
    alike = analysis.rows["latency_ms"].notna()
    lines = [
        {"index": row, "length": int(length), "ms": float(value)}
        for row in analysis.rows.index[alike]
        for seed in analysis.samples.seeds
        for record in analysis.samples.records(row, seed)
        for length, value in record.cost.latency_ms_by_length.items()
    ]
    table = pd.DataFrame(lines, columns=["index", "length", "ms"])
    return line_plot(
        table.groupby(["index", "length"], as_index=False).mean(),
        ("length", "ms"),
        identity="plot-latency-length",
        labels=("Characters of the text that was read", "Time to read one image (ms)"),
        caption="Time to read one image against the length of the text that was read, means over models.",
        factor=1.0,
    )


def _thin(x: Any, y: Any) -> list[tuple[float, float]]:
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    if len(points) <= MAX_POINTS:
        return points
    every = -(-len(points) // MAX_POINTS)
    return [*points[:-1:every], points[-1]]


def _shown(rows: pd.DataFrame, others: Sequence[float] = ()) -> tuple[list[float], list[float]]:
    """Return the values of rows in percent, and what else has to be shown: the ends of their intervals, and others."""
    values, low, high = (
        (100 * rows[name]).dropna().tolist() for name in (PRIMARY, f"{PRIMARY}_low", f"{PRIMARY}_high")
    )
    return values, [*low, *high, *others]


def _interval(row: Mapping[Any, Any]) -> tuple[float, float] | None:
    low, high = row[f"{PRIMARY}_low"], row[f"{PRIMARY}_high"]
    return (100 * float(low), 100 * float(high)) if is_number(low) and is_number(high) else None


def _estimate_text(row: Mapping[Any, Any], number: int) -> str:
    interval = _interval(row)
    spread = f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else ""
    return f"row {number + 1}: {metric_text(PRIMARY, row[PRIMARY])} %{spread}"


def _rows_of(values: Any) -> tuple[int, ...]:
    return tuple(sorted({int(value) for value in values}))
