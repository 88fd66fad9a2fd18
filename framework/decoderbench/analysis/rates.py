"""Intervals of rates over images and seeds: of what each text of `readings_of` has, or is. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from decoderbench.statistics import Estimate, Scores, row

if TYPE_CHECKING:
    from numpy.typing import NDArray

Codes = Callable[[int], "NDArray[np.intp] | None"]
"""Returns the codes of the groups, or of the folds, of the images of an image set; None if there are none."""


def no_codes(image_set: int) -> NDArray[np.intp] | None:
    """Return that an image set has no groups, or no folds."""
    return None


def rates_of(
    readings: pd.DataFrame,
    counts: Mapping[str, NDArray[np.float64]],
    per: NDArray[np.float64],
    groups: Codes,
    folds: Codes,
    *,
    proportion: bool,
) -> dict[tuple[int, str], Estimate]:
    """Return the rate of each count by row and name: its sum over the sum of `per`, the mean over seeds.

    A row without readings has none, nor has one whose `per` are all 0.

    Args:
        readings: one line per text: `index` of the row, `seed`, `image_set`, `image`.
        counts: a number per line, by name.
        per: what it is counted per, one number per line, the same for all texts of an image.
        groups: the groups of the images of an image set.
        folds: the folds in which they were tested.
        proportion: whether each count is 0 or 1, and `per` is 1.
    """
    found: dict[tuple[int, str], Estimate] = {}
    places = readings[["index", "seed", "image"]]
    for image_set, lines in readings.groupby("image_set").indices.items():
        own = places.iloc[lines]
        rows, row_codes = np.unique(own["index"].to_numpy(), return_inverse=True)
        seeds, seed_codes = np.unique(own["seed"].to_numpy(), return_inverse=True)
        images = own["image"].to_numpy(np.int64)
        shape = len(rows), len(seeds), int(images.max()) + 1
        denominator = np.zeros(shape[2])
        denominator[images] = per[lines]
        number = int(image_set)  # type: ignore[call-overload]
        codes = {"groups": groups(number), "folds": folds(number)}
        for name, numbers in counts.items():
            numerator = np.full(shape, np.nan)
            numerator[row_codes, seed_codes, images] = numbers[lines]
            scores = Scores(numerator, denominator, **codes)
            for place in np.flatnonzero(scores.present.any(axis=1)).tolist():
                found[int(rows[place]), name] = row(scores, place, proportion=proportion)
    return found
