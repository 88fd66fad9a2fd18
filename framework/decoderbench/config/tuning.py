"""Tuning: options that each row of a table chooses by short runs, the same ones for every row. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from pydantic import Field, field_validator, model_validator

from decoderbench.config.mistakes import Location
from decoderbench.config.seeds import Seeds
from decoderbench.errors import did_you_mean
from decoderbench.options import AugmentationOptions, EvaluationOptions, Options, TrainingOptions, refuse

TUNABLE: dict[str, type[Options]] = {
    "training": TrainingOptions,
    "augmentation": AugmentationOptions,
    "evaluation": EvaluationOptions,
}
"""The tables whose options can be tuned: they change neither the data nor which rows there are."""

BUDGET = "training.steps"

_KNOWN = tuple(
    option
    for table, options in TUNABLE.items()
    for name in options.model_fields
    if (option := f"{table}.{name}") != BUDGET
)


class TuningOptions(Options):
    """Short runs that choose options for each row, before its cells are trained with them.

    Every row gets the same budget: all combinations of the values, each with all seeds. They are scored on validation
    images; test images are not read. The highest exact match wins, the mean over the seeds.
    """

    over: dict[str, tuple[Any, ...]]
    """The values to try by option, as in `{ "training.learning_rate" = [5e-4, 1e-3, 2e-3, 4e-3] }`."""

    seeds: Seeds = (1000,)
    """Seeds of the short runs; they must not be seeds of the grid, whose cells are tested."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of a short run, over which its learning rate decays; the full number if not set."""

    @property
    def num_trials(self) -> int:
        """The number of short runs of each row."""
        return math.prod(map(len, self.over.values())) * len(self.seeds)

    def candidates(self) -> list[dict[str, Any]]:
        """Return every combination of the values, by option; the last option varies fastest."""
        return [dict(zip(self.over, values, strict=True)) for values in product(*self.over.values())]

    @field_validator("over", mode="before")
    @classmethod
    def _accept_nested_tables(cls, given: object) -> object:
        """Accept `training.learning_rate = [...]` without quotes, which TOML reads as a table in a table."""
        if not isinstance(given, Mapping):
            return given
        flat: dict[str, object] = {}
        for key, value in given.items():
            inner = {f"{key}.{name}": values for name, values in value.items()} if isinstance(value, Mapping) else None
            for option, values in (inner or {key: value}).items():
                if option in flat:
                    raise ValueError(f"{option} is given twice; remove one")
                flat[option] = values
        return flat

    @model_validator(mode="after")
    def _refuse_invalid_axes(self) -> TuningOptions:
        broken = {option: _broken(option, values) for option, values in self.over.items()}
        rules: dict[Location, str] = {("over", option): rule for option, rule in broken.items() if rule}
        refuse(rules, {"over": self.over}, "TuningOptions")
        if self.num_trials <= len(self.seeds):
            refuse(
                {("over",): "leaves nothing to choose; list two or more values"}, {"over": self.over}, "TuningOptions"
            )
        return self


def _broken(option: str, values: tuple[Any, ...]) -> str:
    """Return what is wrong with an option and the list of its values; empty if nothing is."""
    table = option.partition(".")[0]
    if option == BUDGET:
        return "is the budget, which is the same for every row; tuning.steps shortens the runs that choose"
    if table in ("dataset", "image", "labels"):
        return "decides what is read and scored, and rows must share that; [grid.settings] makes it an axis of the grid"
    if table == "grid":
        return "belongs to some rows alone, and rows would not be tuned equally; list it as variants of the grid"
    if option not in _KNOWN:
        own = tuple(known for known in _KNOWN if known.startswith(f"{table}.")) or _KNOWN
        return f"is no option that can be tuned{did_you_mean(option, own)}; known: {', '.join(own)}"
    if not values:
        return "has no values; list two or more"
    if any(values.index(value) != place for place, value in enumerate(values)):
        return "lists a value twice; list each once"
    return ""
