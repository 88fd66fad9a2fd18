"""Estimates with intervals: contrasts of rows, and values of rows. `framework/decisions/0016` has the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from decoderbench.statistics.crossed import Components, Squares, linearize, products
from decoderbench.statistics.scores import Floats, Integers, Scores

Scope = Literal["architecture", "this trained model"]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, in the unit of the metric (exact match: 0 to 1).

    Attributes:
        value: a row's value, or a contrast of rows.
        low, high: the interval. NaN if no fold has two units: one image says nothing about other images.
        variance: of the value; NaN as `low`.
        df: degrees of freedom of the variance; NaN as `low`.
        p: two-sided, of the hypothesis that the value is 0. NaN for rows, and as `low`.
        seeds: the number of seeds that all rows of the contrast have.
        images: the number of test images.
        units: the number of groups that the images belong to, or of images if each is independent.
        scope: what the interval speaks of. With one seed it holds for this trained model, on new images; with more,
            for the architecture, trained anew and on new images.
        components: the mean squares of the contrast itself.
    """

    value: float
    low: float
    high: float
    variance: float
    df: float
    p: float
    seeds: int
    images: int
    units: int
    scope: Scope
    components: Components


class Spread(NamedTuple):
    """Variance and degrees of freedom of means; arrays of one shape."""

    variance: Floats
    df: Floats


