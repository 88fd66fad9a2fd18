"""Grid: the axes of an experiment, and which of their combinations are rows of its table. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decoderbench.config.seeds import Seeds
from decoderbench.config.settings import Setting
from decoderbench.errors import did_you_mean
from decoderbench.kinds import AXES, VARIANT
from decoderbench.options import Options, refuse

MAX_CELLS = 10_000
"""The most cells of a grid, those excluded counted too: planning more takes minutes, and training them weeks."""


class ComponentChoice(BaseModel):
    """A component by name; all other keys are its options."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    use: str
    """The registered name of the component."""

    @model_validator(mode="before")
    @classmethod
    def _accept_name_alone(cls, given: object) -> object:
        return {"use": given} if isinstance(given, str) else given

    @property
    def options(self) -> dict[str, Any]:
        """The options of the component, not validated."""
        return dict(self.model_extra or {})


class DatasetChoice(ComponentChoice):
    """A dataset by name. The options here are those of every dataset, which the framework applies."""

    train_limit: int | None = Field(default=None, strict=True)
    """Number of labeled images to train and validate on, divided like all of them, at least one each. They are the
    first of an order that depends on the seed and is the same for all rows, so a smaller set is part of a larger one.
    All if not set. Test images stay as they are."""

    folds: int | None = Field(default=None, strict=True)
    """K: every row is trained K times per seed, and each image is in the test part of one fold; 2 or more.

    Folds take the place of the dataset's own split. They differ in size by one image at most; images of a group stay
    together. What a fold does not test is divided into train and val in the ratio of the dataset's `fractions` if they
    are set, else in that of its own train and val; another `split_seed` of the dataset gives other folds. Results count
    as one row over all images."""

    @field_validator("folds")
    @classmethod
    def _refuse_less_than_two_folds(cls, folds: int | None) -> int | None:
        if folds is not None and folds < 2:
            raise ValueError("must be 2 or more, as a fold is tested by a model that was trained on the others")
        return folds

    @field_validator("train_limit")
    @classmethod
    def _refuse_less_than_two(cls, limit: int | None) -> int | None:
        if limit is not None and limit < 2:
            raise ValueError("must be 2 or more, as one image is to train on and one to validate on")
        return limit


class Selection(Options):
    """Selects the combinations of a grid that have all the given labels."""

    rectifier: str | None = None
    encoder: str | None = None
    bridge: str | None = None
    decoder: str | None = None
    setting: str | None = None

    def labels(self) -> dict[str, str]:
        """Return the given labels, by axis."""
        return {axis: label for axis in VARIANT if (label := getattr(self, axis)) is not None}

    def matches(self, variant: Mapping[str, str]) -> bool:
        """Return whether a combination, given as labels by axis, is selected."""
        return all(variant[axis] == label for axis, label in self.labels().items())


class Exclusion(Selection):
    """Excludes the combinations that have all the given labels."""


class RowName(Selection):
    """Names the one combination that has all the given labels; without `setting`, its rows under every setting."""

    name: str
    """Shown first in the row of a table. Not part of a cell's identity: changing it retrains nothing."""


