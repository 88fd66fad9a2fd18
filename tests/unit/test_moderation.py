"""The prior of seed mean squares, and what it makes of those below it."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma

from decoderbench.statistics.moderation import Prior, fit_prior, moderate


@pytest.mark.parametrize(("square", "prior_df"), [(1.0, 4.0), (0.01, 10.0), (50.0, 3.0)])
def test_prior_of_scaled_f_distributed_squares_is_found_again(square: float, prior_df: float) -> None:
    df = np.full(20_000, 4.0)
    squares = square * stats.f(4, prior_df).rvs(len(df), random_state=0)
    prior = fit_prior(squares, df)
    assert prior.square == pytest.approx(square, rel=0.05)
    assert prior.df == pytest.approx(prior_df, rel=0.1)


def test_squares_that_differ_by_chance_alone_have_a_prior_of_many_degrees_of_freedom() -> None:
    squares = 3 * stats.chi2(2).rvs(20_000, random_state=1) / 2
    prior = fit_prior(squares, np.full(20_000, 2.0))
    assert prior.square == pytest.approx(3, rel=0.05)
    assert prior.df > 50
    assert fit_prior(np.ones(5), np.full(5, 2.0)).df == np.inf


def test_moments_of_the_prior_are_those_of_the_logarithms() -> None:
    squares, df = np.array([0.1, 1.0, 30.0, 2.0]), np.array([2.0, 2.0, 2.0, 4.0])
    prior = fit_prior(squares, df)
    logs = np.log(squares) - polygamma(0, df / 2) + np.log(df / 2)
    assert polygamma(1, prior.df / 2) == pytest.approx(logs.var(ddof=1) - polygamma(1, df / 2).mean())
    assert np.log(prior.square) == pytest.approx(logs.mean() + polygamma(0, prior.df / 2) - np.log(prior.df / 2))


def test_two_squares_make_no_prior() -> None:
    prior = fit_prior(np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    squares, df = moderate(np.array([0.5]), np.array([2.0]), prior, np.array([10.0]))
    assert (squares.tolist(), df.tolist()) == ([0.5], [2.0])


@pytest.mark.parametrize(
    ("prior_df", "expected", "expected_df"), [(6.0, 0.8, 8.0), (np.inf, 1.0, 22.0), (198.0, 0.992, 22.0)]
)
def test_squares_are_raised_towards_the_prior_and_never_lowered(
    prior_df: float, expected: float, expected_df: float
) -> None:
    squares, df = moderate(np.array([0.2, 5.0, np.nan]), np.full(3, 2.0), Prior(1.0, prior_df), np.full(3, 22.0))
    assert squares == pytest.approx([expected, 5.0, np.nan], nan_ok=True)
    assert df == pytest.approx([expected_df, 2.0, 2.0])
