"""Many contrasts at once: Holm's adjustment, all pairs of a table, and rows that are not shown to be worse."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decoderbench.statistics.crossed import linearize, products
from decoderbench.statistics.estimates import Estimate, Shape, estimates
from decoderbench.statistics.scores import Floats, Scores

ALPHA = 0.05
"""The share of tables without any difference in which some row may be called worse."""


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


def all_pairs(scores: Scores, *, level: float = 0.95) -> list[Pair]:
    """Return the differences of all pairs of rows, ordered by a, then b, each over the seeds that both rows have.

    Pairs without a common seed are left out and are not part of the family.
    """
    by_seeds: dict[bytes, list[tuple[int, int]]] = {}
    present = scores.present
    for a, b in combinations(range(len(present)), 2):
        if (common := present[a] & present[b]).any():
            by_seeds.setdefault(common.tobytes(), []).append((a, b))
    found: dict[tuple[int, int], Estimate] = {}
    for key, pairs in by_seeds.items():
        seeds = np.frombuffer(key, dtype=bool)
        found.update(zip(pairs, _differences(scores, pairs, seeds, level), strict=True))
    ordered = sorted(found)
    p = [found[pair].p for pair in ordered]
    return [
        Pair(*pair, found[pair], plain, adjusted)
        for pair, plain, adjusted in zip(ordered, p, holm(p).tolist(), strict=True)
    ]


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


def _differences(
    scores: Scores, pairs: list[tuple[int, int]], seeds: NDArray[np.bool_], level: float
) -> list[Estimate]:
    """Estimate pairs with the same seeds by products of rows, so that each table is read once and not once per pair."""
    rows, position = np.unique(np.array(pairs), return_inverse=True)
    a, b = position.reshape(-1, 2).T
    chosen = np.flatnonzero(seeds)
    values, tables = linearize(scores, rows, chosen)
    squares = []
    for product in products(tables, scores.unit_folds):
        own = np.diag(product)
        both = own[a] + own[b]
        difference = both - 2 * product[a, b]
        squares.append(np.where(difference < 1e-12 * both, 0, difference))  # what rounding leaves of equal rows
    difference = values[a] - values[b]
    difference = np.where(np.abs(difference) < 1e-13 * np.maximum(np.abs(values[a]), np.abs(values[b])), 0, difference)
    shape = Shape.of(scores, rows, chosen)
    return estimates(difference, *squares, shape=shape, step=np.full(len(pairs), shape.step), level=level)