def contrast(scores: Scores, weights: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate a weighted sum of rows: (+1, -1) is a difference, (+1, -1, -1, +1) an interaction.

    Rows with weight 0 are ignored, and so are seeds that any other row lacks. Where all seeds agree on all units the
    variance is not 0: see `estimates`. One seed: the interval over units, for this trained model. The interval of
    proportions ends where the contrast does, at -1 and 1 for a difference.

    Raises:
        ValueError: weights that do not fit, are not finite or all 0; rows without a common seed.
    """
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != scores.numerator.shape[:1] or not np.isfinite(weight).all() or not weight.any():
        raise ValueError(f"a contrast of {len(scores.numerator)} rows needs as many finite weights, not all of them 0")
    rows = np.flatnonzero(weight)
    seeds = np.flatnonzero(scores.present[rows].all(axis=0))
    if not len(seeds):
        raise ValueError("the rows of a contrast must have a seed in common")
    _, tables = linearize(scores, rows, seeds)
    table = np.tensordot(weight[rows], tables, 1)[None]
    scale = float(np.abs(weight[rows]) @ np.abs(tables).max(axis=(1, 2)))
    squares = [np.where(square < 1e-20 * scale**2, 0, square)[0] for square in products(table, scores.unit_folds)]
    shape = Shape.of(scores, rows, seeds)
    value = table.mean(axis=(1, 2))
    value = np.where(np.abs(value) < 1e-13 * scale, 0, value)
    step, limits = shape.step * np.abs(weight).max(keepdims=True), scores.limits(weight[None])
    return estimates(value, Squares(*squares), shape, step=step, limits=limits, level=level)[0]


@dataclass(frozen=True)
class Shape:
    """How many seeds, units and folds stand behind an estimate.

    Attributes:
        num_seeds, num_images: S and N.
        fold_sizes: (K,), units per fold.
        step: what one unit of the numerator in one image is worth: 1 for exact match, an edit for CER.
    """

    num_seeds: int
    num_images: int
    fold_sizes: Floats
    step: float

    @classmethod
    def of(cls, scores: Scores, rows: Integers, seeds: Integers) -> Shape:
        """Describe some rows and seeds of scores."""
        mean_denominator = scores.denominator[np.ix_(rows, seeds)].mean()
        return cls(
            len(seeds),
            scores.num_images,
            np.bincount(scores.unit_folds).astype(np.float64),
            1 / float(mean_denominator),
        )

    @property
    def num_units(self) -> int:
        """Units in all folds."""
        return round(float(self.fold_sizes.sum()))

    @property
    def units_per_model(self) -> float:
        """Units that a trained model is tested on: N / K for equal folds."""
        return float((self.fold_sizes**2).sum() / self.fold_sizes.sum())

    @property
    def seed_df(self) -> float:
        """Degrees of freedom between seeds, within folds: K (S - 1) for equal folds."""
        squares = self.fold_sizes**2
        return float(squares.sum() ** 2 / (squares**2).sum() * (self.num_seeds - 1))

    @property
    def unit_df(self) -> float:
        """Degrees of freedom between units, within folds: N - K."""
        return float(self.num_units - len(self.fold_sizes))

    def spread(self, squares: Squares, moderated: tuple[Floats, Floats] | None = None) -> Spread:
        """Return variance and degrees of freedom of means, from their mean squares.

        The variance is never below that of seeds or units alone. Degrees of freedom are Satterthwaite's, or those of
        the seeds where seeds vary more than units: with three of them, Satterthwaite's are too many as often as not.
        One seed: the variance over units.

        Args:
            squares: of the tables.
            moderated: seed mean squares that take the place of those in `squares`, and their degrees of freedom.
        """
        seed, unit, residual = squares
        unit_df = self.unit_df
        number = self.num_seeds * self.num_units
        if self.num_seeds == 1:
            return Spread(unit / number, np.full_like(unit, unit_df if unit_df else np.nan))
        seed, seed_df = moderated or (seed, np.full_like(seed, self.seed_df))
        total = np.maximum(seed + unit - residual, np.maximum(seed, unit))
        smaller = np.minimum(seed_df, unit_df)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = seed**2 / seed_df + unit**2 / unit_df + residual**2 / ((self.num_seeds - 1) * unit_df)
            df = np.where(seed > unit * (1 + 1e-9), smaller, np.maximum(total**2 / parts, smaller))
        return Spread(total / number, df)


def estimates(
    value: Floats,
    squares: Squares,
    shape: Shape,
    *,
    step: Floats,
    limits: tuple[Floats, Floats],
    level: float,
    moderated: tuple[Floats, Floats] | None = None,
) -> list[Estimate]:
    """Return an estimate for each of several contrasts, from arrays (P,) of values and mean squares.

    No variation is no certainty. If every seed and unit has the same value d other than 0, the second moment of the
    units, d^2 / N, takes the place of the variance. If it is 0 throughout, p is 1, and the interval is Wilson's for
    none of N units that differ by one `step`: step * t^2 / (N + t^2) to each side. Both have N - K degrees of freedom.
    """
    check_level(level)
    number, unit_df = shape.num_units, shape.unit_df
    variance, df = shape.spread(squares, moderated)
    constant = variance == 0
    variance = np.where(constant, value**2 / number, variance)
    df = np.where(constant, unit_df, df)
    quantile = stdtrit(df, 0.5 + level / 2)
    half = quantile * np.sqrt(variance)
    half = np.where(constant & (value == 0), step * quantile**2 / (number + quantile**2), half)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(constant & (value == 0), 1.0, 2 * stdtr(df, -np.abs(value) / np.sqrt(variance)))
    scope: Scope = "architecture" if shape.num_seeds > 1 else "this trained model"
    sizes = tuple(map(int, shape.fold_sizes))
    ends = np.maximum(value - half, limits[0]), np.minimum(value + half, limits[1])
    columns = (value, *ends, variance, df, p, *squares)
    found = []
    for each, low, high, v, d, each_p, a, b, r in np.stack(columns).T.tolist():
        parts = Components(a, b, r, shape.num_seeds, number, sizes)
        counts = (shape.num_seeds, shape.num_images, number)
        found.append(Estimate(each, low, high, v, d, each_p, *counts, scope, parts))
    return found


def check_level(level: float) -> None:
    """Raise `ValueError` unless a confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level must lie between 0 and 1, not {level}")
