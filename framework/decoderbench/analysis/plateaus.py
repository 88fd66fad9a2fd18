"""Why cells did not learn: still on their plateau, or their training images learned by heart. No torch here.

A recognizer that starts from random weights first learns how frequent each character is, and stays at that loss, its
plateau, until it finds where in the image which character is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from decoderbench.analysis.marks import NOT_LEARNED
from decoderbench.analysis.samples import Samples

ROUNDED_TO = 500
"""Suggested steps are a multiple of this."""
FEWEST_VALIDATIONS = 4
"""The number of validations from which on their slope is looked at."""
CLEAR_FALL = 3.0
"""How many of its standard errors a slope must be below 0."""
MOST_TIMES = 5
"""A plateau that would end after more than this many times the steps counts as flat."""


def find_plateaus(samples: Samples, learning: pd.DataFrame) -> pd.DataFrame:
    """Return one line per cell that did not learn, by `index` of its row, `seed`, `fold`.

    - steps: how many it was trained for.
    - val_nats_per_char, unigram_entropy: those of `learning`, the frame of `find_learning`.
    - train_nats_per_char: the training loss at the end, per character; missing if it is not known.
    - by_heart: whether it learns its training images and no others: that loss is at most 0.8 of the entropy, as the nll
      of the validation images would be if it had learned, and this nll does not fall. Such a cell is on no plateau.
    - falling: whether the validation nll of the second half of the steps falls clearly, and fast enough to leave the
      plateau within five times the steps.
    - suggested_steps: for a cell on its plateau, a multiple of 500. If it falls, twice the steps after which the
      line through the second half leaves the plateau, as what follows takes as long again; if not, twice the steps,
      for its curve does not tell. Missing for one that learns by heart.
    """
    lines = []
    for line in learning[learning["learned"].eq(False)].to_dict("records"):
        index = int(line["index"])
        cell = next(
            cell for cell in samples.models(index, line["seed"]) if pd.isna(line["fold"]) or cell.fold == line["fold"]
        )
        history, steps = samples.history(index, cell), cell.training.steps
        loss, threshold = _last(history, "train_loss"), NOT_LEARNED * line["unigram_entropy"]
        leaves = _step_of_leaving(history, steps, threshold)
        falling = leaves is not None
        by_heart = loss <= threshold and not falling
        suggested = None if by_heart else ROUNDED_TO * math.ceil(2 * (leaves or steps) / ROUNDED_TO)
        kept = {name: line[name] for name in ("index", "seed", "fold", "val_nats_per_char", "unigram_entropy")}
        lines.append(
            kept
            | {
                "steps": steps,
                "train_nats_per_char": loss,
                "by_heart": by_heart,
                "falling": falling,
                "suggested_steps": suggested,
            }
        )
    dtypes = {
        "index": "int64",
        "seed": "int64",
        "fold": "Int64",
        "steps": "int64",
        "val_nats_per_char": "float64",
        "unigram_entropy": "float64",
        "train_nats_per_char": "float64",
        "by_heart": "bool",
        "falling": "bool",
        "suggested_steps": "Int64",
    }
    return pd.DataFrame(lines, columns=list(dtypes)).astype(dtypes)


def _last(history: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the last value of a history, NaN if it has none."""
    value = next((line[name] for line in reversed(history) if line.get(name) is not None), math.nan)
    return float(value)


def _step_of_leaving(history: Sequence[Mapping[str, Any]], steps: int, threshold: float) -> float | None:
    """Return the step at which a line through the second half of a curve reaches a threshold; None if it is flat."""
    at = {line["step"]: line.get("val_nats_per_char") for line in history}  # an interrupted cell repeats steps
    points = [(step, float(nats)) for step, nats in at.items() if step >= steps / 2 and nats is not None]
    if len(points) < FEWEST_VALIDATIONS or not all(math.isfinite(nats) for _, nats in points):
        return None
    step, nats = np.array(sorted(points)).T
    centered = step - step.mean()
    slope = float(centered @ nats / (centered @ centered))
    rest = nats - nats.mean() - slope * centered
    error = math.sqrt(float(rest @ rest) / (len(step) - 2) / float(centered @ centered))
    if slope >= -CLEAR_FALL * error or slope >= 0:
        return None
    reached = float(step.mean() + (threshold - nats.mean()) / slope)
    return max(reached, float(steps)) if reached <= MOST_TIMES * steps else None
