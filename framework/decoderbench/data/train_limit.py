"""`train_limit`: which labeled images a cell trains and validates on if their number is limited. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.data.dataset import Split
from decoderbench.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def limited_sizes(sizes: Mapping[Split, int], limit: int | None) -> dict[Split, int]:
    """Return the number of samples per split under a limit on train and val together; None is no limit.

    The limit is divided like all samples, at least one each. A larger limit takes nothing from either split.

    Raises:
        DataError: there are fewer samples.
    """
    if limit is None:
        return dict(sizes)
    total = sizes["train"] + sizes["val"]
    if limit > total:
        raise DataError(
            f"train_limit is {limit:,}, and the data have {total:,} images to train and validate on "
            f"({sizes['train']:,} train, {sizes['val']:,} val); lower it"
        )
    share = (2 * limit * sizes["train"] + total) // (2 * total)  # rounded to the nearest
    train = min(max(1, share), limit - 1)
    return {**sizes, "train": train, "val": limit - train}


def merge_sizes(folds: Sequence[Mapping[Split, int]]) -> dict[Split, int]:
    """Return the sizes that a row has to live with: the least train and val of its folds, and the test of all."""
    least: dict[Split, int] = {split: min(sizes[split] for sizes in folds) for split in folds[0]}
    return {**least, "test": sum(sizes["test"] for sizes in folds)}


def first_rows(rows: NDArray[np.int64], keys: Sequence[str], number: int, seed: int) -> NDArray[np.int64]:
    """Return `number` of `rows`, ascending: the first in an order that the seed and the keys of samples decide.

    With the same seed, the rows of a smaller number are among those of a larger one, whatever else the data hold.
    """

    def place(row: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed} {keys[row]}".encode()).digest(), row

    return np.sort(np.array(sorted(rows.tolist(), key=place)[:number], dtype=np.int64))
