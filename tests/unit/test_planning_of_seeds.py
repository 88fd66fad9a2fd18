"""How many seeds and images a comparison needs, from a pilot."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decoderbench.statistics import Components, Scores, contrast, half_width, power, seeds_needed

PILOT = Components(seed=0.5, unit=0.4, residual=0.1, num_seeds=3, num_units=500, fold_sizes=(500,))


def simulated(between_seeds: float, between_units: float, residual: float, seeds: int, units: int, seed: int) -> Scores:
    """A table of differences with known components."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, math.sqrt(residual), (1, seeds, units))
    z += rng.normal(0, math.sqrt(between_seeds), (seeds, 1)) + rng.normal(0, math.sqrt(between_units), units)
    return Scores(z, np.ones(units))


def pilot_of(scores: Scores) -> Components:
    return contrast(scores, [1]).components


@pytest.mark.parametrize("folds", [1, 5])
def test_half_width_at_the_pilots_own_size_is_that_of_its_interval(folds: int) -> None:
    scores = simulated(0.1, 1, 0.5, 4, 60, 0)
    scores = Scores(scores.numerator, scores.denominator, folds=np.arange(60) % folds)
    estimate = contrast(scores, [1])
    width = half_width(estimate.components, seeds=4, units=60)
    assert width == pytest.approx((estimate.high - estimate.low) / 2)
    assert half_width(estimate.components, seeds=8, units=60) < width
    assert half_width(estimate.components, seeds=4, units=120) < width
    assert half_width(estimate.components, seeds=4, units=60, level=0.99) > width


@pytest.mark.parametrize(("seeds", "units"), [(3, 50), (5, 200), (20, 50)])
@pytest.mark.parametrize("factor", ["seed", "unit"])
def test_power_of_one_random_factor_is_the_noncentral_t_distribution(factor: str, seeds: int, units: int) -> None:
    """Where only seeds vary, or only images, the test is the textbook's."""
    pilot = dataclasses.replace(PILOT, **{"seed": 0.0, "unit": 0.0, "residual": 0.0, factor: 3.0})  # type: ignore[arg-type]
    variance = 3 / 500 / seeds if factor == "seed" else 3 / 3 / units
    df = (seeds if factor == "seed" else units) - 1
    for effect in (0.05, 0.2, 0.4):
        expected = stats.nct.sf(stats.t.ppf(0.975, df), df, effect / math.sqrt(variance))
        assert power(pilot, effect, seeds=seeds, units=units) == pytest.approx(expected, abs=0.01)
        assert power(pilot, -effect, seeds=seeds, units=units) == power(pilot, effect, seeds=seeds, units=units)


def test_power_is_how_often_simulated_tables_find_the_effect() -> None:
    truth = Components(
        seed=0.02 * 60 + 0.5, unit=0.3 * 5 + 0.5, residual=0.5, num_seeds=5, num_units=60, fold_sizes=(60,)
    )
    found = 0
    for seed in range(500):
        scores = simulated(0.02, 0.3, 0.5, 5, 60, seed)
        estimate = contrast(Scores(scores.numerator + 0.3, scores.denominator), [1])
        found += estimate.p <= 0.05 and estimate.value > 0
    assert found / 500 == pytest.approx(power(truth, 0.3, seeds=5, units=60), abs=0.06)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 0.3), st.integers(10, 5000))
def test_seeds_needed_are_the_fewest_that_reach_the_power(effect: float, units: int) -> None:
    needed = seeds_needed(PILOT, effect, units=units).seeds
    if needed is None:
        assert power(PILOT, effect, seeds=2**20, units=units) < 0.8
        return
    assert power(PILOT, effect, seeds=needed, units=units) >= 0.8
    assert needed == 2 or power(PILOT, effect, seeds=needed - 1, units=units) < 0.8


def test_no_number_of_seeds_replaces_images() -> None:
    noisy_images = dataclasses.replace(PILOT, unit=3.1)
    assert seeds_needed(noisy_images, 0.05, units=200).seeds is None
    assert seeds_needed(noisy_images, 0.05, units=20_000).seeds is not None


def test_range_covers_the_number_that_the_true_components_need() -> None:
    truth = Components(
        seed=0.02 * 60 + 0.5, unit=0.05 * 3 + 0.5, residual=0.5, num_seeds=3, num_units=60, fold_sizes=(60,)
    )
    needed = seeds_needed(truth, 0.3, units=60).seeds
    assert needed is not None
    covered = narrow = 0
    for seed in range(30):
        each = seeds_needed(pilot_of(simulated(0.02, 0.05, 0.5, 3, 60, seed)), 0.3, units=60)
        assert each.low is not None
        assert each.low <= (each.seeds or math.inf) <= (each.high or math.inf)
        covered += each.low <= needed <= (each.high or math.inf)
        narrow += (each.high or math.inf) < 1000
    assert covered >= 22
    assert narrow >= 15  # else the range would say nothing


def test_pilot_with_more_seeds_leaves_a_narrower_range() -> None:
    few = seeds_needed(PILOT, 0.05, units=500)
    more = seeds_needed(
        dataclasses.replace(PILOT, num_seeds=12, unit=(0.4 - 0.1) / 3 * 12 + 0.1), 0.05, units=500
    )  # the same components
    assert few.seeds == more.seeds
    assert few.low is not None
    assert more.low is not None
    assert few.high is not None
    assert more.high is not None
    assert few.low < more.low < more.high < few.high


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"num_seeds": 1, "seed": math.nan, "residual": math.nan}, {}, "pilot with one seed"),
        ({"unit": math.nan, "residual": math.nan}, {}, "pilot with one image"),
        ({"seed": 0.0, "unit": 0.0, "residual": 0.0}, {}, "agree on every image"),
        ({}, {"effect": 0.0}, "other than 0"),
        ({}, {"effect": math.nan}, "other than 0"),
        ({}, {"units": 1}, "at least 2 seeds and 2 images"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(
    change: dict[str, float], arguments: dict[str, float], message: str
) -> None:
    options = {"effect": 0.1, "units": 100} | arguments
    with pytest.raises(ValueError, match=message):
        seeds_needed(dataclasses.replace(PILOT, **change), options["effect"], units=int(options["units"]))  # type: ignore[arg-type]
