"""Where an experiment, given as data, names components. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from decoderbench.config.grid import ComponentChoice, DatasetChoice
from decoderbench.config.merging import merge
from decoderbench.config.mistakes import Location
from decoderbench.config.settings import OFF
from decoderbench.config.typed_values import value_of
from decoderbench.kinds import AXES


def choices(data: Mapping[str, Any]) -> Iterator[tuple[str, Location, Any]]:
    """Yield the kind, the place and the description of each component in an experiment that is given as data."""
    yield "dataset", ("dataset",), data.get("dataset")
    grid = value_of(data.get("grid"))
    for axis in AXES:
        variants = value_of(grid.get(axis)) if isinstance(grid, Mapping) else None
        if isinstance(variants, Mapping):
            yield from ((axis, ("grid", axis, label), given) for label, given in variants.items())


def datasets_of_settings(data: Mapping[str, Any]) -> Iterator[tuple[Location, Any, Any]]:
    """Yield the place of each change of a dataset by a setting, the change, and the dataset that it makes."""
    grid = value_of(data.get("grid"))
    settings = value_of(grid.get("settings")) if isinstance(grid, Mapping) else None
    for label, setting in settings.items() if isinstance(settings, Mapping) else ():
        change = value_of(setting).get("dataset") if isinstance(value_of(setting), Mapping) else None
        if change not in (None, OFF):
            changed = merge({"dataset": data.get("dataset", {})}, {"dataset": change})["dataset"]
            yield ("grid", "settings", label, "dataset"), change, changed


def choice_of(kind: str) -> type[ComponentChoice]:
    """Return what an experiment may say of a component of this kind beside its own options."""
    return DatasetChoice if kind == "dataset" else ComponentChoice
