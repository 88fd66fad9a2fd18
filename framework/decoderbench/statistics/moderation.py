"""What the rows of a table together say of the variation between seeds, of which each alone knows little."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import digamma, polygamma

from decoderbench.statistics.scores import Floats


class Prior(NamedTuple):
    """A scaled inverse chi-squared distribution of seed mean squares.

    Attributes:
        square: the mean square that the table leads to expect.
        df: the degrees of freedom that it is worth: infinite where all mean squares differ as by chance only, and near
            0 where each is its own.
    """

    square: float
    df: float


def fit_prior(squares: Floats, df: Floats) -> Prior:
    """Fit a prior to mean squares with chi-squared distributions, by the moments of their logarithms (Smyth 2004).

    Args:
        squares: (P,), positive.
        df: (P,), degrees of freedom of each.

    Returns:
        A prior worth nothing for fewer than three mean squares.
    """
    if len(squares) < 3:
        return Prior(0.0, 0.0)
    logs = np.log(squares) - digamma(df / 2) + np.log(df / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, df / 2).mean())
    if excess <= 0:
        return Prior(float(np.exp(logs.mean())), np.inf)
    prior_df = 2 * _inverse_trigamma(excess)
    return Prior(float(np.exp(logs.mean() + digamma(prior_df / 2) - np.log(prior_df / 2))), prior_df)


def moderate(squares: Floats, df: Floats, prior: Prior, largest_df: Floats) -> tuple[Floats, Floats]:
    """Raise mean squares that are below the prior's towards it, and return them with their degrees of freedom.

    None is lowered: a row that varies more than the others is not said to vary as they do.
    """
    with np.errstate(invalid="ignore"):
        weight = 1 / (1 + df / prior.df) if prior.df else np.zeros_like(df)
        raised = squares < prior.square
        moderated = weight * prior.square + (1 - weight) * squares
        moderated_df = np.maximum(np.minimum(prior.df + df, largest_df), df)
    return np.where(raised, moderated, squares), np.where(raised, moderated_df, df)


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value, by Newton's method on 1 / trigamma, which is nearly linear."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x
