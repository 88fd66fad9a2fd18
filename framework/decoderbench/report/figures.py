"""The figures of a report, as SVG and PDF. The same records give the same bytes. No torch here.

Drawing takes about a third of a second per figure. The other modules `figures_*` draw from plain frames; this one picks
what they show out of an analysis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.analysis.curves import validation_curves
from decoderbench.analysis.frame import VARIANT
from decoderbench.config.cell import Cell, shown_axes
from decoderbench.report.figures_cost import COST_AXES, draw_cost
from decoderbench.report.figures_lines import LineAxes, draw_lines
from decoderbench.report.figures_rows import draw_errors, draw_seeds
from decoderbench.report.figures_steps import draw_steps
from decoderbench.report.figures_style import Drawing, draw, shown_rows, without_glyph
from decoderbench.report.footnotes import footnotes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("decoderbench")

_TEST = "Exact match on the test split"
_INTERVAL = "bars are the 95 % intervals of the table"
_Figure = tuple[str, Callable[["Figure"], None]]
"""Caption and painter."""


def draw_figures(analysis: Analysis) -> dict[str, Drawing]:
    """Return the figures of a report by name, in the order of a report, without those that have nothing to show."""
    rows = analysis.rows
    varying = [axis for axis in VARIANT if rows[axis].nunique() > 1] or ["decoder"]
    rows = shown_rows(rows, varying)
    scored = rows[rows["exact_match"].notna()]
    figures = [
        ("accuracy_of_seeds", _seeds(analysis, rows)),
        ("accuracy_vs_steps", _steps(analysis, scored, varying)),
        *((name, _cost(analysis, scored, name)) for name in COST_AXES),
        ("accuracy_vs_labels", _labels(analysis, scored, varying)),
        *_errors(analysis, scored),
        ("risk_coverage", _risk(analysis, scored)),
        ("latency_vs_length", _latency(analysis, scored)),
    ]
    found = {name: draw(*figure) for name, figure in figures if figure}
    if found and (signs := without_glyph(rows["label"])):
        logger.warning(
            "figures/*.pdf: boxes stand for %s, which their font lacks; the SVG files have them as text", signs
        )
    return found


def _seeds(analysis: Analysis, rows: pd.DataFrame) -> _Figure | None:
    cells = _with_index(analysis, analysis.results.cells)
    seeds = cells.loc[cells["exact_match"].notna(), ["index", "seed", "exact_match", "learned"]]
    caption = (
        f"{_TEST}: each row with its 95 % interval, and every {models_word(cells)} as a dot below it; a cross is one "
        f"that did not learn; names in bold are not shown to be worse than another row"
    )
    return None if seeds.empty else (caption, lambda figure: draw_seeds(figure, rows, seeds))


def _steps(analysis: Analysis, rows: pd.DataFrame, varying: Sequence[str]) -> _Figure | None:
    curves = _with_index(analysis, validation_curves(analysis.results))
    caption = (
        "Exact match on the validation split against optimizer steps: thin lines are single "
        f"{'models, one per seed and fold' if (curves['fold'] >= 0).any() else 'seeds'}, thick lines their means, "
        "without those that did not learn, which end with a cross"
    )
    return None if curves.empty else (caption, lambda figure: draw_steps(figure, curves, rows, varying))


def _cost(analysis: Analysis, rows: pd.DataFrame, name: str) -> _Figure | None:
    cost = COST_AXES[name]
    points = rows[rows[cost.column] > 0]
    marks = footnotes_of(analysis.results.cells, shown_axes(analysis.results.plan.cells))
    variants = points[VARIANT].itertuples(index=False, name=None)
    noted = pd.Series([marks.mark_cost(variant, cost.column) for variant in variants], index=points.index, dtype="str")
    points = points.assign(label=points["label"] + noted, alike=noted == "")
    caption = f"{_TEST} against {cost.caption}; {_INTERVAL}, the gray line is the Pareto front"
    return None if points.empty else (caption, lambda figure: draw_cost(figure, points, cost))


def models_word(cells: pd.DataFrame) -> str:
    """Return what a single result of a row is: a seed, with folds a model."""
    return "model, one per seed and fold," if cells["fold"].notna().any() else "seed"


def rows_by_labels(analysis: Analysis, rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row from which others differ in their number of labels only, apart from what tuning chose.

    `row` is its position, `index` that of the first row of these, `labels` the images for training and validation.
    """
    plan = analysis.results.plan
    first = {cell.variant: cell for cell in reversed(plan.cells)}
    cells = {index: first[variant] for index, variant in zip(rows.index, _variants(rows), strict=True)}
    alike: dict[str, list[int]] = {}
    for index, cell in cells.items():
        alike.setdefault(_but_labels(cell, plan.cells[0]).cell_id, []).append(index)
    groups = [group for group in alike.values() if len({cells[index].train_limit for index in group}) > 1]
    found = [
        (index, group[0], size["train"] + size["val"])
        for group in groups
        for index in group
        if (size := plan.split_sizes_of(cells[index]))
    ]
    return pd.DataFrame(found, columns=["row", "index", "labels"])


