"""The estimator of seeds x images, against brute force and scipy, and its stated answers where data are few."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from decoderbench.statistics import Estimate, Scores, contrast, family, not_shown_to_be_worse, row

Floats = NDArray[np.float64]


def draw(shape: tuple[int, int, int], seed: int, *, accuracy: float = 0.6) -> Floats:
    """Right or wrong, with effects of seeds and images."""
    rng = np.random.default_rng(seed)
    rows, seeds, images = shape
    effects = rng.normal(0, 0.3, (rows, seeds, 1)) + rng.normal(0, 1.5, (rows, 1, images))
    return (rng.logistic(size=shape) < effects + math.log(accuracy / (1 - accuracy))).astype(np.float64)


def brute(z: Floats, folds: NDArray[np.intp], level: float = 0.95) -> dict[str, float]:
    """The estimator cell by cell, without linear algebra."""
    num_seeds, num_units = z.shape
    labels = sorted(set(folds.tolist()))
    a = b = r = 0.0
    for fold in labels:
        part = z[:, folds == fold]
        size = part.shape[1]
        seed_means = [part[s].mean() for s in range(num_seeds)]
        unit_means = [part[:, i].mean() for i in range(size)]
        mean = part.mean()
        a += size**2 / num_units * np.var(seed_means, ddof=1)
        b += num_seeds * sum((m - mean) ** 2 for m in unit_means)
        for s, i in itertools.product(range(num_seeds), range(size)):
            r += (part[s, i] - seed_means[s] - unit_means[i] + mean) ** 2
    unit_df = num_units - len(labels)
    sizes = np.array([(folds == fold).sum() for fold in labels], dtype=float)
    seed_df = (num_seeds - 1) * (sizes**2).sum() ** 2 / (sizes**4).sum()
    b, r = b / unit_df, r / ((num_seeds - 1) * unit_df)
    total = max(a + b - r, a, b)
    parts = a**2 / seed_df + b**2 / unit_df + r**2 / ((num_seeds - 1) * unit_df)
    smaller = min(seed_df, unit_df)
    variance, df = total / (num_seeds * num_units), smaller if a > b else max(total**2 / parts, smaller)
    half = stats.t.ppf(0.5 + level / 2, df) * math.sqrt(variance)
    value = z.mean()
    p = 2 * stats.t.sf(abs(value) / math.sqrt(variance), df)
    return {"value": value, "low": value - half, "high": value + half, "variance": variance, "df": df, "p": p}


def agrees(estimate: Estimate, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert getattr(estimate, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name


shapes = st.tuples(st.integers(2, 4), st.integers(2, 5), st.integers(8, 24))


@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 10**6), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_contrast_agrees_with_brute_force(shape: tuple[int, int, int], seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    y, weights = rng.normal(size=shape), rng.choice([-1.0, 0.5, 1.0], shape[0])
    z = np.tensordot(weights, y, 1)
    estimate = contrast(Scores(y, np.ones(shape[2])), weights, level=level)
    agrees(estimate, brute(z, np.zeros(shape[2], dtype=np.intp), level))
    assert estimate.components.residual == pytest.approx(brute_residual(z))


def brute_residual(z: Floats) -> float:
    centered = z - z.mean(axis=1, keepdims=True) - z.mean(axis=0) + z.mean()
    return float((centered**2).sum() / ((z.shape[0] - 1) * (z.shape[1] - 1)))


@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 10**6), num_folds=st.integers(1, 3))
def test_ratio_with_groups_and_folds_agrees_with_brute_force(
    shape: tuple[int, int, int], seed: int, num_folds: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, shape[2]).astype(float)
    edits = rng.binomial(lengths.astype(int), 0.3, shape).astype(float) + rng.random(shape)
    groups = rng.permutation(np.arange(shape[2]) // 2)
    folds = (groups % num_folds) + 7
    scores = Scores(edits, lengths, groups, folds)
    num_groups = groups.max() + 1
    grouped = np.stack([edits[..., groups == g].sum(-1) for g in range(num_groups)], axis=-1)
    length = np.array([lengths[groups == g].sum() for g in range(num_groups)])
    tables = []
    for each in grouped[:2]:
        ratio = each.sum() / (shape[1] * length.sum())
        tables.append((each - ratio * length) / length.mean() + ratio)
    weights = np.array([1.0, -1.0, *[0.0] * (shape[0] - 2)])
    expected = brute(tables[0] - tables[1], np.arange(num_groups) % num_folds)
    agrees(contrast(scores, weights), expected)
    estimate = row(scores, 0, proportion=False)
    expected = brute(tables[0], np.arange(num_groups) % num_folds)
    del expected["p"]
    expected["low"] = max(0.0, expected["low"])
    agrees(estimate, expected)
    assert math.isnan(estimate.p)
    assert estimate.value == pytest.approx(edits[0].sum() / (shape[1] * lengths.sum()))
    assert (estimate.images, estimate.units, estimate.seeds) == (shape[2], num_groups, shape[1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), wrong=st.integers(1, 30), level=st.sampled_from([0.9, 0.95]))
def test_proportion_has_wilsons_interval_of_the_effective_size(seed: int, wrong: int, level: float) -> None:
    y = np.ones((1, 3, 40))
    y[0].flat[np.random.default_rng(seed).choice(120, wrong, replace=False)] = 0
    estimate = row(Scores(y, np.ones(40)), 0, level=level, proportion=True)
    expected = brute(y[0], np.zeros(40, dtype=np.intp), level)
    p = y.mean()
    size = min(120, p * (1 - p) / expected["variance"])
    # Wilson: the values whose own standard error puts the estimate exactly t of them away
    quantile = stats.t.ppf(0.5 + level / 2, expected["df"])
    for end in (estimate.low, estimate.high):
        assert abs(p - end) == pytest.approx(quantile * math.sqrt(end * (1 - end) / size), rel=1e-6, abs=1e-9)
    assert 0 <= estimate.low < p < estimate.high <= 1


def test_wilson_of_independent_images_of_one_model_is_that_of_the_textbook() -> None:
    """One seed, n - 1 for n: the textbook's interval with t, as scipy gives it with z."""
    y = np.repeat([1.0, 0.0], [180, 20])
    estimate = row(Scores(y[None, None], np.ones(200)), 0, proportion=True)
    textbook = stats.binomtest(180, 200).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((textbook.low, textbook.high), abs=0.001)
    assert estimate.scope == "this trained model"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_proportion_of_0_or_1_has_as_many_trials_as_images(value: float) -> None:
    estimate = row(Scores(np.full((1, 3, 50), value), np.ones(50)), 0, proportion=True)
    reach = stats.t.ppf(0.975, 49) ** 2 / (50 + stats.t.ppf(0.975, 49) ** 2)
    assert estimate.value == value
    assert (estimate.low, estimate.high) == pytest.approx((0, reach) if value == 0 else (1 - reach, 1))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_proportion_of_0_or_1_has_as_many_trials_as_groups(value: float) -> None:
    groups = np.arange(50) // 10
    estimate = row(Scores(np.full((1, 3, 50), value), np.ones(50), groups), 0, proportion=True)
    reach = stats.t.ppf(0.975, 4) ** 2 / (5 + stats.t.ppf(0.975, 4) ** 2)
    assert estimate.high - estimate.low == pytest.approx(reach)


