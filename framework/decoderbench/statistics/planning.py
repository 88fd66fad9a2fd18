"""How many seeds and images a comparison needs, from the mean squares of a pilot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, nctdtr, stdtrit

from decoderbench.statistics.crossed import Components
from decoderbench.statistics.estimates import Shape, Spread, check_level

MOST_SEEDS = 2**20
"""A comparison that needs more seeds than this counts as one that no number of seeds resolves."""


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
    """Return half the width of the interval that a table with so many seeds and units is expected to have.

    An effect as large as this is found with a power of about one half.

    Raises:
        ValueError: the pilot has one seed or one unit per fold, or fewer than 2 seeds or units are asked for.
    """
    check_level(level)
    spread = expected_spread(pilot, seeds, units)
    return float(stdtrit(spread.df, 0.5 + level / 2) * np.sqrt(spread.variance))


def power(pilot: Components, effect: float, *, seeds: int, units: int, alpha: float = 0.05) -> float:
    """Return the probability that the two-sided t test at `alpha` finds a true difference of `effect`, with its sign.

    Raises:
        ValueError: as in `half_width`.
    """
    check_level(1 - alpha)
    variance, df = (float(part) for part in expected_spread(pilot, seeds, units))
    if variance == 0:
        return 1.0 if effect else alpha / 2
    noncentrality = abs(effect) / math.sqrt(variance)
    if noncentrality > 35:  # beyond this the noncentral t distribution underflows
        return 1.0
    return float(1 - nctdtr(df, noncentrality, stdtrit(df, 1 - alpha / 2)))


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
    expected_spread(pilot, 2, units)
    if not (pilot.seed or pilot.unit):
        raise ValueError("the rows of the pilot agree on every image, so their variation is not known")
    low, high = ((1 + sign * confidence) / 2 for sign in (-1, 1))

    def smallest(case: Components) -> int | None:
        return _smallest(lambda seeds: power(case, effect, seeds=seeds, units=units, alpha=alpha) >= target)

    seeds, *ends = map(smallest, (pilot, _at_quantile(pilot, low), _at_quantile(pilot, high)))
    ordered = sorted((seeds, *ends), key=lambda number: math.inf if number is None else number)
    return SeedsNeeded(seeds, ordered[0], ordered[2])  # less variation may leave fewer degrees of freedom


def expected_spread(pilot: Components, seeds: int, units: int) -> Spread:
    """Return variance and degrees of freedom that a table with so many seeds and units is expected to have."""
    if pilot.num_seeds < 2:
        raise ValueError("a pilot with one seed does not show how seeds vary; train at least two")
    if math.isnan(pilot.unit):
        raise ValueError("a pilot with one image, or one per fold, does not show how images vary")
    if seeds < 2 or units < 2:
        raise ValueError(f"a plan needs at least 2 seeds and 2 images, not {seeds} and {units}")
    sizes = np.array(pilot.fold_sizes, dtype=np.float64)
    planned = sizes * units / pilot.num_units
    between_seeds = max(pilot.seed - pilot.residual, 0) / ((sizes**2).sum() / sizes.sum())
    between_units = max(pilot.unit - pilot.residual, 0) / pilot.num_seeds
    shape = Shape(seeds, units, planned, step=math.nan)
    return shape.spread(
        np.array(between_seeds * (planned**2).sum() / planned.sum() + pilot.residual),
        np.array(between_units * seeds + pilot.residual),
        np.array(pilot.residual),
    )


def _at_quantile(pilot: Components, share: float) -> Components:
    """Return the mean squares that, if true, would leave those of the pilot with this share of chance above them."""
    shape = Shape(pilot.num_seeds, pilot.num_units, np.array(pilot.fold_sizes, dtype=np.float64), step=math.nan)
    return dataclasses.replace(
        pilot,
        seed=pilot.seed * shape.seed_df / float(chdtri(shape.seed_df, share)),
        unit=pilot.unit * shape.unit_df / float(chdtri(shape.unit_df, share)),
    )


def _smallest(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds, from 2, that is enough; None if none is."""
    if is_enough(2):
        return 2
    if not is_enough(MOST_SEEDS):
        return None
    too_few, enough = 2, MOST_SEEDS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough
