"""Simulated tables whose truth is known: rows x seeds x images, right or wrong by a logistic model.

The logit of a right answer is a constant of the row, plus normal effects of the seed (half of its variance shared by
all rows), of the image or its group, of the row on the image, and of chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from decoderbench.statistics import Scores

Floats = NDArray[np.float64]

IMAGE_SD, ROW_IMAGE_SD, CHANCE_SD = 2.5, 1.0, 1.0
"""Standard deviations of the effects of images, of rows on images, and of chance."""

LOGITS = {"0.5": 0.0, "0.81": 3.0, "0.94": 5.4, "0.99": 7.6, "0.999": 10.5}
"""Constants that make these accuracies, about, where the seeds' standard deviation is .4."""

STEP = 0.5
"""Added to the logit of the second row of a pair."""

LONGEST = 10
"""Characters of the longest text; texts of 1 to 10 are equally many."""

POINTS, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class Grid:
    """What a simulated table is like.

    Attributes:
        logits: the constant of each row.
        seeds, images: how many.
        seed_sd: standard deviation of the effect of seeds; one for each row, or one for all.
        group_size: images per group on average; sizes vary where it is above 1.
        folds: models per seed, each tested on its own images; 1 for one split.
        sizes: how folds share the images; None for equal parts.
        characters: whether the metric is the error rate of characters instead of exact match.
    """

    logits: tuple[float, ...]
    seeds: int
    images: int
    seed_sd: tuple[float, ...] | float = 0.4
    group_size: int = 1
    folds: int = 1
    sizes: tuple[float, ...] | None = None
    characters: bool = False

    @property
    def sds(self) -> Floats:
        """(V,), the standard deviation of the effect of seeds on each row."""
        return np.broadcast_to(np.asarray(self.seed_sd, dtype=float), (len(self.logits),))

    def truth(self, row: int) -> float:
        """Return what the mean over all seeds and images would be."""
        right = expected_accuracy(self.logits[row], float(self.sds[row]))
        return 1 - right if self.characters else right


@lru_cache(maxsize=1000)
def expected_accuracy(logit: float, seed_sd: float = 0.0) -> float:
    """Return the mean over images, rows on images, chance and seeds, by Gauss-Hermite quadrature."""
    sd = np.sqrt(seed_sd**2 + IMAGE_SD**2 + ROW_IMAGE_SD**2 + CHANCE_SD**2)
    return float(expit(logit + sd * POINTS) @ WEIGHTS / WEIGHTS.sum())


def draw(grid: Grid, rng: np.random.Generator) -> tuple[Scores, Floats]:
    """Return the scores of a table, and the constants of its models, (V, S, K): those of rows plus effects of seeds."""
    rows, shape = len(grid.logits), (len(grid.logits), grid.seeds, grid.images)
    folds = _fold_of_images(grid)
    own = rng.normal(0, 1, (rows, grid.seeds, grid.folds))
    shared = rng.normal(0, 1, (grid.seeds, grid.folds))
    of_seed = grid.sds[:, None, None] * (own + shared) / np.sqrt(2)
    groups = _group_of_images(grid, folds, rng)
    hard = np.sqrt(0.5) if grid.group_size > 1 else 0.0  # half of an image's difficulty is its group's
    difficulty = hard * rng.normal(0, IMAGE_SD, grid.images)[groups] + np.sqrt(1 - hard**2) * rng.normal(
        0, IMAGE_SD, grid.images
    )
    constants = np.asarray(grid.logits)[:, None, None] + of_seed
    of_image = difficulty + rng.normal(0, ROW_IMAGE_SD, (rows, 1, grid.images))
    logit = (constants[:, :, folds] + of_image).astype(np.float32)
    logit += rng.standard_normal(shape, dtype=np.float32) * np.float32(CHANCE_SD)
    right = expit(logit)
    if grid.characters:
        lengths = rng.integers(1, LONGEST + 1, grid.images)
        numerator, denominator = rng.binomial(lengths, 1 - right).astype(float), lengths.astype(float)
    else:
        numerator, denominator = (rng.random(shape, dtype=np.float32) < right).astype(float), np.ones(grid.images)
    scores = Scores(
        numerator,
        denominator,
        groups=groups if grid.group_size > 1 else None,
        folds=folds if grid.folds > 1 else None,
    )
    return scores, constants


def _fold_of_images(grid: Grid) -> NDArray[np.intp]:
    sizes = grid.sizes or (1,) * grid.folds
    ends = np.round(np.cumsum(sizes) / sum(sizes) * grid.images)
    return np.searchsorted(ends, np.arange(grid.images), side="right")


def _group_of_images(grid: Grid, folds: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Deal the images of each fold to groups of different sizes."""
    if grid.group_size == 1:
        return np.arange(grid.images)
    number = grid.images // grid.group_size
    groups = np.sort(rng.choice(number, grid.images, p=_uneven(number)))
    return np.unique(groups * grid.folds + folds, return_inverse=True)[1]


def _uneven(number: int) -> Floats:
    weights = np.linspace(0.5, 1.5, number)
    return weights / weights.sum()
