"""Whether a decoder knows when it is right: calibration of its confidence, and errors left when it may decline.

The confidence is exp(`text_log_prob`), the probability that the decoder itself gives to the text that it returned: one
definition for all decoders. Nothing is fitted: the numbers are those of the test split as it was read. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_BINS = 15
"""Bins of equal mass of the expected calibration error; fewer images than that are a bin each."""

COVERAGES = np.arange(1, 101) / 100
"""Shares of the images that are answered, of a risk-coverage curve."""

_NUMBERS = ["exact_match", "mean_confidence", "ece", "aurc"]


@dataclass(frozen=True)
class Calibration:
    """The frames of one analysis; `index` is the position of a row in `Analysis.rows`. Numbers are means over seeds."""

    rows: pd.DataFrame
    """One line per row: `num_seeds`, `num_images`, `num_unscored` (texts without a `text_log_prob`; a row that has
    any has no numbers), `exact_match`, `mean_confidence`, `ece` (expected calibration error: the mean over bins of
    |mean confidence - share right|, weighted by their images) and `aurc` (the area under the risk-coverage curve: the
    mean of the risk over all numbers of answered images).

    Sources: Naeini, Cooper & Hauskrecht 2015 (ECE), Nixon et al. 2019 (equal mass); Geifman & El-Yaniv 2017 (risk and
    coverage), Geifman, Uziel & El-Yaniv 2019 (AURC).
    """

    risk_coverage: pd.DataFrame
    """Per row and `coverage`: `risk`, the share of wrong texts among the most confident images; at full coverage it is
    1 - exact match."""


def find_calibration(readings: pd.DataFrame, titles: Sequence[str]) -> Calibration:
    """Return the calibration of each row.

    Texts with equal confidence are in no order: each counts as the share of them that is right.

    Args:
        readings: one line per text, as `readings_of` returns them.
        titles: the title of each row.
    """
    rows: list[dict[str, object]] = []
    curves: list[pd.DataFrame] = []
    for index, title in enumerate(titles):
        own = readings[readings["index"] == index]
        unscored = int(own["text_log_prob"].isna().sum())
        seeds = [_measure(of_seed) for _, of_seed in own.groupby("seed")] if not unscored else []
        numbers = np.mean([values for values, _ in seeds], axis=0) if seeds else [np.nan] * len(_NUMBERS)
        rows.append(
            {
                "index": index,
                "title": title,
                "num_seeds": own["seed"].nunique(),
                "num_images": own["image"].nunique(),
                "num_unscored": unscored,
                **dict(zip(_NUMBERS, numbers, strict=True)),
            }
        )
        if seeds:
            risk = np.mean([curve for _, curve in seeds], axis=0)
            curves.append(pd.DataFrame({"index": index, "title": title, "coverage": COVERAGES, "risk": risk}))
    none = pd.DataFrame(columns=["index", "title", "coverage", "risk"])
    return Calibration(pd.DataFrame(rows), pd.concat(curves, ignore_index=True) if curves else none)


def _measure(own: pd.DataFrame) -> tuple[list[float], NDArray[np.float64]]:
    """Return the numbers of one seed in the order of `_NUMBERS`, and its risk at each of `COVERAGES`."""
    equal = np.asarray(own["reference"] == own["hypothesis"], dtype=np.float64)
    log_prob, right = sort_by_confidence(own["text_log_prob"].to_numpy(np.float64), equal)
    confidence = np.exp(log_prob)
    risk = 1 - right.cumsum() / np.arange(1, len(right) + 1)
    answered = np.ceil(np.round(COVERAGES * len(right), 9)).astype(np.int64)
    numbers = [right.mean(), confidence.mean(), expected_calibration_error(confidence, right), risk.mean()]
    return [float(number) for number in numbers], risk[answered - 1]


def sort_by_confidence(
    log_prob: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both by falling log p, (N,) each; of images with equal ones each counts as the share that is right."""
    order = np.argsort(-log_prob, kind="stable")
    _, tie = np.unique(-log_prob[order], return_inverse=True)
    shares = np.bincount(tie, weights=right[order]) / np.bincount(tie)
    return log_prob[order], shares[tie]


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the expected calibration error of images in the order of their confidence, in bins of equal mass."""
    gaps = np.array_split(confidence - right, min(NUM_BINS, len(right)))
    return float(sum(abs(gap.sum()) for gap in gaps) / len(right))
