"""A row's own value with its interval."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import stdtrit

from decoderbench.statistics.estimates import Estimate, contrast
from decoderbench.statistics.scores import Scores


def row(scores: Scores, index: int, *, level: float = 0.95, proportion: bool) -> Estimate:
    """Estimate the value of a row; its `p` is NaN.

    Args:
        scores: the scores of a table.
        index: the row.
        level: of the interval.
        proportion: whether the value lies between 0 and 1, as exact match and 1-NED do. Its interval is then Wilson's
            with an effective number of images, n = value (1 - value) / variance, and t instead of z (Korn and Graubard
            1999), and lies between 0 and 1. Where each image is right or wrong, n is at most the number of seeds times
            that of images. At 0 and 1, n is the number of units, with a degree of freedom less per fold.
            Otherwise the interval is that of a contrast, and ends at 0 for scores that are not negative.

    Raises:
        ValueError: the row has no result, or its value is no proportion though it is said to be.
    """
    if not scores.present[index].any():
        raise ValueError(f"row {index} has no result for any seed")
    estimate = contrast(scores, np.eye(len(scores.numerator))[index], level=level)
    if not proportion:
        positive = not (scores.numerator[index] < 0).any()
        return dataclasses.replace(estimate, p=np.nan, low=max(estimate.low, 0.0) if positive else estimate.low)
    value = estimate.value
    if not -1e-9 <= value <= 1 + 1e-9:
        raise ValueError(f"row {index} has the value {value:g}, which is no proportion")
    value = min(max(value, 0.0), 1.0)
    variance, df, binary_variance = estimate.variance, estimate.df, value * (1 - value)
    if np.isnan(variance):
        return dataclasses.replace(estimate, p=np.nan)
    if scores.binary:
        variance = max(variance, binary_variance / (estimate.seeds * estimate.images))
    if min(value, 1 - value) < 1e-12:
        size, df = float(estimate.units), float(estimate.units - len(estimate.components.fold_sizes))
    else:
        size = binary_variance / variance
    low, high = wilson(value, size, float(stdtrit(df, 0.5 + level / 2)))
    return dataclasses.replace(estimate, value=value, low=low, high=high, variance=variance, df=df, p=np.nan)


def wilson(value: float, size: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion among `size` independent trials."""
    square = quantile**2
    center = (value + square / (2 * size)) / (1 + square / size)
    half = quantile / (1 + square / size) * np.sqrt(value * (1 - value) / size + square / (4 * size**2))
    return max(0.0, float(center - half)), min(1.0, float(center + half))
