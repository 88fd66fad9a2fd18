"""The methods paragraph of the page, for a paper: true for the experiment that it stands in. No torch here."""

from __future__ import annotations

from typing import Any

import pandas as pd

from decoderbench.analysis.frame import Results
from decoderbench.report.settings import settings_of
from decoderbench.report.tables import join_distinct

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def methods_of(results: Results, rows: pd.DataFrame) -> str:
    """Return a paragraph for the methods section of a paper, of this experiment alone."""
    plan = results.plan
    cells = plan.cells
    sizes = plan.split_sizes
    seeds = rows["num_seeds"][rows["num_seeds"] > 0]
    settings = dict(line.split(": ", 1) for line in settings_of(plan) if ": " in line)
    numbers = [f"{sizes[split]:,} {name}" for split, name in SPLIT_NAMES.items() if split in sizes]
    trainers = list(dict.fromkeys(name for cell in cells for name in cell.trainers))
    many = len(rows) > 1
    sentences = [
        f"We trained {len(rows)} recognizer{'s' * many} (experiment {plan.experiment}) on "
        f"{join_distinct(cell.dataset for cell in cells)}" + (f" ({', '.join(numbers)} images)" if numbers else ""),
        f"{'Each was' if many else 'It was'} to be trained with {_numbers(rows['num_cells'], 'seed')}"
        + (f", of which {_numbers(seeds, 'seed')} have a result" if not seeds.equals(rows["num_cells"]) else "")
        + "; for one seed, the rows that take their images from the same data see the same batches in the same order",
        f"Training: {settings['steps']} steps, batch size {settings['batch size']}, {settings['optimizer']}, learning "
        f"rate {settings['learning rate']}, warm-up {settings['warm-up']}, decay "
        f"{settings['decay of the learning rate']}, weight decay {settings['weight decay']}, gradients clipped at norm {settings['clip norm']}, augmentation "
        f"{settings['augmentation']}, images {settings['images']}",
        f"The weights tested are {settings['weights tested']}" if not trainers else "",
        f"Plugins may have trained otherwise: {', '.join(trainers)}" if trainers else "",
        _tuning_of(rows),
        _intervals_of(rows),
        "Exact match is the share of test images whose text is read without an error; CER is edits over characters of "
        "the labels, summed over the split",
    ]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _numbers(values: pd.Series[Any], noun: str) -> str:
    if values.empty:
        return f"no {noun}"
    low, high = int(values.min()), int(values.max())
    return f"{low} {noun}{'s' * (low != 1)}" if low == high else f"{low} to {high} {noun}s"


def _tuning_of(rows: pd.DataFrame) -> str:
    tuned = rows["tuned"] if "tuned" in rows else pd.Series("", index=rows.index)
    if (tuned.fillna("") == "").all():
        return "Nothing was tuned: all rows have the settings stated here"
    chosen = "; ".join(f"{title}: {text}" for title, text in zip(rows["title"], tuned, strict=True) if text)
    return f"Each row was tuned with the same budget on validation images, with seeds of its own: {chosen}"


def _intervals_of(rows: pd.DataFrame) -> str:
    scored = rows[rows["num_seeds"] > 0]
    if scored.empty:
        return ""
    bold = "A row is bold if no other row is shown to be better, with p values adjusted by Holm's method over all pairs"
    if (scored["num_seeds"] == 1).all():
        return f"Intervals (95 %) are over test images alone and are about these trained models. {bold}"
    groups = (
        "test images" if (scored["num_units"] == scored["num_images"]).all() else "groups of test images as the unit"
    )
    single = (
        "; rows with one seed have an interval over test images alone, which is about the trained model"
        if (scored["num_seeds"] == 1).any()
        else ""
    )
    return (
        f"Intervals (95 %) treat seeds and {groups} as crossed random factors, with Satterthwaite's degrees of "
        "freedom; "
        f"a proportion's own interval is Wilson's, with the effective number of images and t in place of z{single}. "
        f"Differences between rows are paired by seed and image. {bold}"
    )
