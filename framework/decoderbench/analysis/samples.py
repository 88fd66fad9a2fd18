"""What every row read on every test image, aligned between rows that were tested on the same images. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import pandas as pd

from decoderbench.analysis.frame import Results
from decoderbench.analysis.predictions import TEST, VALIDATION, read_predictions
from decoderbench.config.cell import Cell
from decoderbench.data.dataset import Split
from decoderbench.errors import DataError
from decoderbench.records import RunRecord

_FILES: Mapping[Split, str] = {"test": TEST, "val": VALIDATION}


class Samples:
    """The predictions of the cells that are done; each file is read once.

    A row is a variant: all seeds of one combination, in the order of the plan. Rows belong to one image set if they
    were tested on the same images with the same labels. A cell whose file is missing or is not that of its record has
    no samples, nor has a cell that was tested on other images than most seeds of its row; `notes` says so.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        rows: dict[tuple[str, ...], dict[int, Cell]] = {}
        for cell in results.plan.cells:
            rows.setdefault(cell.variant, {})[cell.seed] = cell
        self._rows = list(rows.values())
        self._records = {record.cell.cell_id: record for record in results.records if record.status == "done"}
        self._reasons: dict[str, list[Cell]] = {}

    @cached_property
    def variants(self) -> list[tuple[str, ...]]:
        """The labels of each row, in the order of the plan."""
        return list(dict.fromkeys(cell.variant for cell in self.results.plan.cells))

    @cached_property
    def titles(self) -> list[str]:
        """Each row as one text for people."""
        return [next(iter(cells.values())).variant_title for cells in self._rows]

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds of the plan, in the order of their first cell."""
        return list(dict.fromkeys(cell.seed for cell in self.results.plan.cells))

    def cell(self, row: int, seed: int) -> Cell | None:
        """Return a cell of the plan, or None if the row has no such seed."""
        return self._rows[row].get(seed)

    def record(self, row: int, seed: int) -> RunRecord | None:
        """Return the record of a cell that is done, else None."""
        cell = self.cell(row, seed)
        return None if cell is None else self._records.get(cell.cell_id)

    def frame(self, row: int, seed: int, split: Split = "test") -> pd.DataFrame | None:
        """Return the predictions of a cell, one row per image, or None if it has no samples.

        The columns are those of the file; `group` is there only if the version that wrote it knew groups. On the test
        split, the frames of one image set have the same images in the same order.
        """
        return self._test.get((row, seed)) if split == "test" else self._validation.get((row, seed))

    @cached_property
    def image_sets(self) -> list[int | None]:
        """For each row the number of its image set, from 0 in the order of the rows; None for a row without samples."""
        numbers: dict[str, int] = {}
        signatures = self._signatures
        return [
            numbers.setdefault(signature, len(numbers)) if (signature := signatures.get(row)) else None
            for row in range(len(self._rows))
        ]

    def rows_of(self, image_set: int) -> list[int]:
        """Return the rows of an image set, in order."""
        return [row for row, number in enumerate(self.image_sets) if number == image_set]

    @cached_property
    def notes(self) -> list[str]:
        """What is not there, and for which cells."""
        _ = self._test
        return [f"{reason} ({_name(cells)})" for reason, cells in self._reasons.items()]

    @property
    def _test(self) -> dict[tuple[int, int], pd.DataFrame]:
        return self._aligned[0]

    @property
    def _signatures(self) -> dict[int, str]:
        return self._aligned[1]

    @cached_property
    def _validation(self) -> dict[tuple[int, int], pd.DataFrame]:
        return {(row, seed): frame for row, seed, frame in self._read_all("val")}

    @cached_property
    def _aligned(self) -> tuple[dict[tuple[int, int], pd.DataFrame], dict[int, str]]:
        """The frames of the test split by row and seed, and a digest of the images and labels of each row."""
        frames: dict[tuple[int, int], pd.DataFrame] = {}
        found: dict[int, dict[int, str]] = {}
        for row, seed, frame in self._read_all("test"):
            frames[row, seed], found.setdefault(row, {})[seed] = _align(frame, self._rows[row][seed])
        signatures = {row: Counter(seeds.values()).most_common(1)[0][0] for row, seeds in found.items()}
        for row, seeds in found.items():
            for seed in (seed for seed, signature in seeds.items() if signature != signatures[row]):
                del frames[row, seed]
                self._reject(self._rows[row][seed], "tested on other images or labels than the other seeds of the row")
        return frames, signatures

    def _read_all(self, split: Split) -> Iterator[tuple[int, int, pd.DataFrame]]:
        for row, cells in enumerate(self._rows):
            for seed, cell in cells.items():
                record = self._records.get(cell.cell_id)
                if record is None or (split == "val" and _FILES[split] not in record.artifacts):
                    continue
                try:
                    yield row, seed, read_predictions(self.results.directory, record, _FILES[split])
                except DataError as error:
                    self._reject(cell, f"{_FILES[split]}: {error}; no intervals and contrasts of these cells")

    def _reject(self, cell: Cell, reason: str) -> None:
        self._reasons.setdefault(reason, []).append(cell)


def _align(frame: pd.DataFrame, cell: Cell) -> tuple[pd.DataFrame, str]:
    """Return a frame in the order of its samples, and a digest of the images and labels of a test split."""
    samples, references = frame["sample"].tolist(), frame["reference"].tolist()
    order = sorted(range(len(frame)), key=lambda image: (samples[image], references[image]))
    if order != list(range(len(frame))):
        frame = frame.take(order).reset_index(drop=True)
    images = json.dumps([cell.data_hash, *([samples[image], references[image]] for image in order)])
    return frame, hashlib.sha256(images.encode()).hexdigest()


def _name(cells: Sequence[Cell]) -> str:
    """Return the rows and seeds of cells, as in "ResNet / columns / CTC, seeds 0, 1"."""
    seeds: dict[str, list[str]] = {}
    for cell in cells:
        seeds.setdefault(cell.variant_title, []).append(str(cell.seed))
    return "; ".join(f"{title}, seed{'s' * (len(of) > 1)} {', '.join(of)}" for title, of in seeds.items())