def test_partly_right_images_are_a_proportion_without_a_cap_on_their_number() -> None:
    rng = np.random.default_rng(3)
    y = rng.uniform(0.97, 0.99, (1, 3, 100))
    estimate = row(Scores(y, np.ones(100)), 0, proportion=True)
    assert estimate.high - estimate.low < 0.01


def test_cer_of_0_reaches_as_far_as_one_edit_in_images_that_were_not_seen() -> None:
    estimate = row(Scores(np.zeros((1, 3, 100)), np.full(100, 5.0)), 0, proportion=False)
    t2 = stats.t.ppf(0.975, 99) ** 2
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, pytest.approx(t2 / (100 + t2) / 5))


def test_rows_that_agree_everywhere_are_not_shown_to_be_equal() -> None:
    y = np.repeat(draw((1, 3, 80), 1), 2, axis=0)
    estimate = contrast(Scores(y, np.ones(80)), [1, -1])
    t2 = stats.t.ppf(0.975, 79) ** 2
    assert (estimate.value, estimate.p) == (0, 1)
    assert (estimate.low, estimate.high) == (pytest.approx(-t2 / (80 + t2)), pytest.approx(t2 / (80 + t2)))


def test_constant_difference_is_tested_on_the_number_of_images() -> None:
    y = np.stack([np.ones((3, 9)), np.zeros((3, 9))])
    estimate = contrast(Scores(y, np.ones(9)), [1, -1])
    assert estimate.value == 1
    assert estimate.p == pytest.approx(2 * stats.t.sf(3, 8))  # sqrt(9)
    y = np.stack([np.ones((3, 2)), np.zeros((3, 2))])
    assert contrast(Scores(y, np.ones(2)), [1, -1]).p > 0.3