def _labels(analysis: Analysis, rows: pd.DataFrame, varying: Sequence[str]) -> _Figure | None:
    """Return the figure of rows that differ in their number of labels only; None if there are none."""
    lines = rows_by_labels(analysis, rows)
    if lines.empty:
        return None
    heads = rows.loc[lines["index"].unique()]
    ends = {"y": "exact_match", "low": "exact_match_low", "high": "exact_match_high"}
    values = {end: 100 * rows[column].loc[lines["row"]].to_numpy(float) for end, column in ends.items()}
    lines = lines.assign(x=lines["labels"], **values)
    stages = [axis for axis in varying if axis != "setting"] or ["decoder"]
    shown = shown_rows(heads.assign(name=""), varying if heads.duplicated(stages).any() else stages)
    axes = LineAxes("Labeled images, for training and validation together (log scale)", _TEST, logarithmic=True)
    caption = (
        f"{_TEST} against the number of labels, of rows that differ in nothing else but what tuning chose; {_INTERVAL}"
    )
    return caption, lambda figure: draw_lines(figure, lines, shown, axes)


def _but_labels(cell: Cell, reference: Cell) -> Cell:
    """Return a cell that equals others if they differ in number of labels, seed and the choices of tuning only."""
    changes: dict[str, Any] = {"train_limit": None, "seed": 0}
    for option in cell.tuned:
        table, _, name = option.partition(".")
        usual = {name: getattr(getattr(reference, table), name)}
        changes[table] = changes.get(table, getattr(cell, table)).model_copy(update=usual)
    return cell.model_copy(update=changes)


def _errors(analysis: Analysis, rows: pd.DataFrame) -> list[tuple[str, _Figure | None]]:
    errors = analysis.errors.loc[rows.index]
    errors = errors[errors["num_texts"] > 0]
    if errors.empty:
        return []
    rows = rows.loc[errors.index]
    kinds = (
        "Composition of the errors of each row, over images and seeds; beside the bars, edits per 100 characters of "
    )
    length, position = analysis.by_length, analysis.by_position
    of_length = length.assign(
        x=length["length"],
        y=100 * length["exact_match"],
        low=100 * length["exact_match_low"],
        high=100 * length["exact_match_high"],
    )
    of_position = position.assign(x=position["position"], y=100 * position["accuracy"])
    return [
        (
            "errors_by_kind",
            (f"{kinds}the labels, and the share of wrong texts", lambda figure: draw_errors(figure, rows, errors)),
        ),
        (
            "accuracy_by_length",
            _lines(
                of_length,
                rows,
                LineAxes("Characters of the label", _TEST, band=True),
                f"{_TEST} by length of the label, with bands of 95 % intervals",
            ),
        ),
        (
            "accuracy_by_position",
            _lines(
                of_position,
                rows,
                LineAxes("Position in the label", "Characters read correctly"),
                "Characters of the label that are neither substituted nor deleted, by position from its beginning",
            ),
        ),
    ]


def _risk(analysis: Analysis, rows: pd.DataFrame) -> _Figure | None:
    curves = analysis.risk_coverage
    lines = curves.assign(x=100 * curves["coverage"], y=100 * (1 - curves["risk"]))
    axes = LineAxes("Images answered, the most confident first (%)", "Exact match of the answered images")
    caption = (
        "Exact match of the images that a decoder is most confident of, against their share: the confidence is the "
        "probability that it gives to the text that it returned"
    )
    return _lines(lines, rows, axes, caption)


def _latency(analysis: Analysis, rows: pd.DataFrame) -> _Figure | None:
    """Return the figure of rows whose seeds were measured alike."""
    positions = _positions(analysis)
    measured = [
        {"index": positions[record.cell.variant], "x": int(length), "y": latency}
        for record in analysis.results.records
        if record.status == "done"
        for length, latency in record.cost.latency_ms_by_length.items()
    ]
    table = pd.DataFrame(measured, columns=["index", "x", "y"])
    lines = table.groupby(["index", "x"], as_index=False).agg(y=("y", "mean"))
    axes = LineAxes("Characters of the text that was read", "Time to transcribe one image (ms)", accuracy=False)
    caption = "Time to transcribe one image against the length of the text read, means over the models that have one"
    return _lines(lines, rows[rows["latency_ms"].notna()], axes, caption)


def _lines(lines: pd.DataFrame, rows: pd.DataFrame, axes: LineAxes, caption: str) -> _Figure | None:
    """Return a figure with a line per row; None if no row has more than one point."""
    lines = lines[lines["index"].isin(rows.index)]
    if lines.empty or lines["x"].nunique() < 2:
        return None
    return caption, lambda figure: draw_lines(figure, lines, rows, axes)


def _positions(analysis: Analysis) -> dict[tuple[str, ...], int]:
    """Return the position of each row by its variant."""
    return dict(zip(_variants(analysis.rows), analysis.rows.index, strict=True))


def _with_index(analysis: Analysis, frame: pd.DataFrame) -> pd.DataFrame:
    """Return lines about cells with `index`, the position of their row, and whether the cell `learned` anything."""
    positions, cells = _positions(analysis), analysis.learning
    cells = cells[cells["learned"].eq(False)]
    not_learned = set(zip(cells["index"], cells["seed"], cells["fold"].fillna(-1), strict=True))
    index = [positions[variant] for variant in _variants(frame)]
    places = zip(index, frame["seed"], frame["fold"].fillna(-1), strict=True)
    learned = [place not in not_learned for place in places]
    return frame.assign(index=index, learned=pd.Series(learned, index=frame.index, dtype=bool))


def _variants(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(frame[VARIANT].itertuples(index=False, name=None))
