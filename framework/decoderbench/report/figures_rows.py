"""One horizontal line or bar per row of the table: every seed, and the kinds of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench.report.figures_scale import AccuracyScale
from decoderbench.report.figures_style import COLORS
from decoderbench.report.tables import MISSING, format_significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDITS = {
    "substitutions": "substitutions",
    "insertions": "insertions",
    "other_deletions": "other deletions",
    "repeats_dropped": "repeats dropped",
}
_WRONG = {
    "same_length": "as long as the label",
    "too_long": "too long",
    "too_short": "too short",
    "truncated": "truncated",
    "empty": "empty",
}
_HATCHES = ["", "//", "--", "xx", "||"]


def draw_seeds(figure: Figure, rows: pd.DataFrame, seeds: pd.DataFrame) -> None:
    """Draw the value of each row with its interval, and every seed as a dot below it.

    Args:
        figure: an empty figure.
        rows: `exact_match` with `_low`, `_high` and `_bold`, `label` and `style`, by index; also those without a value.
        seeds: `index` of the row, `exact_match`, and `learned`: whether the seed learned anything.
    """
    axes = figure.add_subplot()
    value, low, high = (100 * rows[f"exact_match{end}"] for end in ("", "_low", "_high"))
    scale = AccuracyScale.of(value)
    scale.apply(axes, "x", [*value, *low, *high, *(100 * seeds["exact_match"])])
    for position, (index, row) in enumerate(zip(rows.index, rows.to_dict("records"), strict=True)):
        style, own = row["style"], seeds[seeds["index"] == index]
        if pd.isna(value[index]):
            axes.annotate("no result", (0.01, position), xycoords=("axes fraction", "data"), va="center", color="0.4")
            continue
        if pd.notna(low[index]):
            axes.hlines(position - 0.1, low[index], high[index], color=style.color, linewidth=2.5, alpha=0.6)
        axes.plot(value[index], position - 0.1, style.marker, color=style.color, markersize=7)
        for learned, marker in ((True, "."), (False, "x")):
            dots = 100 * own.loc[own["learned"] == learned, "exact_match"]
            axes.plot(dots, [position + 0.22] * len(dots), marker, color=style.color, alpha=0.8)
    axes.set_xlabel(f"Exact match on the test split ({scale.suffix})")
    _name_rows(figure, axes, list(rows["label"]))
    for text, bold in zip(axes.get_yticklabels(), rows["exact_match_bold"], strict=True):
        text.set_fontweight("bold" if bold is True or bold == 1 else "normal")


def draw_errors(figure: Figure, rows: pd.DataFrame, errors: pd.DataFrame) -> None:
    """Draw the composition of each row's errors: of edits, and of wrong texts, with their rates beside the bars.

    Args:
        figure: an empty figure.
        rows: `label`, by index.
        errors: the lines of `Errors.anatomy` for these rows, in the same order.
    """
    edits = errors.assign(other_deletions=errors["deletions"] - errors["repeats_dropped"])
    figure.set_figwidth(10.5)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_shares(left, edits, _EDITS, "per 100", "Share of the edits of characters (%)")
    _draw_shares(right, 100 * errors[list(_WRONG)], _WRONG, "%", "Share of the wrong texts (%)")
    _name_rows(figure, left, list(rows["label"]))


def _draw_shares(axes: Axes, numbers: pd.DataFrame, kinds: dict[str, str], unit: str, label: str) -> None:
    """Draw a stacked bar per row that adds up to 100, and the sum of its numbers beside it."""
    total = numbers[list(kinds)].sum(axis="columns", min_count=1)
    start = pd.Series(0.0, index=numbers.index)
    positions = range(len(numbers))
    for place, (column, kind) in enumerate(kinds.items()):
        share = (100 * numbers[column] / total.where(total > 0)).fillna(0)
        axes.barh(
            positions, share, left=start, height=0.7, label=kind, color=COLORS[place], hatch=_HATCHES[place],
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        start += share
    for position, number in zip(positions, total, strict=True):
        text = MISSING if pd.isna(number) else f"{format_significant(number)} {unit}"
        axes.annotate(text, (101.5, position), va="center", fontsize=8, annotation_clip=False)
    axes.set(xlim=(0, 100), xlabel=label)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)


def _name_rows(figure: Figure, axes: Axes, labels: Sequence[str]) -> None:
    """Write the labels of rows beside an axis, the first on top, and make the figure high enough for them."""
    axes.set(ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)))
    axes.set_yticklabels(labels, fontsize=8, parse_math=False)
    figure.set_figheight(max(1.9, 1.1 + sum(max(0.32, 0.18 * (label.count("\n") + 1.2)) for label in labels)))
