"""The scores of rows on the same images, and the units that count as independent: images, or groups of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of all rows of a table, for V rows, S seeds and N images that every row was tested on.

    A model's value is sum(numerator) / sum(denominator) over its images; a row's value is the mean over its seeds.

    Attributes:
        numerator: (V, S, N). All of [v, s] is NaN where row v has no result for seed s.
        denominator: broadcast to (V, S, N), at least 0. 1 per image for exact match, characters for CER. A row whose
            denominators sum to 0 for a seed has no result for it.
        groups: (N,), codes of the photograph, page or writer of each image, whose images are not independent. None:
            every image is independent.
        folds: (N,), codes of the fold in which each image was tested, for models that were trained once per fold.
            None: one split.

    Raises:
        ValueError: the shapes do not fit, a score is not finite, or a group lies in two folds.
    """

    numerator: Floats
    denominator: Floats
    groups: Integers | None = None
    folds: Integers | None = None

    def __post_init__(self) -> None:
        numerator = np.asarray(self.numerator, dtype=np.float64)
        if numerator.ndim != 3 or 0 in numerator.shape:
            raise ValueError(f"scores must have rows, seeds and images, not the shape {numerator.shape}")
        try:
            denominator = np.broadcast_to(np.asarray(self.denominator, dtype=np.float64), numerator.shape)
        except ValueError:
            shape = np.shape(self.denominator)
            raise ValueError(f"denominators of shape {shape} do not fit scores of shape {numerator.shape}") from None
        object.__setattr__(self, "numerator", numerator)
        object.__setattr__(self, "denominator", denominator)
        for name in ("groups", "folds"):
            if (codes := getattr(self, name)) is not None:
                object.__setattr__(self, name, _codes(codes, numerator.shape[2], name))
        there = self.present[..., None]
        if not np.isfinite(numerator, where=there, out=np.ones(numerator.shape, dtype=bool)).all():
            raise ValueError("scores must be finite, or NaN for all images of a seed without a result")
        if not ((denominator >= 0) & np.isfinite(denominator) | ~there).all():
            raise ValueError("denominators must be finite and at least 0")
        _ = self.unit_folds

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(V, S), whether a row has a result for a seed."""
        missing = np.isnan(self.numerator).all(axis=2) | (np.nansum(self.denominator, axis=2) == 0)
        return np.asarray(~missing)

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.numerator.shape[2])

    @cached_property
    def binary(self) -> bool:
        """Whether every image is right or wrong: its score is 0 or its denominator."""
        there = self.present[..., None]
        return bool(((self.numerator == 0) | (self.numerator == self.denominator) | ~there).all())

    @cached_property
    def proportion(self) -> bool:
        """Whether the value of a row is a mean of numbers from 0 to 1, one per image."""
        there = self.present
        numbers = self.numerator[there]
        return bool((self.denominator[there] == 1).all() and (numbers >= 0).all() and (numbers <= 1).all())

    def limits(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the least and the greatest value that contrasts can have, for weights (P, V)."""
        if not self.proportion:
            return np.full(len(weights), -np.inf), np.full(len(weights), np.inf)
        return np.minimum(weights, 0).sum(axis=1), np.maximum(weights, 0).sum(axis=1)

    @cached_property
    def unit_folds(self) -> Integers:
        """(G,), the fold of each unit, counted from 0."""
        folds = np.zeros(self.num_images, dtype=np.intp) if self.folds is None else self.folds
        if self.groups is None:
            return folds
        _, first = np.unique(self.groups, return_index=True)
        of_units: Integers = folds[first]
        if (of_units[self.groups] != folds).any():
            raise ValueError("all images of a group must be in one fold")
        return of_units

    def units(self, rows: Integers, seeds: Integers) -> tuple[Floats, Floats]:
        """Return numerators and denominators of some rows and seeds, summed over the images of each unit, (V, S, G)."""
        chosen = np.ix_(rows, seeds)
        numerator, denominator = self.numerator[chosen], self.denominator[chosen]
        if self.groups is None:
            return numerator, denominator
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(len(self.unit_folds)))
        return (
            np.add.reduceat(numerator[..., order], starts, axis=2),
            np.add.reduceat(denominator[..., order], starts, axis=2),
        )


def _codes(codes: ArrayLike, num_images: int, name: str) -> Integers:
    """Return codes that are counted from 0 without gaps."""
    if np.shape(codes) != (num_images,):
        raise ValueError(f"{name} must have one code per image, {num_images} in all, not the shape {np.shape(codes)}")
    inverse: Integers = np.unique(np.asarray(codes), return_inverse=True)[1].astype(np.intp)
    return inverse
