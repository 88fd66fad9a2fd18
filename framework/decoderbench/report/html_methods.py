"""The methods paragraph of the page, for a paper: true for the experiment that it stands in. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis.frame import Results
from decoderbench.analysis.tuning import notes_on_tuning
from decoderbench.data.dataset import Split
from decoderbench.records.schema import Plan
from decoderbench.report.settings import settings_of
from decoderbench.report.tables import join_distinct

SPLIT_NAMES: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


def methods_of(results: Results, rows: pd.DataFrame) -> str:
    """Return a paragraph for the methods section of a paper, of this experiment alone."""
    cells = results.plan.cells
    settings = dict(line.split(": ", 1) for line in settings_of(results.plan))
    trainers = list(dict.fromkeys(name for cell in cells for name in cell.trainers))
    sentences = [
        f"We compared {len(rows)} recognizer{'s' * (len(rows) > 1)} on {_data_of(results)}",
        _seeds_of(rows),
        (
            f"Training took {settings['steps']} steps of {settings['batch size']} with {settings['optimizer']}; "
            f"learning rate {settings['learning rate']}; warm-up {settings['warm-up']}; decay "
            f"{settings['decay of the learning rate']}; weight decay {settings['weight decay']}; gradients clipped at "
            f"norm {settings['clip norm']}; augmentation {settings['augmentation']}; images {settings['images']}"
        ),
        f"Weights tested: {settings['weights tested']}",
        f"Plugins took part in training and may have done it otherwise: {', '.join(trainers)}" if trainers else "",
        *(f"{note[:1].upper()}{note[1:]}" for note in notes_on_tuning(results.plan, results.trials)),
        _intervals_of(rows),
        "Exact match is the share of test images that are read without an error; the character error rate is the "
        "number of edits over the number of characters of the labels, both summed over the test split",
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _data_of(results: Results) -> str:
    plan = results.plan
    name = join_distinct(cell.dataset for cell in plan.cells)
    sizes = sizes_of(plan)
    if len(sizes) != 1:
        return f"{name}, with data that differ between settings" if sizes else name
    return f"{name} ({sizes[0]} images)"


def sizes_of(plan: Plan) -> list[str]:
    """Return the numbers of images of each of the data of a plan, as in "764 training, 92 validation, 214 test".

    With folds, of each fold: as a range where folds differ.
    """
    found: dict[tuple[str, int | None], list[dict[Split, int]]] = {}
    for cell in plan.cells:
        if counts := plan.split_sizes_of(cell):
            found.setdefault((cell.data_key, cell.train_limit), []).append(counts)
    folds = {(cell.data_key, cell.train_limit): cell.folds for cell in plan.cells}
    texts = []
    for key, sizes in found.items():
        parts = [f"{_span([of[split] for of in sizes])} {word}" for split, word in SPLIT_NAMES.items()]
        texts.append((f"in {folds[key]} folds, each of " if folds[key] else "") + ", ".join(parts))
    return list(dict.fromkeys(texts))


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _seeds_of(rows: pd.DataFrame) -> str:
    planned, done = _count(rows["num_planned_seeds"], "seed"), rows["num_seeds"]
    lacking = int((done < rows["num_planned_seeds"]).sum())
    numbers = join_distinct(int(number) for number in rows["num_folds"].dropna())
    folds = f" in each of {numbers} folds" if numbers else ""
    if 0 < (folded := int(rows["num_folds"].notna().sum())) < len(rows):
        folds = f", {folded} of them{folds}"
    if lacking:
        return (
            f"Each was to be trained with the same {planned}{folds}; {lacking} of {len(rows)} have fewer results than "
            "that"
        )
    return f"Each was trained with the same {planned}{folds}"


def _count(values: pd.Series[Any], noun: str) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} {noun}{'s' * (low != 1)}" if low == high else f"{low} to {high} {noun}s"


def _folds_of(rows: pd.DataFrame) -> str:
    """Return what folds mean for values and intervals, as a sentence with a blank before it; empty without folds."""
    if not rows["num_folds"].notna().any():
        return ""
    return (
        " With folds, every image was tested once per seed, by a model that was not trained on it, and results are "
        "over all of them; variances are within folds. Models of different folds share training images, which the "
        "intervals do not see."
    )


def _intervals_of(rows: pd.DataFrame) -> str:
    scored = rows[rows["scope"].notna()]
    if scored.empty:
        return ""
    grouped = (scored["num_units"] != scored["num_images"]).any()
    units = "groups of test images (all images of one group count as one unit)" if grouped else "test images"
    single = scored["scope"] == "this trained model"
    alone = f"are over {units} and hold for these trained models"
    bold = (
        "A row is printed in bold unless another one is shown to be better, at .05 after Holm's adjustment over all "
        "pairs of rows"
    )
    if single.all():
        return f"The 95 % intervals {alone}, since each row has the result of one seed.{_folds_of(rows)}".rstrip(".")
    exception = f"; those of rows with one seed {alone}" if single.any() else ""
    return (
        f"The 95 % intervals treat seeds and {units} as crossed random factors, with Satterthwaite's degrees of "
        "freedom, or those of the seeds where these vary more; those of proportions are Wilson's with the effective "
        f"number of images and the quantile of t in place of the normal one{exception}. Differences are paired by seed "
        "and image; where their variance between seeds is below what all pairs of rows lead to expect, it is raised "
        f"towards that (Smyth 2004).{_folds_of(rows)} {bold}"
    )
