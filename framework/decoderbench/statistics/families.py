"""Many contrasts at once: those of one table, Holm's adjustment, and rows that are not shown to be worse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decoderbench.statistics.crossed import Squares, linearize, products
from decoderbench.statistics.estimates import Estimate, Shape, estimates
from decoderbench.statistics.moderation import Prior, fit_prior, moderate
from decoderbench.statistics.scores import Floats, Scores

ALPHA = 0.05
"""The share of tables without any difference in which some row may be called worse."""

ROUNDING = 1e-12
"""Relative to what is subtracted, differences below this are 0."""

LEAST_SQUARE = 0.05
"""A seed mean square counts in the prior as at least this part of the residual one, below which it is chance alone."""


class Contrast(NamedTuple):
    """A contrast of a family: its estimate, and its p value alone and over the family."""

    estimate: Estimate
    p: float
    p_holm: float


class Pair(NamedTuple):
    """The difference of rows a and b of a table, a - b, with its p value alone and over all pairs of the table."""

    a: int
    b: int
    estimate: Estimate
    p: float
    p_holm: float


def holm(p: ArrayLike) -> Floats:
    """Return p values adjusted by Holm's method (1979) over their family.

    NaN, a contrast that could not be tested, stays NaN and does not count.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return adjusted


def family(scores: Scores, weights: ArrayLike, *, level: float = 0.95) -> list[Contrast]:
    """Estimate contrasts that stand in one table, given by weights (P, V), as `contrast` does each.

    Three seeds say little about how seeds vary, and among many contrasts those are found whose variance is
    underestimated. Therefore rows stand for each other: the seed mean square of a contrast, if it is below what all
    pairs of rows of `scores` lead to expect, is raised towards that. Give all rows of the table, not only those that
    the weights need.

    Raises:
        ValueError: as in `contrast`.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(scores.numerator):
        raise ValueError(f"weights of {len(scores.numerator)} rows need as many columns, not the shape {matrix.shape}")
    if not np.isfinite(matrix).all() or not matrix.any(axis=1).all():
        raise ValueError("the weights of a contrast must be finite and not all of them 0")
    found: dict[int, Estimate] = {}
    prior = _prior(scores)
    num_rows = int(scores.present.any(axis=1).sum())
    for block in _blocks(scores, matrix):
        shape = block.shape
        size = (matrix[block.positions] ** 2).sum(axis=1)
        df = np.full(len(block.positions), shape.seed_df)
        seed, seed_df = moderate(block.squares.seed / size, df, prior, (num_rows - 1) * df)
        step = shape.step * np.abs(matrix[block.positions]).max(axis=1)
        limits, moderated = scores.limits(matrix[block.positions]), (seed * size, seed_df)
        parts = estimates(
            block.values, block.squares, shape, step=step, limits=limits, level=level, moderated=moderated
        )
        found.update(zip(block.positions, parts, strict=True))
    p = [found[index].p for index in range(len(matrix))]
    return [Contrast(found[index], p[index], adjusted) for index, adjusted in enumerate(holm(p).tolist())]


def all_pairs(scores: Scores, *, level: float = 0.95) -> list[Pair]:
    """Return the differences of all pairs of rows, ordered by a, then b: a family, each over the seeds that both have.

    Pairs without a common seed are left out and are not part of the family.
    """
    pairs = _pairs(scores)
    contrasts = family(scores, _weights(scores, pairs), level=level) if pairs else []
    return [Pair(a, b, *contrast) for (a, b), contrast in zip(pairs, contrasts, strict=True)]


def not_shown_to_be_worse(scores: Scores, *, higher_is_better: bool) -> NDArray[np.bool_]:
    """Return for each row, (V,), whether no row beats it with p at most .05, adjusted by Holm over all pairs.

    These rows are bold in a table. A row without any result is not.
    """
    has_result = np.asarray(scores.present.any(axis=1))
    return mark_bold(all_pairs(scores), has_result, higher_is_better=higher_is_better)


def mark_bold(pairs: list[Pair], has_result: NDArray[np.bool_], *, higher_is_better: bool) -> NDArray[np.bool_]:
    """Return `not_shown_to_be_worse` from pairs that are there already."""
    bold = has_result.copy()
    for pair in pairs:
        if pair.p_holm <= ALPHA:
            a_is_better = (pair.estimate.value > 0) == higher_is_better
            bold[pair.b if a_is_better else pair.a] = False
    return bold


class _Block(NamedTuple):
    """Contrasts over the same seeds: their positions, values and mean squares."""

    positions: list[int]
    values: Floats
    squares: Squares
    shape: Shape


def _blocks(scores: Scores, weights: Floats) -> Iterator[_Block]:
    """Estimate contrasts by products of rows, so that each table is read once and not once per contrast."""
    used = weights != 0
    common = ~(used @ ~scores.present)  # (P, S), whether all rows of a contrast have the seed
    if not common.any(axis=1).all():
        raise ValueError("the rows of a contrast must have a seed in common")
    by_seeds: dict[bytes, list[int]] = {}
    for index, seeds in enumerate(common):
        by_seeds.setdefault(seeds.tobytes(), []).append(index)
    for key, positions in by_seeds.items():
        rows = np.flatnonzero(used[positions].any(axis=0))
        seeds = np.flatnonzero(np.frombuffer(key, dtype=bool))
        values, tables = linearize(scores, rows, seeds)
        weight = weights[positions][:, rows]
        value = weight @ values
        value[np.abs(value) < ROUNDING * (np.abs(weight) @ np.abs(values))] = 0
        squares = []
        for product in products(tables, scores.unit_folds):
            square = (weight @ product * weight).sum(axis=1)
            largest = (np.abs(weight) @ np.sqrt(np.diag(product))) ** 2
            squares.append(np.where(square < ROUNDING * largest, 0, square))
        yield _Block(positions, value, Squares(*squares), Shape.of(scores, rows, seeds))


@lru_cache(maxsize=4)
def _prior(scores: Scores) -> Prior:
    """Fit a prior to the seed mean squares of all pairs of rows, for a contrast whose squared weights sum to 1."""
    pairs = [(a, b) for a, b in _pairs(scores) if (scores.present[a] & scores.present[b]).sum() > 1]
    if not pairs:
        return fit_prior(np.empty(0), np.empty(0))
    blocks = list(_blocks(scores, _weights(scores, pairs)))
    squares = np.concatenate([np.maximum(each.squares.seed, LEAST_SQUARE * each.squares.residual) for each in blocks])
    df = np.concatenate([np.full(len(each.positions), each.shape.seed_df) for each in blocks])
    varies = squares > 0  # False for NaN too
    return fit_prior(squares[varies] / 2, df[varies])


def _pairs(scores: Scores) -> list[tuple[int, int]]:
    present = scores.present
    return [(a, b) for a, b in combinations(range(len(present)), 2) if (present[a] & present[b]).any()]


def _weights(scores: Scores, pairs: list[tuple[int, int]]) -> Floats:
    weights = np.zeros((len(pairs), len(scores.numerator)))
    a, b = np.array(pairs).T
    weights[np.arange(len(pairs)), a], weights[np.arange(len(pairs)), b] = 1, -1
    return weights
