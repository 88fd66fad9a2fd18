"""The rows of results: what their cells have in common, and what keeps two of them from one table. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from decoderbench.config.cell import Cell
from decoderbench.housekeeping.merging.sources import Source
from decoderbench.identity import identity_of
from decoderbench.kinds import AXES

_DATA = {"images": "the images differ", "labels": "the labels, their split or their charset differ"}
_TABLES = ("image", "augmentation", "training", "evaluation")


@dataclass(frozen=True)
class Row:
    """A row of a folder.

    Attributes:
        cell: one of its cells; one with the values that tuning has chosen, if there is one.
        tuned: the options that trials choose in this folder.
    """

    cell: Cell
    tuned: frozenset[str]

    @cached_property
    def components(self) -> dict[str, list[Any]]:
        """Component, options and digest of the source of each axis."""
        return {axis: self._component(axis) for axis in AXES}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What determines a result and is the same in all rows of a setting."""
        cell = self.cell
        tables = {table: self._without_tuned(table, identity_of(getattr(cell, table))) for table in _TABLES}
        labels = identity_of(cell.labels)
        return {"images": cell.data_hash, "labels": labels, **tables} | {
            "train_limit": cell.train_limit,
            "folds": cell.folds,
            "tuning": sorted(self.tuned),
        }

    @cached_property
    def key(self) -> str:
        """What determines a result but for seed, fold and chosen values: rows with the same are one row."""
        start = self.cell.start and self.cell.start.digest
        trainers = list(self.cell.trainers.values())
        return json.dumps([self.components, self.facts, start, trainers], sort_keys=True)

    def _component(self, axis: str) -> list[Any]:
        component = getattr(self.cell, axis)
        return [component.use, self._without_tuned(axis, component.decisive), component.source]

    def _without_tuned(self, table: str, options: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if f"{table}.{name}" not in self.tuned}


@dataclass(frozen=True)
class Names:
    """The labels of a row: of each axis, of the combination, and of the setting."""

    labels: dict[str, str]
    name: str
    setting: str

    @classmethod
    def of_row(cls, cell: Cell, setting: str) -> Names:
        """Return those of a cell, under a setting."""
        return cls({axis: getattr(cell, axis).label for axis in AXES}, cell.name, setting)

    def of(self, cell: Cell) -> Cell:
        """Return a cell with these labels, which are no part of what it is."""
        axes = {axis: getattr(cell, axis).model_copy(update={"label": label}) for axis, label in self.labels.items()}
        return cell.model_copy(update={**axes, "name": self.name, "setting": self.setting})


def rows_of(source: Source) -> list[Row]:
    """Return the rows of a folder, in the order of its table."""
    tuned = frozenset(option for trial in source.plan.tuning for option in trial.tuned)
    cells: dict[tuple[str, ...], Cell] = {}
    for cell in source.plan.cells:
        if cell.variant not in cells or is_undecided(cells[cell.variant]):
            cells[cell.variant] = cell
    return [Row(cell, tuned) for cell in cells.values()]


def is_undecided(cell: Cell) -> bool:
    """Return whether trials of tuning have not chosen the options of a cell yet; those that chose are other cells."""
    return cell.purpose == "undecided"


def clashes(row: Row, earlier: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield what keeps a row from the table of earlier ones: a code of `CODES`, and a clause."""
    alike = [other for other in earlier if other.cell.setting == row.cell.setting]
    for other in alike[:1]:
        yield from _clashes_of_facts(row, other)
    for axis in AXES:
        yield from _clashes_of_components(axis, row, alike, earlier)
    for other in alike:
        if other.cell.variant == row.cell.variant:
            if (other.cell.start and other.cell.start.digest) != (row.cell.start and row.cell.start.digest):
                yield "other_settings", "the pack that it starts from differs"
            if list(other.cell.trainers.values()) != list(row.cell.trainers.values()):
                yield "other_code", "other plugins train it"


def _clashes_of_facts(row: Row, other: Row) -> Iterator[tuple[str, str]]:
    for name, value in row.facts.items():
        if value == other.facts[name]:
            continue
        if name not in _DATA:
            yield "other_settings", f"[{name}] differs"
        elif name == "labels" or row.facts["image"] == other.facts["image"] or _other_dataset(row.cell, other.cell):
            yield "other_data", _DATA[name]


def _other_dataset(one: Cell, other: Cell) -> bool:
    """Return whether two cells with images of other sizes are known to have other images."""
    return bool(one.dataset_hash and other.dataset_hash) and one.dataset_hash != other.dataset_hash


def _clashes_of_components(
    axis: str, row: Row, alike: Sequence[Row], earlier: Sequence[Row]
) -> Iterator[tuple[str, str]]:
    use, options, source = row.components[axis]
    sources = {other.components[axis][2] for other in earlier if other.components[axis][0] == use}
    if sources and source not in sources:
        yield "other_code", f"the source code of {axis} {use!r} differs"
    label = getattr(row.cell, axis).label
    same = [other.components[axis] for other in alike if getattr(other.cell, axis).label == label]
    for other_use, other_options, _ in same[:1]:
        if other_use != use:
            yield "other_settings", f"{axis} {label!r} is {other_use!r} in one and {use!r} in the other"
        elif other_options != options:
            yield "other_settings", f"{axis} {label!r} has other options"
