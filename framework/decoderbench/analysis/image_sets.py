"""Which rows were tested on the same images: tables of predictions, brought into one order. No torch here."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.config.cell import Cell

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow

FOLD = "fold"
"""The column of tables with folds: the one that an image was tested in."""


def join_folds(tables: Mapping[int | None, pyarrow.Table]) -> pyarrow.Table:
    """Return the tables of the folds of a seed as one with the column `fold`; a table without folds as it is.

    Columns that only some have are null in the others.
    """
    import pyarrow as pa

    if None in tables:
        return tables[None]
    parts = [
        table.append_column(FOLD, pa.array([number] * len(table), pa.int64()))
        for number, table in sorted(tables.items(), key=lambda item: item[0] or 0)
    ]
    return pa.concat_tables(parts, promote_options="default")


def data_of(cell: Cell) -> str:
    """Return a digest of the data set of a cell: images of equal name and label may differ between two of them."""
    return cell.dataset_hash or cell.data_hash


class Aligner:
    """Brings tables of the same images into one order; images are the same if data, keys, labels and folds are."""

    def __init__(self) -> None:
        self._known: list[tuple[str, pyarrow.Table]] = []
        self._sorted: dict[str, int] = {}

    def align(self, table: pyarrow.Table, cell: Cell) -> tuple[pyarrow.Table, int]:
        """Return a table in the order of the first one with its images, and the number of these images."""
        images = table.select([name for name in ("sample", "reference", FOLD) if name in table.column_names])
        for number, (data, known) in enumerate(self._known):
            if data == data_of(cell) and images.equals(known):
                return table, number
        order = _sorting(images)
        content = json.dumps([data_of(cell), images.take(order).to_pydict()])
        number = self._sorted.setdefault(hashlib.sha256(content.encode()).hexdigest(), len(self._known))
        if number == len(self._known):
            self._known.append((data_of(cell), images))
            return table, number
        into = np.empty(len(order), dtype=np.intp)
        into[_sorting(self._known[number][1])] = order
        return table.take(into), number


def _sorting(images: pyarrow.Table) -> list[int]:
    pairs = list(zip(*images.to_pydict().values(), strict=True))
    return sorted(range(len(pairs)), key=pairs.__getitem__)