class Grid(Options):
    """The components to combine: each combination of one variant per axis is trained once per seed.

    The label of a variant is its name in tables.
    """

    seeds: Seeds = (0,)
    """Each combination is trained once per seed."""

    rectifier: dict[str, ComponentChoice] = Field(default={"none": ComponentChoice(use="none")}, min_length=1)
    """Rectifiers by label; only `none` if not set."""

    encoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Encoders by label."""

    bridge: dict[str, ComponentChoice] = Field(min_length=1)
    """Bridges by label."""

    decoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Decoders by label."""

    settings: dict[str, Setting] = Field(default_factory=dict)
    """Changes to other tables by label, such as `"no augmentation" = { augmentation = "off" }`: each combination is
    trained under each of them. `{}` is the experiment as it is, the only setting if none is given."""

    exclude: tuple[Exclusion, ...] = ()
    """Combinations to exclude, by labels of axes and settings, as in `{ encoder = "coarse", decoder = "CTC" }`."""

    names: tuple[RowName, ...] = ()
    """Names of single combinations, as in `{ name = "CRNN", encoder = "VGG", bridge = "BiLSTM", decoder = "CTC" }`."""

    def variants(self) -> list[dict[str, str]]:
        """Return every combination that is not excluded, as labels by axis; the setting varies fastest.

        Without settings, that label is empty.
        """
        combinations = (dict(zip(VARIANT, labels, strict=True)) for labels in product(*map(self.labels_of, VARIANT)))
        return [variant for variant in combinations if not any(one.matches(variant) for one in self.exclude)]

    def labels_of(self, axis: str) -> list[str]:
        """Return the labels of an axis; that of the setting is empty without settings."""
        return list(self.settings) or [""] if axis == "setting" else list(getattr(self, axis))

    def name_of(self, variant: Mapping[str, str]) -> str:
        """Return the name of a combination, given as labels by axis; empty if it has none."""
        return next((row.name for row in self.names if row.matches(variant)), "")

    @field_validator(*AXES, "settings")
    @classmethod
    def _refuse_invalid_labels(cls, variants: dict[str, Any]) -> dict[str, Any]:
        for label in variants:
            _refuse_unprintable_text("label", label)
        return variants

    @model_validator(mode="after")
    def _refuse_too_many_cells(self) -> Self:
        count = math.prod(len(self.labels_of(axis)) for axis in VARIANT) * len(self.seeds)
        if count > MAX_CELLS:
            raise ValueError(f"{count:,} cells, and a grid may have {MAX_CELLS:,}; divide it among several files")
        return self

    @model_validator(mode="after")
    def _refuse_invalid_exclusions(self) -> Self:
        for number, exclusion in enumerate(self.exclude):
            if not exclusion.labels():
                self._refuse("exclude", number, "an empty exclusion excludes everything; set a label of an axis")
            self._refuse_unknown_labels("exclude", number, exclusion)
        if not self.variants():
            self._refuse("exclude", None, "exclude leaves no combination; remove an exclusion")
        return self

    @model_validator(mode="after")
    def _refuse_invalid_names(self) -> Self:
        named: dict[tuple[str, ...], str] = {}
        for number, row in enumerate(self.names):
            _refuse_unprintable_text("name", row.name)
            self._refuse_unknown_labels("names", number, row)
            matching = [tuple(variant.values()) for variant in self.variants() if row.matches(variant)]
            stages = {variant[: len(AXES)] for variant in matching}
            if len(stages) != 1:
                matches, move = f"{len(stages)}", f"set more of {', '.join(AXES)}"
                if not matching:
                    matches, move = "none (after `exclude`)", "change its labels, or remove the exclusion"
                rule = f"name {row.name!r} must match exactly one combination, matches {matches}; {move}"
                self._refuse("names", number, rule)
            if row.name in named.values():
                self._refuse("names", number, f"name {row.name!r} is used twice; choose another")
            for variant in matching:
                if other := named.get(variant):
                    title = " / ".join(filter(None, variant))
                    self._refuse("names", number, f"{title} is named {other!r} and {row.name!r}; remove one name")
                named[variant] = row.name
        return self

    def _refuse_unknown_labels(self, key: str, number: int, selection: Selection) -> None:
        what = f"name {selection.name!r}" if isinstance(selection, RowName) else "exclude"
        for axis, label in selection.labels().items():
            if label not in (known := [known for known in self.labels_of(axis) if known]):
                rule = f"{what} refers to the unknown {axis} {label!r}{did_you_mean(label, known)}"
                self._refuse(key, number, f"{rule}; known: {', '.join(known) or 'none'}")

    def _refuse(self, key: str, number: int | None, rule: str) -> None:
        """Refuse an item of a list, or the whole list."""
        refuse({(key,) if number is None else (key, number): rule}, dict(self), "Grid")


def _refuse_unprintable_text(what: str, text: str) -> None:
    if not text or text != text.strip() or not text.isprintable() or len(text) > 64:
        raise ValueError(
            f"{what} {text!r} must be 1 to 64 printable characters without leading or trailing spaces; rename it"
        )
