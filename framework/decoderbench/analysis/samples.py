"""What every row read on every test image, aligned between rows that were tested on the same images. No torch here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decoderbench.analysis.frame import COSTS, METRICS, VARIANT, Results
from decoderbench.analysis.image_sets import FOLD, Aligner, join_folds
from decoderbench.analysis.models import cells_text
from decoderbench.analysis.predictions import TEST, VALIDATION, read_predictions, transcriptions_of
from decoderbench.config.cell import Cell
from decoderbench.data.dataset import Split
from decoderbench.errors import DataError
from decoderbench.metrics import Terms, Transcriptions
from decoderbench.records.schema import RunRecord, read_lines
from decoderbench.statistics import Scores

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger("decoderbench")

ENDINGS = ("", "_low", "_high", "_df", "_bold")
"""The columns of a metric in `Analysis.rows`: what follows its name."""

ROW_COLUMNS = frozenset(
    {*VARIANT, *COSTS, "name", "title", "status", "reasons", "num_seeds", "num_cells", "num_failed", "infeasible"}
    | {"num_planned_seeds", "num_folds", "fold", "folds"}
    | {"image_set", "num_images", "num_units", "scope", "train_limit", "tuned", "tuning_seconds", "seeds", "seed"}
    | {"rise", "rise_low", "rise_high", "still_rising", "not_learned"}
)
"""The other columns of `Analysis.rows` and of the main table, whose names no metric can have there."""

_Place = tuple[int, int, int | None]
"""A cell: its row, seed and fold."""

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

    With folds a seed has a cell per fold, and the images of all folds are those of the seed: it has samples once every
    fold has. Rows whose images were divided into other folds belong to another image set.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        cells = results.plan.cells
        self.variants = list(dict.fromkeys(cell.variant for cell in cells))
        """The labels of each row."""
        self.seeds = list(dict.fromkeys(cell.seed for cell in cells))
        """All seeds of the plan, in the order of their first cell."""
        self._rows: list[dict[int, list[Cell]]] = [{} for _ in self.variants]
        self._records: dict[_Place, RunRecord] = {}
        numbers = {variant: row for row, variant in enumerate(self.variants)}
        records = iter(results.records)
        for cell, status in zip(cells, results.cells["status"], strict=True):
            row = numbers[cell.variant]
            self._rows[row].setdefault(cell.seed, []).append(cell)
            record = None if status == "pending" else next(records)
            if record is not None and status == "done":
                self._records[row, cell.seed, cell.fold] = record
        self._texts: dict[_Place, Transcriptions] = {}
        self._terms: dict[tuple[str, int, int], Terms | None] = {}
        self._frames: dict[tuple[int, int], pd.DataFrame] = {}
        self._histories: dict[_Place, list[dict[str, Any]]] = {}
        self._rejected: dict[str, dict[_Place, Cell]] = {}

    @cached_property
    def titles(self) -> list[str]:
        """Each row as one text for people: its labels."""
        return [self.cells(row)[0].variant_title for row in range(len(self._rows))]

    @cached_property
    def names(self) -> list[str]:
        """The name of each row; empty if it has none."""
        return [self.cells(row)[0].name for row in range(len(self._rows))]

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
        return [cell for of_seed in self._rows[row].values() for cell in of_seed]

    def models(self, row: int, seed: int) -> list[Cell]:
        """Return the cells of a seed of a row: one, with folds one per fold, or none if the row has no such seed."""
        return self._rows[row].get(seed, [])

    def records(self, row: int, seed: int) -> list[RunRecord]:
        """Return the records of those `models` that are done."""
        found = (self._records.get((row, seed, cell.fold)) for cell in self.models(row, seed))
        return [record for record in found if record is not None]

    def is_done(self, row: int, seed: int) -> bool:
        """Return whether a row has a seed all of whose `models` are done."""
        return 0 < len(self.models(row, seed)) == len(self.records(row, seed))

    def frame(self, row: int, seed: int) -> pd.DataFrame | None:
        """Return the predictions of a seed on the test split, one line per image, or None if it has no samples.

        The columns are those of the file: earlier versions wrote fewer. With folds, `fold` is one more. The frames of
        one image set have the same images in the same order.
        """
        table = self._tables.get((row, seed))
        if table is None:
            return None
        if (row, seed) not in self._frames:
            self._frames[row, seed] = table.to_pandas()
        return self._frames[row, seed]

    def validation(self, row: int, cell: Cell) -> pd.DataFrame | None:
        """Return the predictions of a cell on its validation split, one line per image, or None if they are not there.

        The columns are those of the file.
        """
        return self._validation.get((row, cell.seed, cell.fold))

    def history(self, row: int, cell: Cell) -> list[dict[str, Any]]:
        """Return the lines of `history.jsonl` of a cell that is done; none if the file is missing."""
        place = row, cell.seed, cell.fold
        if place not in self._histories and place in self._records:
            folder = self.results.directory.cell_directory(self._records[place].cell)
            self._histories[place] = read_lines(folder / "history.jsonl")
        return self._histories.get(place, [])

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
                table = self._tables.get((row, seed))
                if table is not None and "group" in table.column_names:
                    return codes_of_groups(table["group"].to_pylist())
        return None

    def folds(self, image_set: int) -> np.ndarray[tuple[int], np.dtype[np.intp]] | None:
        """Return for each image of a set, (N,), the fold that it was tested in; None without folds."""
        tables = (self._tables.get((row, seed)) for row in self.rows_of(image_set) for seed in self.seeds)
        table = next(table for table in tables if table is not None)
        return np.array(table[FOLD].to_pylist(), dtype=np.intp) if FOLD in table.column_names else None

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
        return Scores(numerator, denominator, groups=self.groups(image_set), folds=self.folds(image_set))

    def terms(self, metric: str, row: int, seed: int) -> Terms | None:
        """Return the numerators and denominators of a seed's test images, each (N,), or None if it has none.

        A seed with a record that has another number than the sum over its images has none either; `notes` says so.
        """
        key = metric, row, seed
        if key not in self._terms:
            self._terms[key] = self._compute_terms(*key)
        return self._terms[key]

    @property
    def notes(self) -> list[str]:
        """What has no interval and takes part in no contrast, and why."""
        for metric in self.metrics:
            for row, seed in self._tables:
                self.terms(metric, row, seed)
        everywhere = len(self._records)
        return [
            *(
                reason if len(cells) == everywhere else f"{reason} ({cells_text(cells.values())})"
                for reason, cells in self._rejected.items()
            ),
            *self._notes_on_folds(),
        ]

    def _notes_on_folds(self) -> Iterator[str]:
        """Yield a note on seeds that have a result in some folds and lack it in others."""
        missing = [
            cell
            for row, of_row in enumerate(self._rows)
            for seed, cells in of_row.items()
            for cell in cells
            if self.records(row, seed) and (row, seed, cell.fold) not in self._records
        ]
        if missing:
            yield f"a seed counts once all of its folds have a result; these lack one: {cells_text(missing)}"

    def _compute_terms(self, metric: str, row: int, seed: int) -> Terms | None:
        table = self._tables.get((row, seed))
        if table is None:
            return None
        numerators, denominators = np.empty(len(table)), np.empty(len(table))
        for cell in self.models(row, seed):
            images = np.arange(len(table)) if cell.fold is None else np.flatnonzero(table[FOLD].to_numpy() == cell.fold)
            terms = self._terms_of_model(metric, (row, seed, cell.fold), table, images)
            if terms is None:
                return None
            numerators[images], denominators[images] = terms
        return numerators, denominators

    def _terms_of_model(
        self, metric: str, place: _Place, table: pyarrow.Table, images: np.ndarray[tuple[int], np.dtype[np.intp]]
    ) -> Terms | None:
        """Return the terms of the images of a table that one model has read."""
        value, definition = self._records[place].metrics.get(metric), self.results.definitions.get(metric)
        if value is None:
            return None
        if definition is None:
            self._reject(place, f"{metric}: no interval, the plugin of this metric is not loaded")
            return None
        if place not in self._texts:
            self._texts[place] = transcriptions_of(table.take(images))
        terms = definition.per_sample(self._texts[place])
        if terms is None:
            self._reject(place, f"{metric}: no interval, the metric gives no numbers per image")
            return None
        numerators, denominators = terms
        if not abs(numerators.sum() - value * denominators.sum()) <= _TOLERANCE * abs(value) * denominators.sum():
            self._reject(place, f"{metric}: no interval, its numbers per image do not add up to its value")
            return None
        return terms

    @property
    def _tables(self) -> dict[tuple[int, int], pyarrow.Table]:
        return self._aligned[0]

    @cached_property
    def _validation(self) -> dict[_Place, pd.DataFrame]:
        return {place: table.to_pandas() for place, table in self._read_all("val")}

    @cached_property
    def _aligned(self) -> tuple[dict[tuple[int, int], pyarrow.Table], list[int | None]]:
        """The test images of each seed, by row and seed, and the image set of each row."""
        read: dict[tuple[int, int], dict[int | None, pyarrow.Table]] = {}
        for (row, seed, fold), table in self._read_all("test"):
            read.setdefault((row, seed), {})[fold] = table
        tables: dict[tuple[int, int], pyarrow.Table] = {}
        aligner, found = Aligner(), dict[int, dict[int, int]]()
        for (row, seed), folds in read.items():
            models = self.models(row, seed)
            if len(folds) == len(models):
                table, images = aligner.align(join_folds(folds), models[0])
                tables[row, seed], found.setdefault(row, {})[seed] = table, images
        own = {row: Counter(seeds.values()).most_common(1)[0][0] for row, seeds in found.items()}
        for row, seeds in found.items():
            for seed in (seed for seed, images in seeds.items() if images != own[row]):
                del tables[row, seed]
                for cell in self.models(row, seed):
                    place = row, seed, cell.fold
                    self._reject(place, "tested on other images or labels than the other seeds of the row")
        numbers = {images: number for number, images in enumerate(dict.fromkeys(own.values()))}
        return tables, [numbers[own[row]] if row in own else None for row in range(len(self._rows))]

    def _read_all(self, split: Split) -> Iterator[tuple[_Place, pyarrow.Table]]:
        for place, record in self._records.items():
            if split == "val" and _FILES[split] not in record.artifacts:
                continue
            try:
                yield place, read_predictions(self.results.directory, record, _FILES[split])
            except DataError as error:
                self._reject(place, f"{_FILES[split]}: {error}, so {_LOST[split]}")

    def _reject(self, place: _Place, reason: str) -> None:
        row, seed, fold = place
        cell = next(cell for cell in self.models(row, seed) if cell.fold == fold)
        self._rejected.setdefault(reason, {})[place] = cell


def codes_of_groups(groups: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.intp]] | None:
    """Return for each image, (N,), a code of its group; None if each is its own group, as one without a name is."""
    names = [f"in {group}" if group else image for image, group in enumerate(groups)]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([codes[name] for name in names]) if len(codes) < len(names) else None
