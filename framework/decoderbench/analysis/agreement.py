"""Whether rows are right on the same images, and the images on which all are wrong. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

LISTED = 50
"""The number of images per image set of which the readings of all rows are listed."""

_PAIRS = ["image_set", "index_a", "row_a", "index_b", "row_b", "both", "only_a", "only_b", "neither"]
_ALONE = ["image_set", "index", "title", "only_right", "only_wrong"]
_COUNTS = ["num_seeds", "num_images"]
_ALL_WRONG = ["image_set", "sample", "reference", "reading", "share", "num_readings", "num_cells"]
_READINGS = ["image_set", "sample", "reference", "index", "title", "seed", "hypothesis"]

_Right = Mapping[int, Mapping[int, "NDArray[np.bool_]"]]
"""By row and seed: whether the text of each image of one image set is right."""


@dataclass(frozen=True)
class Agreement:
    """The frames of one analysis, about rows that were tested on the same images; `index` is a position in its rows.

    Rows are compared seed by seed: a seed of one row with the same seed of the other.
    """

    pairs: pd.DataFrame
    """Per pair of rows the shares of images and common seeds that `both` read right, `only_a`, `only_b`, `neither`."""

    alone: pd.DataFrame
    """Per row the shares of images and of the seeds common to all rows of the image set for which it is the only one
    that is right, and the only one that is wrong. Missing without common seeds."""

    all_wrong: pd.DataFrame
    """The images that no cell of any row read right: candidates for wrong labels, those first for which most cells
    agree. A `share` of the cells has the same `reading`, of equally frequent ones the first by code points; there are
    `num_readings` different ones."""

    readings: pd.DataFrame
    """The text of each cell on the first `LISTED` images of `all_wrong`, per image set."""


def find_agreement(readings: pd.DataFrame, titles: Sequence[str]) -> Agreement:
    """Return where rows agree; an image set with fewer than two rows has no part in it.

    Args:
        readings: one line per text, as `readings_of` returns them.
        titles: the title of each row.
    """
    sets = [(number, lines) for number, lines in readings.groupby("image_set") if lines["index"].nunique() > 1]
    pairs: list[tuple[object, ...]] = []
    alone: list[tuple[object, ...]] = []
    wrong: list[tuple[object, ...]] = []
    texts: list[tuple[object, ...]] = []
    for number, lines in sets:
        groups = lines.sort_values("image").groupby(["index", "seed"])
        cells = {cast("tuple[int, int]", key): own for key, own in groups}
        right: dict[int, dict[int, NDArray[np.bool_]]] = {}
        for (row, seed), own in cells.items():
            right.setdefault(row, {})[seed] = (own["reference"] == own["hypothesis"]).to_numpy(np.bool_)
        pairs += [
            (number, a, titles[a], b, titles[b], *_compare(right[a], right[b])) for a, b in combinations(right, 2)
        ]
        alone += [(number, row, titles[row], *values) for row, values in _alone(right).items()]
        images = np.flatnonzero(~np.any([own for seeds in right.values() for own in seeds.values()], axis=0))
        read = {key: own["hypothesis"].iloc[images].tolist() for key, own in cells.items()}
        first = next(iter(cells.values())).iloc[images]
        labels = list(zip(first["sample"], first["reference"], strict=True))
        votes = [_vote(texts_of_image) for texts_of_image in zip(*read.values(), strict=True)]
        order = sorted(range(len(labels)), key=lambda place: (-votes[place][1], labels[place]))
        wrong += [(number, *labels[place], *votes[place], len(cells)) for place in order]
        texts += [
            (number, *labels[place], row, titles[row], seed, own[place])
            for place in order[:LISTED]
            for (row, seed), own in read.items()
        ]
    return Agreement(
        pd.DataFrame(pairs, columns=[*_PAIRS, *_COUNTS]),
        pd.DataFrame(alone, columns=[*_ALONE, *_COUNTS]),
        pd.DataFrame(wrong, columns=_ALL_WRONG),
        pd.DataFrame(texts, columns=_READINGS),
    )


def _compare(a: Mapping[int, NDArray[np.bool_]], b: Mapping[int, NDArray[np.bool_]]) -> tuple[float, ...]:
    """Return the shares of both, only a, only b and neither, the number of common seeds and that of images."""
    common = [seed for seed in a if seed in b]
    images = len(next(iter(a.values())))
    if not common:
        return (*[float("nan")] * 4, 0, images)
    of_a, of_b = np.stack([a[seed] for seed in common]), np.stack([b[seed] for seed in common])
    cases = (of_a & of_b, of_a & ~of_b, ~of_a & of_b, ~of_a & ~of_b)
    return (*(float(case.mean()) for case in cases), len(common), images)


def _alone(right: _Right) -> dict[int, tuple[float, ...]]:
    """Return for each row the shares of only right and only wrong, the number of common seeds and that of images."""
    common = set.intersection(*map(set, right.values()))
    images = len(next(iter(next(iter(right.values())).values())))
    if not common:
        return {row: (float("nan"), float("nan"), 0, images) for row in right}
    table = np.stack([[seeds[seed] for seed in sorted(common)] for seeds in right.values()])  # (V, S, N)
    others_right = table.sum(axis=0) - table
    only_right = (table & (others_right == 0)).mean(axis=(1, 2))
    only_wrong = (~table & (others_right == len(right) - 1)).mean(axis=(1, 2))
    values = zip(only_right.tolist(), only_wrong.tolist(), strict=True)
    return {row: (*shares, len(common), images) for row, shares in zip(right, values, strict=True)}


def _vote(texts: Sequence[str]) -> tuple[str, float, int]:
    """Return the most frequent text, its share, and the number of different ones."""
    counts = Counter(texts)
    reading = min(counts, key=lambda text: (-counts[text], text))
    return reading, counts[reading] / len(texts), len(counts)
