"""How many seeds and images a comparison needs, from the mean squares of a pilot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from decoderbench.statistics.crossed import Components, Squares
from decoderbench.statistics.estimates import Shape, check_level
from decoderbench.statistics.scores import Floats

MOST_SEEDS = 2**20
"""A comparison that needs more seeds than this counts as one that no number of seeds resolves."""

SEED_NODES, UNIT_NODES = 24, 6
"""Equally likely mean squares of a future table, over which its power is averaged."""


class SeedsNeeded(NamedTuple):
    """The smallest number of seeds that reaches a power, at least 2; None if no number of seeds does.

    Attributes:
        seeds: from the pilot's estimates.
        low, high: the range that the pilot's degrees of freedom leave.
    """

    seeds: int | None
    low: int | None
    high: int | None


def half_width(pilot: Components, *, seeds: int, units: int, level: float = 0.95) -> float:
    """Return half the width of the interval of a table with so many seeds and units, if it varies as the pilot does.

    An effect as large as this is found with a power of about one half.

    Raises:
        ValueError: the pilot has one seed or one unit per fold, or fewer than 2 seeds or units are asked for.
    """
    check_level(level)
    shape, squares = _planned(pilot, seeds, units)
    spread = shape.spread(Squares(*(np.array(square) for square in squares)))
    return float(stdtrit(spread.df, 0.5 + level / 2) * np.sqrt(spread.variance))


def power(pilot: Components, effect: float, *, seeds: int, units: int, alpha: float = 0.05) -> float:
    """Return the probability that the two-sided test of one contrast at `alpha` finds a true `effect`, with its sign.

    The estimate is normal with the variance that the components say, and the test divides it by a variance that it
    estimates: the average is over the chi-squared distributions of the mean squares of seeds and of units.

    Raises:
        ValueError: as in `half_width`.
    """
    check_level(1 - alpha)
    shape, squares = _planned(pilot, seeds, units)
    true = math.sqrt((squares.seed + squares.unit - squares.residual) / (seeds * units))
    seed = squares.seed * _nodes(shape.seed_df, SEED_NODES)[:, None]
    unit = squares.unit * _nodes(shape.unit_df, UNIT_NODES)
    seed, unit = np.broadcast_arrays(seed, unit)
    spread = shape.spread(Squares(seed, unit, np.full_like(seed, squares.residual)))
    least = stdtrit(spread.df, 1 - alpha / 2) * np.sqrt(spread.variance)
    if true == 0:
        return float(effect != 0)
    return float(ndtr((abs(effect) - least) / true).mean())


def seeds_needed(
    pilot: Components, effect: float, *, units: int, target: float = 0.8, alpha: float = 0.05, confidence: float = 0.8
) -> SeedsNeeded:
    """Return how many seeds find a true difference of `effect` with probability `target` on so many units.

    The range is that of the mean squares of seeds and of units, each within its chi-squared interval of `confidence`
    (Browne 1995 takes one side of it, also at 80 %), both at their lower or both at their upper ends.

    Raises:
        ValueError: as in `half_width`; no variation between the rows of the pilot; an effect of 0.
    """
    check_level(confidence)
    if not (math.isfinite(effect) and effect):
        raise ValueError(f"an effect to be found must be a number other than 0, not {effect}")
    _planned(pilot, 2, units)
    if not (pilot.seed or pilot.unit):
        raise ValueError("the rows of the pilot agree on every image, so their variation is not known")
    low, high = ((1 + sign * confidence) / 2 for sign in (-1, 1))

    def smallest(case: Components) -> int | None:
        return _smallest(lambda seeds: power(case, effect, seeds=seeds, units=units, alpha=alpha) >= target)

    seeds, *ends = map(smallest, (pilot, _at_quantile(pilot, low), _at_quantile(pilot, high)))
    ordered = sorted((seeds, *ends), key=lambda number: math.inf if number is None else number)
    return SeedsNeeded(seeds, ordered[0], ordered[2])  # less variation may leave fewer degrees of freedom


class _Expected(NamedTuple):
    seed: float
    unit: float
    residual: float


def _planned(pilot: Components, seeds: int, units: int) -> tuple[Shape, _Expected]:
    """Return the shape of a future table and the mean squares that are expected there.

    The variance components of seeds and of units, not below 0, and of the residual are those of the pilot.
    """
    if pilot.num_seeds < 2:
        raise ValueError("a pilot with one seed does not show how seeds vary; train at least two")
    if math.isnan(pilot.unit):
        raise ValueError("a pilot with one image, or one per fold, does not show how images vary")
    if seeds < 2 or units < 2:
        raise ValueError(f"a plan needs at least 2 seeds and 2 images, not {seeds} and {units}")
    now, then = _shape(pilot), _shape(pilot, seeds, units)
    between_seeds = max(pilot.seed - pilot.residual, 0) / now.units_per_model
    between_units = max(pilot.unit - pilot.residual, 0) / pilot.num_seeds
    return then, _Expected(
        between_seeds * then.units_per_model + pilot.residual, between_units * seeds + pilot.residual, pilot.residual
    )


def _shape(pilot: Components, seeds: int | None = None, units: int | None = None) -> Shape:
    """Return the shape of the pilot, or of a table with as many folds."""
    sizes = np.array(pilot.fold_sizes, dtype=np.float64)
    units = pilot.num_units if units is None else units
    return Shape(seeds or pilot.num_seeds, units, sizes * (units / pilot.num_units), step=math.nan)


def _at_quantile(pilot: Components, share: float) -> Components:
    """Return the mean squares that, if true, would leave those of the pilot with this share of chance above them."""
    shape = _shape(pilot)
    return dataclasses.replace(
        pilot,
        seed=pilot.seed * shape.seed_df / float(chdtri(shape.seed_df, share)),
        unit=pilot.unit * shape.unit_df / float(chdtri(shape.unit_df, share)),
    )


def _nodes(df: float, number: int) -> Floats:
    """Return equally likely values of a mean square whose expectation is 1."""
    shares = (np.arange(number) + 0.5) / number
    return np.asarray(chdtri(df, shares) / df)


def _smallest(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds, from 2, that is enough; None if none is."""
    too_few, enough = 1, 2
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
        if enough == 8 and not is_enough(MOST_SEEDS):
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough
