"""What every row read on every test image, aligned between rows that were tested on the same images. No torch here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decoderbench.analysis.frame import COSTS, METRICS, VARIANT, Results
from decoderbench.analysis.predictions import TEST, VALIDATION, read_predictions, transcriptions_of
from decoderbench.config.cell import Cell
from decoderbench.data.dataset import Split
from decoderbench.errors import DataError
from decoderbench.metrics import Terms, Transcriptions
from decoderbench.records import RunRecord, read_lines
from decoderbench.statistics import Scores

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger("decoderbench")

ENDINGS = ("", "_low", "_high", "_df", "_bold")
"""The columns of a metric in `Analysis.rows`: what follows its name."""

ROW_COLUMNS = frozenset(
    {*VARIANT, *COSTS, "name", "title", "status", "reasons", "num_seeds", "num_cells", "num_failed", "infeasible"}
    | {"image_set", "num_images", "num_units", "scope", "train_limit", "tuned", "tuning_seconds", "seeds", "seed"}
    | {"rise", "rise_low", "rise_high", "still_rising", "not_learned"}
)
"""The other columns of `Analysis.rows` and of the main table, whose names no metric can have there."""

_FILES: Mapping[Split, str] = {"test": TEST, "val": VALIDATION}
_LOST: Mapping[Split, str] = {
    "test": "these cells have no interval and no contrast",
    "val": "whether these cells learned and were still rising is not known",
}
"""What a report cannot say without the predictions of a split."""
_TOLERANCE = 1e-6
"""How far, relative to it, the number of a record may lie from the sum over its predictions."""


class Samples:
    """The predictions of the cells that are done; each file is read once.

    A row is a variant: all seeds of one combination, numbered from 0 in the order of the plan. Rows belong to one image
    set if they were tested on the same images with the same labels. A cell has no samples if its file is missing or is
    not that of its record, or if it was tested on other images than most seeds of its row; `notes` says so.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        cells = results.plan.cells
        self.variants = list(dict.fromkeys(cell.variant for cell in cells))
        """The labels of each row."""
        self.seeds = list(dict.fromkeys(cell.seed for cell in cells))
        """All seeds of the plan, in the order of their first cell."""
        self._rows: list[dict[int, Cell]] = [{} for _ in self.variants]
        self._records: dict[tuple[int, int], RunRecord] = {}
        numbers = {variant: row for row, variant in enumerate(self.variants)}
        records = iter(results.records)
        for cell, status in zip(cells, results.cells["status"], strict=True):
            row = numbers[cell.variant]
            self._rows[row][cell.seed] = cell
            record = None if status == "pending" else next(records)
            if record is not None and status == "done":
                self._records[row, cell.seed] = record
        self._texts: dict[tuple[int, int], Transcriptions] = {}
        self._terms: dict[tuple[str, int, int], Terms | None] = {}
        self._frames: dict[tuple[Split, int, int], pd.DataFrame] = {}
        self._histories: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self._rejected: dict[str, list[tuple[int, int]]] = {}

    @cached_property
    def titles(self) -> list[str]:
        """Each row as one text for people: its labels."""
        return [next(iter(cells.values())).variant_title for cells in self._rows]

    @cached_property
    def names(self) -> list[str]:
        """The name of each row; empty if it has none."""
        return [next(iter(cells.values())).name for cells in self._rows]

    @cached_property
    def metrics(self) -> list[str]:
        """The built-in metrics, then the others that a record has and whose columns have names of their own."""
        recorded = {name for record in self._records.values() for name in record.metrics}
        taken = {*ROW_COLUMNS, *(f"{metric}{end}" for metric in METRICS for end in ENDINGS)}
        taken |= set(self.results.cells.columns) - recorded
        found = list(METRICS)
        for name in sorted(recorded.difference(METRICS)):
            columns = {f"{name}{end}" for end in ENDINGS}
            if name not in self.results.cells or columns & taken:
                logger.warning("metric %r is in no table: it has the name of another column; rename it", name)
                continue
            found.append(name)
            taken |= columns
        return found

    def cells(self, row: int) -> list[Cell]:
        """Return the cells of a row."""
        return list(self._rows[row].values())

    def cell(self, row: int, seed: int) -> Cell | None:
        """Return a cell of the plan, or None if the row has no such seed."""
        return self._rows[row].get(seed)

    def record(self, row: int, seed: int) -> RunRecord | None:
        """Return the record of a cell that is done, else None."""
        return self._records.get((row, seed))

    def frame(self, row: int, seed: int, split: Split = "test") -> pd.DataFrame | None:
        """Return the predictions of a cell, one line per image, or None if it has no samples.

        The columns are those of the file: earlier versions wrote fewer. On the test split, the frames of one image set
        have the same images in the same order.
        """
        table = self._tables(split).get((row, seed))
        if table is None:
            return None
        if (split, row, seed) not in self._frames:
            self._frames[split, row, seed] = table.to_pandas()
        return self._frames[split, row, seed]

    def history(self, row: int, seed: int) -> list[dict[str, Any]]:
        """Return the lines of `history.jsonl` of a cell that is done; none if the file is missing."""
        if (row, seed) not in self._histories and (record := self.record(row, seed)) is not None:
            folder = self.results.directory.cell_directory(record.cell)
            self._histories[row, seed] = read_lines(folder / "history.jsonl")
        return self._histories.get((row, seed), [])

    @property
    def image_sets(self) -> list[int | None]:
        """For each row the number of its image set, from 0 in the order of the rows; None for a row without samples."""
        return self._aligned[1]

    def rows_of(self, image_set: int) -> list[int]:
        """Return the rows of an image set, in order."""
        return [row for row, number in enumerate(self.image_sets) if number == image_set]

    def groups(self, image_set: int) -> np.ndarray[tuple[int], np.dtype[np.intp]] | None:
        """Return for each image of a set, (N,), a code of its group; None if each image is its own group."""
        for row in self.rows_of(image_set):
            for seed in self.seeds:
                table = self._tables("test").get((row, seed))
                if table is not None and "group" in table.column_names:
                    groups = table["group"].to_pylist()
                    names = [f"in {group}" if group else image for image, group in enumerate(groups)]
                    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
                    return np.array([codes[name] for name in names]) if len(codes) < len(names) else None
        return None

    def scores(self, metric: str, rows: Sequence[int]) -> Scores | None:
        """Return a metric of rows of one image set for all `seeds`; None if no cell has numbers per image.

        Raises:
            ValueError: the rows are of different image sets.
        """
        sets = {self.image_sets[row] for row in rows}
        if len(sets) != 1 or None in sets:
            raise ValueError("scores can be compared between rows that were tested on the same images only")
        (image_set,) = sets
        assert image_set is not None
        found = {
            (v, s): terms
            for v, row in enumerate(rows)
            for s, seed in enumerate(self.seeds)
            if (terms := self.terms(metric, row, seed)) is not None
        }
        if not found:
            return None
        shape = len(rows), len(self.seeds), len(next(iter(found.values()))[0])
        numerator, denominator = np.full(shape, np.nan), np.ones(shape)
        for place, (numerators, denominators) in found.items():
            numerator[place], denominator[place] = numerators, denominators
        return Scores(numerator, denominator, groups=self.groups(image_set))

    def terms(self, metric: str, row: int, seed: int) -> Terms | None:
        """Return the numerators and denominators of a cell's test images, each (N,), or None if it has none.

        A cell whose record has another number than the sum over its images has none either; `notes` says so.
        """
        key = metric, row, seed
        if key not in self._terms:
            self._terms[key] = self._compute_terms(*key)
        return self._terms[key]

    @property
    def notes(self) -> list[str]:
        """What has no interval and takes part in no contrast, and why."""
        for metric in self.metrics:
            for row, seed in self._tables("test"):
                self.terms(metric, row, seed)
        everywhere = len(self._records)
        return [
            reason
            if len(places) == everywhere
            else f"{reason} ({_name([self._rows[row][seed] for row, seed in places])})"
            for reason, places in self._rejected.items()
        ]

    def _compute_terms(self, metric: str, row: int, seed: int) -> Terms | None:
        table, record = self._tables("test").get((row, seed)), self._records.get((row, seed))
        if table is None or record is None or (value := record.metrics.get(metric)) is None:
            return None
        definition = self.results.definitions.get(metric)
        if definition is None:
            self._reject(row, seed, f"{metric}: no interval, the plugin of this metric is not loaded")
            return None
        if (row, seed) not in self._texts:
            self._texts[row, seed] = transcriptions_of(table)
        terms = definition.per_sample(self._texts[row, seed])
        if terms is None:
            self._reject(row, seed, f"{metric}: no interval, the metric gives no numbers per image")
            return None
        numerators, denominators = terms
        if not abs(numerators.sum() - value * denominators.sum()) <= _TOLERANCE * abs(value) * denominators.sum():
            self._reject(row, seed, f"{metric}: no interval, its numbers per image do not add up to its value")
            return None
        return terms

    def _tables(self, split: Split) -> dict[tuple[int, int], pyarrow.Table]:
        return self._aligned[0] if split == "test" else self._validation

    @cached_property
    def _validation(self) -> dict[tuple[int, int], pyarrow.Table]:
        return {(row, seed): table for row, seed, table in self._read_all("val")}

    @cached_property
    def _aligned(self) -> tuple[dict[tuple[int, int], pyarrow.Table], list[int | None]]:
        """The test split of each cell, by row and seed, and the image set of each row."""
        tables: dict[tuple[int, int], pyarrow.Table] = {}
        aligner, found = _Aligner(), dict[int, dict[int, int]]()
        for row, seed, table in self._read_all("test"):
            tables[row, seed], found.setdefault(row, {})[seed] = aligner.align(table, self._rows[row][seed])
        own = {row: Counter(seeds.values()).most_common(1)[0][0] for row, seeds in found.items()}
        for row, seeds in found.items():
            for seed in (seed for seed, images in seeds.items() if images != own[row]):
                del tables[row, seed]
                self._reject(row, seed, "tested on other images or labels than the other seeds of the row")
        numbers = {images: number for number, images in enumerate(dict.fromkeys(own.values()))}
        return tables, [numbers[own[row]] if row in own else None for row in range(len(self._rows))]

    def _read_all(self, split: Split) -> Iterator[tuple[int, int, pyarrow.Table]]:
        for (row, seed), record in self._records.items():
            if split == "val" and _FILES[split] not in record.artifacts:
                continue
            try:
                yield row, seed, read_predictions(self.results.directory, record, _FILES[split])
            except DataError as error:
                self._reject(row, seed, f"{_FILES[split]}: {error}, so {_LOST[split]}")

    def _reject(self, row: int, seed: int, reason: str) -> None:
        places = self._rejected.setdefault(reason, [])
        if (row, seed) not in places:
            places.append((row, seed))


def data_of(cell: Cell) -> str:
    """Return a digest of the data set of a cell: images of equal name and label may differ between two of them."""
    return cell.dataset_hash or cell.data_hash


class _Aligner:
    """Brings tables of the same images into one order; images are the same if data, keys and labels are."""

    def __init__(self) -> None:
        self._known: list[tuple[str, pyarrow.Table]] = []
        self._sorted: dict[str, int] = {}

    def align(self, table: pyarrow.Table, cell: Cell) -> tuple[pyarrow.Table, int]:
        """Return a table in the order of the first one with its images, and the number of these images."""
        images = table.select(["sample", "reference"])
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


def _name(cells: Sequence[Cell]) -> str:
    """Return the rows and seeds of cells, as in "ResNet / columns / CTC, seeds 0, 1"."""
    seeds: dict[str, list[str]] = {}
    for cell in cells:
        seeds.setdefault(cell.variant_title, []).append(str(cell.seed))
    return "; ".join(f"{title}, seed{'s' * (len(of) > 1)} {', '.join(of)}" for title, of in seeds.items())