def test_two_images_leave_one_degree_of_freedom() -> None:
    y = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    estimate = contrast(Scores(y, np.ones(2)), [1, -1])
    expected = brute(y[0] - y[1], np.zeros(2, dtype=np.intp))
    assert expected["high"] > 1
    agrees(estimate, expected | {"high": 1.0, "low": max(-1.0, expected["low"])})
    assert estimate.df >= 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_image_has_a_value_and_no_interval(seeds: int) -> None:
    y = np.ones((2, seeds, 1))
    y[1, 0] = 0
    scores = Scores(y, np.ones(1))
    for estimate in (contrast(scores, [1, -1]), row(scores, 0, proportion=True), row(scores, 1, proportion=False)):
        assert np.isfinite(estimate.value)
        assert all(math.isnan(x) for x in (estimate.low, estimate.high, estimate.variance, estimate.df, estimate.p))
    assert not_shown_to_be_worse(scores, higher_is_better=True).tolist() == [True, True]


def test_one_seed_speaks_of_this_trained_model() -> None:
    y = draw((2, 1, 60), 5)
    estimate = contrast(Scores(y, np.ones(60)), [1, -1])
    expected: Any = stats.ttest_rel(y[0, 0], y[1, 0])
    interval = expected.confidence_interval()
    assert (estimate.p, estimate.df) == pytest.approx((expected.pvalue, 59))
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert (estimate.scope, estimate.seeds) == ("this trained model", 1)


def test_missing_seeds_leave_the_common_ones() -> None:
    y = draw((3, 4, 30), 6)
    complete = contrast(Scores(y[:, [0, 3]], np.ones(30)), [1, -1, 0])
    y[0, 1], y[1, 2], y[2] = np.nan, np.nan, np.nan
    scores = Scores(y, np.ones(30))
    assert contrast(scores, [1, -1, 0]) == complete
    assert complete.seeds == 2
    assert row(scores, 0, proportion=True).seeds == 3
    with pytest.raises(ValueError, match="seed in common"):
        contrast(scores, [1, 0, -1])
    with pytest.raises(ValueError, match="row 2 has no result"):
        row(scores, 2, proportion=True)


def test_row_without_denominators_has_no_result() -> None:
    y, lengths = draw((2, 2, 10), 7), np.ones((2, 2, 10))
    y[1], lengths[1] = 0, 0  # a decoder that can spell no label
    assert Scores(y, lengths).present.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numerator": np.ones((2, 3))}, "rows, seeds and images"),
        ({"denominator": np.ones(9)}, "do not fit"),
        ({"denominator": -np.ones(10)}, "at least 0"),
        ({"numerator": np.where(np.arange(10) == 3, np.nan, np.ones((2, 3, 10)))}, "must be finite"),
        ({"groups": np.ones(9)}, "one code per image"),
        ({"groups": np.zeros(10), "folds": np.arange(10)}, "in one fold"),
    ],
)
def test_scores_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores(**{"numerator": np.ones((2, 3, 10)), "denominator": np.ones(10)} | change)


@pytest.mark.parametrize("weights", [[1], [0, 0], [1, np.nan], [[1, -1]]])
def test_weights_that_make_no_sense_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match="2 rows needs as many finite weights"):
        contrast(Scores(np.ones((2, 3, 10)), np.ones(10)), weights)


@pytest.mark.parametrize("weights", [[1, -1, 0, 0], [1, -1, -1, 1], [0.5, 0.5, -0.5, -0.5]])
def test_intervals_of_proportions_end_where_the_contrast_does(weights: list[float]) -> None:
    y = draw((4, 2, 3), 3)
    least, most = sum(min(each, 0) for each in weights), sum(max(each, 0) for each in weights)
    as_shares, as_numbers = Scores(y, np.ones(3)), Scores(7 * y, np.full(3, 7.0))
    shown, unlimited = contrast(as_shares, weights, level=0.9999), contrast(as_numbers, weights, level=0.9999)
    assert unlimited.low < least
    assert unlimited.high > most
    assert (shown.low, shown.high) == (least, most)
    (found,) = family(as_shares, [weights], level=0.9999)
    assert (found.estimate.low, found.estimate.high) == (least, most)


def test_value_above_1_is_no_proportion() -> None:
    with pytest.raises(ValueError, match="no proportion"):
        row(Scores(np.full((1, 2, 10), 2.0), np.ones(10)), 0, proportion=True)
    with pytest.raises(ValueError, match="confidence level"):
        row(Scores(np.ones((1, 2, 10)), np.ones(10)), 0, level=95, proportion=True)
