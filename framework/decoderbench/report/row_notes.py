"""What the intervals and the bold numbers of the main table mean, and the remarks on its rows. No torch here."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.analysis.models import models_text
from decoderbench.report.tables import join_distinct

FEW = 5
"""The most models that a remark names."""


def remarks_on(analysis: Analysis) -> list[str]:
    """Return for each row what is wrong with its seeds, with folds its models, in a few words; empty if nothing is."""
    learning = analysis.learning
    lost = learning[learning["learned"].eq(False) & learning["fold"].notna()]
    rows = analysis.rows.to_dict("records")
    return ["; ".join(_remarks(row, lost[lost["index"] == index])) for index, row in enumerate(rows)]


def _remarks(row: Mapping[Hashable, Any], lost: pd.DataFrame) -> Iterator[str]:
    """Yield the remarks on a row; `lost` are its models that did not learn, of a row with folds."""
    if row["infeasible"]:
        yield "infeasible"
    what = "seed" if pd.isna(row["num_folds"]) else "model"
    for name, words in (("num_failed", "failed"), ("not_learned", "did not learn")):
        if number := row[name]:
            which = ""
            if name == "not_learned" and 0 < len(lost) <= FEW:
                which = f" ({models_text(zip(lost['seed'].tolist(), lost['fold'].tolist(), strict=True))})"
            yield f"{number} {what}{'s' * (number > 1)} {words}{which}"
    if row["still_rising"]:
        yield "still rising"


def notes_on_rows(analysis: Analysis, metrics: Sequence[str]) -> list[str]:
    """Return the notes on intervals, bold numbers and images of a table with these metrics."""
    rows = analysis.rows
    with_interval = rows[rows[[f"{metric}_low" for metric in metrics]].notna().any(axis="columns")]
    return [
        *_notes_on_intervals(with_interval),
        *notes_on_folds(rows),
        *_notes_on_bold(analysis, metrics),
        *_notes_on_image_sets(analysis),
        *_notes_on_plateaus(analysis),
        *_notes_on_starts(analysis),
        *_notes_on_refits(analysis),
        *analysis.samples.notes,
    ]


def _notes_on_starts(analysis: Analysis) -> Iterator[str]:
    """Yield a note per trained model that rows start from, with the rows if others do not."""
    rows: dict[str, dict[str, None]] = {}
    titles = analysis.samples.titles
    for index, title in enumerate(titles):
        for cell in analysis.samples.cells(index):
            if cell.start is not None:
                rows.setdefault(cell.start_title, {})[title] = None
    for start, own in rows.items():
        which = "" if len(own) == len(titles) else f"{'; '.join(own)}: "
        yield f"{which}starts from the trained weights of {start}; steps and costs are those after that"


def _notes_on_refits(analysis: Analysis) -> Iterator[str]:
    if any(cell.purpose == "refit" for cell in analysis.results.plan.cells):
        yield "trained on all images, those that it is scored on included: no score of this table says anything"


def notes_on_folds(rows: pd.DataFrame) -> Iterator[str]:
    """Yield a note on what folds mean for values and intervals; none without folds."""
    folded = rows[rows["num_folds"].notna()]
    if folded.empty:
        return
    folds = join_distinct(int(number) for number in folded["num_folds"])
    tested = folded["num_images"].dropna()
    images = " or ".join(dict.fromkeys(f"{int(number):,}" for number in tested)) or "all"
    which = "" if len(folded) == len(rows) else f"rows {'; '.join(folded['title'])}: "
    yield (
        f"{which}each of {images} images was tested once by one model per seed; {folds} folds; values are over the "
        "images of all folds, costs are means over models; models of different folds share training images, which the "
        "interval does not see"
    )
    if (folded["num_units"] == folded["num_folds"]).any():
        yield "where a fold tests one image or group, there is no interval: one says nothing about others"


def _notes_on_intervals(rows: pd.DataFrame) -> Iterator[str]:
    several, single = rows[rows["scope"] == "architecture"], rows[rows["scope"] != "architecture"]
    if len(several):
        yield (
            "in brackets the 95 % confidence interval of the mean over training runs and images of the same kind, from "
            f"{_range(several['num_seeds'])} seeds{_in_folds(several)} and {_images(several)}"
        )
    if len(single):
        yield (
            f"{'rows with one seed' if len(several) else 'one seed per row'}: in brackets the 95 % interval of "
            f"{'these trained models' if _in_folds(single) else 'this trained model'} on new images of the same kind, "
            f"from {_images(single)}; it says nothing about the architecture, so do not rank rows by it"
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
        folds = " or folds" if rows["num_folds"].notna().any() else ""
        yield f"rows were tested on images or labels of different data{folds}; compare only within each of: {groups}"


def _notes_on_plateaus(analysis: Analysis) -> Iterator[str]:
    """Yield for each row whose models did not learn why, and what to try; of similar models the best is described."""
    for _, of in analysis.plateaus.groupby(["index", "by_heart"], sort=True):
        first = of.sort_values("val_nats_per_char").iloc[0]
        place = models_text([(first["seed"], None if pd.isna(first["fold"]) else first["fold"])])
        which = f"{analysis.samples.titles[first['index']]}, {place}"
        others = f", as {len(of) - 1} more of its models" if len(of) > 1 else ""
        validated = f"{first['val_nats_per_char']:.2f} nats per character on validation"
        alone = f"how frequent each character is gives {first['unigram_entropy']:.2f}"
        if first["by_heart"]:
            yield (
                f"{which}: learns its training images by heart, and no others "
                f"({first['train_nats_per_char']:.2g} nats per character there, {validated}; {alone}){others}; more "
                "steps do not help, but stronger augmentation, a deeper encoder, narrower recurrent layers, or more "
                "images may"
            )
            continue
        curve = "its curve falls" if first["falling"] else "its curve is flat and does not say when it leaves it"
        steps = int(first["steps"])
        yield (
            f"{which}: still on its plateau after {steps:,} step{'s' * (steps != 1)} ({validated}; {alone}){others}; "
            f"{curve}; try training.steps = {first['suggested_steps']}"
        )


def _in_folds(rows: pd.DataFrame) -> str:
    """Return in how many folds rows were tested, as in " in 5 folds"; empty if some have none."""
    if rows["num_folds"].isna().any():
        return ""
    return f" in {join_distinct(int(number) for number in rows['num_folds'])} folds"


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
