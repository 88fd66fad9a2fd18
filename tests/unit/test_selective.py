"""Which texts are kept so that few of them are wrong: exact where it can be computed, and valid over repeated draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from decoderbench.statistics import images_needed, keep_confident


@pytest.mark.parametrize(("risk", "images"), [(0.01, 299), (0.05, 59), (0.1, 29), (0.5, 5)])
def test_images_needed_is_the_least_number_whose_tail_is_below_5_percent(risk: float, images: int) -> None:
    assert images_needed(risk) == images
    assert (1 - risk) ** images <= 0.05 < (1 - risk) ** (images - 1)


def test_keeps_all_images_if_all_are_right_and_none_if_they_are_too_few() -> None:
    log_prob = -np.arange(299, dtype=float)
    kept = keep_confident(log_prob, np.ones(299, dtype=bool), 0.01)
    assert kept is not None
    assert (kept.images, kept.wrong, kept.least) == (299, 0, -298)
    assert kept.bound == pytest.approx(1 - 0.05 ** (1 / 299))
    assert keep_confident(log_prob[:298], np.ones(298, dtype=bool), 0.01) is None


def test_ends_before_the_unsure_images_that_are_wrong() -> None:
    right = np.arange(1000) < 700  # the 300 with the least confidence are wrong
    kept = keep_confident(-np.arange(1000, dtype=float), right, 0.02)
    assert kept is not None
    assert kept.images < 720
    assert binom.cdf(kept.wrong, kept.images, 0.02) <= 0.05 < binom.cdf(kept.wrong + 1, kept.images + 1, 0.02)
    assert binom.cdf(kept.wrong, kept.images, kept.bound) == pytest.approx(0.05)


def test_keeps_none_if_sure_images_are_wrong() -> None:
    assert keep_confident(-np.arange(1000, dtype=float), np.arange(1000) >= 300, 0.02) is None


@given(st.lists(st.tuples(st.integers(-4, 0), st.booleans()), min_size=60, max_size=120), st.randoms())
def test_images_of_equal_confidence_stay_together_in_any_order(images: list[tuple[int, bool]], random: object) -> None:
    log_prob = np.array([number for number, _ in images], dtype=float)
    right = np.array([flag for _, flag in images])
    kept = keep_confident(log_prob, right, 0.6)
    shuffled = np.random.default_rng(0).permutation(len(images))
    assert keep_confident(log_prob[shuffled], right[shuffled], 0.6) == kept
    if kept is not None:
        above = log_prob >= kept.least
        assert (kept.images, kept.wrong) == (above.sum(), (above & ~right).sum())


def test_of_new_images_above_the_threshold_more_than_the_risk_are_wrong_in_5_percent_of_draws_at_most() -> None:
    generator, risk = np.random.default_rng(1), 0.05
    broken = 0
    for _ in range(2000):
        log_prob = np.log(generator.uniform(size=300))
        kept = keep_confident(log_prob, generator.uniform(size=300) < np.exp(log_prob) ** 0.15, risk)
        if kept is not None:
            least = np.exp(kept.least)  # the mean of 1 - u^.15 over u from `least` to 1
            rate = 1 - (1 - least**1.15) / (1.15 * (1 - least))
            broken += rate > risk
    assert 0 < broken <= 0.05 * 2000
