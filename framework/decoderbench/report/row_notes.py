"""What the intervals and the bold numbers of the main table mean, and the remarks on its rows. No torch here."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.report.tables import join_distinct


def remarks_on(analysis: Analysis) -> list[str]:
    """Return for each row what is wrong with its seeds, in a few words; empty if nothing is."""
    return ["; ".join(_remarks(row)) for row in analysis.rows.to_dict("records")]


def _remarks(row: Mapping[Hashable, Any]) -> Iterator[str]:
    if row["infeasible"]:
        yield "infeasible"
    for name, words in (("num_failed", "failed"), ("not_learned", "did not learn")):
        if number := row[name]:
            yield f"{number} seed{'s' * (number > 1)} {words}"
    if row["still_rising"]:
        yield "still rising"


def notes_on_rows(analysis: Analysis, metrics: Sequence[str]) -> list[str]:
    """Return the notes on intervals, bold numbers and images of a table with these metrics."""
    rows = analysis.rows
    with_interval = rows[rows[[f"{metric}_low" for metric in metrics]].notna().any(axis="columns")]
    return [
        *_notes_on_intervals(with_interval),
        *_notes_on_bold(analysis, metrics),
        *_notes_on_image_sets(analysis),
        *analysis.samples.notes,
    ]


def _notes_on_intervals(rows: pd.DataFrame) -> Iterator[str]:
    several, single = rows[rows["scope"] == "architecture"], rows[rows["scope"] != "architecture"]
    if len(several):
        yield (
            "in brackets the 95 % confidence interval of the mean over training runs and images of the same kind, from "
            f"{_range(several['num_seeds'])} seeds and {_images(several)}"
        )
    if len(single):
        yield (
            f"{'rows with one seed' if len(several) else 'one seed per row'}: in brackets the 95 % interval of this "
            f"trained model on new images of the same kind, from {_images(single)}; it says nothing about the "
            "architecture, so do not rank rows by it"
        )


def _notes_on_bold(analysis: Analysis, metrics: Sequence[str]) -> Iterator[str]:
    rows = analysis.rows
    if not (rows["num_seeds"] > 0).any() or not metrics:
        return
    if not rows[[f"{metric}_bold" for metric in metrics]].any(axis=None):
        yield "nothing is bold: that needs two rows with at least two seeds each, tested on the same images"
        return
    sets = rows.loc[rows["num_seeds"] > 1, "image_set"].value_counts()
    pairs = join_distinct(
        number * (number - 1) // 2 for number in sorted(rows["image_set"].value_counts()) if number > 1
    )
    family = "the one pair" if pairs == "1" else f"all {pairs} pairs"
    within = " that was tested on the same images" if len(sets) > 1 else ""
    yield (
        f"bold: not shown to be worse; no other row{within} beats it with p at most .05, adjusted by Holm over "
        f"{family} of rows; not bold are rows that one beats, and rows without an interval or with fewer than two seeds"
    )


def _notes_on_image_sets(analysis: Analysis) -> Iterator[str]:
    rows = analysis.rows.dropna(subset="image_set")
    if rows["image_set"].nunique() > 1:
        groups = "; ".join(
            f"({number}) {', '.join(of['title'])}" for number, (_, of) in enumerate(rows.groupby("image_set"), start=1)
        )
        yield f"rows were tested on images or labels of different data; compare only within each of: {groups}"


def _range(numbers: pd.Series[int]) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _images(rows: pd.DataFrame) -> str:
    """Return the number of images, as in "2,000 images" or "2,000 images in 40 groups"."""
    texts = [
        f"{images:,} images" + (f" in {units:,} groups, which are the units" if units != images else "")
        for images, units in zip(rows["num_images"], rows["num_units"], strict=True)
    ]
    return " or ".join(dict.fromkeys(texts))
