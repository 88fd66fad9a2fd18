"""Mean squares of the crossed design: seeds x images, both random, and their products between rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from decoderbench.statistics.scores import Floats, Integers, Scores


@dataclass(frozen=True)
class Components:
    """Mean squares of a table of seeds x units, and how many there are. Units are images, or groups of images.

    Attributes:
        seed: N times the variance of the means of seeds. NaN for one seed.
        unit: S times the variance of the means of units; for one seed, the variance over units. NaN if no fold has
            two units.
        residual: the mean square that neither explains. NaN if `seed` or `unit` is.
        num_seeds: S.
        num_units: N, the number of independent images or groups.
        fold_sizes: units per fold; one entry for one split.
    """

    seed: float
    unit: float
    residual: float
    num_seeds: int
    num_units: int
    fold_sizes: tuple[int, ...]


class Squares(NamedTuple):
    """Mean squares as in `Components`: arrays of one shape.

    With products instead of squares they are three symmetric (V, V) matrices, and the mean squares of a contrast with
    weights c are c' seed c, c' unit c and c' residual c.
    """

    seed: Floats
    unit: Floats
    residual: Floats


def linearize(scores: Scores, rows: Integers, seeds: Integers) -> tuple[Floats, Floats]:
    """Return the values of rows, (V,), and tables (V, S, G) whose means over units are the values of the seeds.

    A ratio is linearized at the row's value: value + (numerator - value * denominator) / mean denominator. Where all
    denominators are 1 this is the numerator.
    """
    numerator, denominator = scores.units(rows, seeds)
    mean_denominator = denominator.mean(axis=2, keepdims=True)
    values = (numerator.sum(axis=2) / denominator.sum(axis=2)).mean(axis=1)
    center = values[:, None, None]
    return values, center + (numerator - center * denominator) / mean_denominator


def products(tables: Floats, folds: Integers) -> Squares:
    """Return the mean products of tables (V, S, G) within folds (G,).

    One fold gives section 2 of Searle, Casella and McCulloch's two-way layout without replication: A = N var of the
    means of seeds, B = S var of the means of units, R = residual. With folds, A is the mean over folds, weighted by the
    squares of their sizes, and B and R are pooled within folds.
    """
    num_seeds, num_units = tables.shape[1:]
    sizes = np.bincount(folds).astype(np.float64)
    within = num_units - len(sizes)
    belongs = np.zeros((num_units, len(sizes)))
    belongs[np.arange(num_units), folds] = 1
    models = tables @ belongs / sizes  # (V, S, K), the mean of each trained model
    units = tables.mean(axis=1)
    seed = (models - models.mean(axis=1, keepdims=True)) * sizes / np.sqrt(num_units)
    unit = units - models.mean(axis=1)[:, folds]
    residual = tables - models[:, :, folds] - unit[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: nothing to estimate it from
        return Squares(
            _gram(seed) / np.float64(num_seeds - 1),
            _gram(unit) * num_seeds / np.float64(within),
            _gram(residual) / np.float64((num_seeds - 1) * within),
        )


def _gram(deviations: Floats) -> Floats:
    flat = deviations.reshape(len(deviations), -1)
    return flat @ flat.T
