"""Settings: changes to the tables of an experiment, as an axis of its grid. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidatorFunctionWrapHandler, field_validator

from decoderbench.config.labels import LabelOptions
from decoderbench.exception_text import to_printable_line
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions

OFF = "off"
"""Sets a whole table to its defaults."""


class Setting(Options):
    """Changes to the experiment, merged key by key as `--set` does; a table that is "off" has its defaults."""

    training: TrainingOptions | None = None
    """Changes to [training]."""

    augmentation: AugmentationOptions | None = None
    """Changes to [augmentation]."""

    image: ImageOptions | None = None
    """Changes to [image]."""

    labels: LabelOptions | None = None
    """Changes to [labels]."""

    evaluation: EvaluationOptions | None = None
    """Changes to [evaluation]."""

    dataset: dict[str, Any] | str | None = None
    """Changes to [dataset]; another component loses the options of the old one. It cannot be "off"."""

    def __str__(self) -> str:
        """Return the changes as one line for people, as in "augmentation off, dataset.train_limit = 100"."""
        return ", ".join(_describe(self.changes())) or "nothing changed"

    def changes(self) -> dict[str, Any]:
        """Return the changes of each table that was named, as plain data; None if it is off."""
        return self.model_dump(mode="json", exclude_unset=True)

    @field_validator("training", "augmentation", "image", "labels", "evaluation", mode="wrap")
    @classmethod
    def _accept_off(cls, given: object, validate: ValidatorFunctionWrapHandler) -> Any:
        if given is None or (isinstance(given, str) and given == OFF):
            return None
        if not isinstance(given, Mapping | BaseModel):
            raise ValueError(f'must be a table of changes, or "{OFF}", which sets all of it to its defaults')
        return validate(given)

    @field_validator("dataset", mode="before")
    @classmethod
    def _refuse_other_than_changes(cls, given: object) -> object:
        if given == OFF:
            raise ValueError("a dataset cannot be switched off; name another, or change its options")
        if given is not None and not isinstance(given, str | Mapping):
            raise ValueError("must be a table of changes, or the name of another dataset")
        return given


def _describe(changes: Mapping[str, Any], table: str = "") -> Iterator[str]:
    """Yield each change of nested tables; a table of the experiment that is None is off."""
    for key, change in changes.items():
        if isinstance(change, Mapping):
            yield from _describe(change, f"{table}{key}.")
        elif change is None and not table:
            yield f"{key} {OFF}"
        else:
            yield to_printable_line(f"{table}{key} = {json.dumps(change, ensure_ascii=False)}")
