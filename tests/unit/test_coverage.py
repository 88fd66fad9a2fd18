"""Intervals cover a known truth as often as they say, in a small sample of `benchmarks/coverage.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from simulated_grids import LOGITS, STEP, Grid, draw, expected_accuracy

from decoderbench.statistics import all_pairs, contrast, holm, row


def naive_covers(scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]], truth: float) -> bool:
    """The t interval over the means of seeds, which speaks of the same images only."""
    means = scores.mean(axis=1)
    half = stdtrit(len(means) - 1, 0.975) * means.std(ddof=1) / math.sqrt(len(means))
    return bool(abs(means.mean() - truth) <= half)


def test_truth_of_a_grid_is_the_mean_of_many_tables() -> None:
    grid = Grid((LOGITS["0.81"],), 5, 200, seed_sd=0.8, group_size=4)
    rng = np.random.default_rng(0)
    means = [draw(grid, rng)[0].numerator.mean() for _ in range(300)]
    assert np.mean(means) == pytest.approx(grid.truth(0), abs=3 * np.std(means) / math.sqrt(300))
    assert expected_accuracy(0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("folds", [1, 5])
def test_differences_cover_where_the_interval_over_seeds_does_not(folds: int) -> None:
    grid = Grid((LOGITS["0.94"], LOGITS["0.94"] + STEP), 10, 200, seed_sd=0.1, folds=folds)
    truth = grid.truth(1) - grid.truth(0)
    rng = np.random.default_rng(1)
    ours = naive = 0
    for _ in range(200):
        scores, _ = draw(grid, rng)
        estimate = contrast(scores, [-1, 1])
        ours += estimate.low <= truth <= estimate.high
        naive += naive_covers(scores.numerator[1] - scores.numerator[0], truth)
    assert 0.92 <= ours / 200 <= 0.99
    assert naive / 200 < 0.91


@pytest.mark.parametrize(("accuracy", "seeds"), [("0.5", 3), ("0.94", 5), ("0.999", 3)])
def test_rows_cover_also_near_1_where_the_normal_interval_does_not(accuracy: str, seeds: int) -> None:
    grid = Grid((LOGITS[accuracy],), seeds, 200)
    rng = np.random.default_rng(2)
    wilson = normal = 0
    for _ in range(200):
        scores, _ = draw(grid, rng)
        estimate, plain = row(scores, 0, proportion=True), contrast(scores, [1])
        wilson += estimate.low <= grid.truth(0) <= estimate.high
        half = stdtrit(plain.df, 0.975) * math.sqrt(plain.variance) if plain.value < 1 else 0
        normal += abs(plain.value - grid.truth(0)) <= half
    assert wilson / 200 >= 0.91
    if accuracy == "0.999":
        assert normal / 200 < 0.9


def test_groups_as_units_cover_where_images_as_units_do_not() -> None:
    grid = Grid((LOGITS["0.81"],), 3, 400, group_size=10, seed_sd=0.1)
    rng = np.random.default_rng(3)
    grouped = images = 0
    for _ in range(150):
        scores, _ = draw(grid, rng)
        for alone in (False, True):
            chosen = type(scores)(scores.numerator, scores.denominator, None if alone else scores.groups)
            estimate = row(chosen, 0, proportion=True)
            covers = estimate.low <= grid.truth(0) <= estimate.high
            images, grouped = images + (covers and alone), grouped + (covers and not alone)
    assert grouped / 150 >= 0.91
    assert images / 150 < 0.85


def test_equal_rows_are_rarely_called_worse_where_each_pair_alone_is_tested() -> None:
    """12 equal rows, 3 seeds: the family of all pairs, and the same contrasts one by one."""
    grid = Grid((LOGITS["0.81"],) * 12, 3, 300, seed_sd=0.8)
    rng = np.random.default_rng(4)
    together = alone = 0
    for _ in range(20):
        scores, _ = draw(grid, rng)
        pairs = all_pairs(scores)
        together += any(pair.p_holm <= 0.05 for pair in pairs)
        weights = np.zeros((len(pairs), 12))
        for line, pair in zip(weights, pairs, strict=True):
            line[pair.a], line[pair.b] = 1, -1
        alone += bool((holm([contrast(scores, line).p for line in weights]) <= 0.05).any())
    assert together <= 2
    assert alone >= 5
