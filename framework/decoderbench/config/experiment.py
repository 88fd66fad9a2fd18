"""Experiment: the contents of a TOML file as validated data, and the Python API of the same. No torch here.

Options of components are not validated here but by the registry, which knows the components.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from decoderbench.config.mistakes import Location, describe_mistake, explain_mistakes
from decoderbench.config.typed_values import decide
from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.errors import ConfigError, DataError, did_you_mean
from decoderbench.exception_text import to_printable_line
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions, refuse

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Names that are safe as a folder, in HTML, in CSV and on a command line."""

MAX_CELLS = 10_000
"""The most cells of a grid, those excluded counted too: planning more takes minutes, and training them weeks."""


class ComponentChoice(BaseModel):
    """A component by name; all other keys are its options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    use: str

    @model_validator(mode="before")
    @classmethod
    def _accept_name_alone(cls, given: object) -> object:
        return {"use": given} if isinstance(given, str) else given

    @property
    def options(self) -> dict[str, Any]:
        """The options of the component, not validated."""
        return dict(self.model_extra or {})


class LabelOptions(Options):
    """Limits on labels, and how labels are normalized; limits that are not set are taken from the data."""

    charset: str | None = None
    """Characters that labels in the data may contain, in the order of their ids; if not set, all that the data contain.
    It is checked before labels are normalized: upper-case labels need upper-case letters here, even if they are then
    lower-cased. Decoders are built for the normalized charset."""

    extra_characters: str = ""
    """Characters to add to those in the data if charset is not set, invisible ones such as U+200C (`"\\u200c"`) too."""

    max_length: int | None = Field(default=None, ge=1)
    """Largest number of characters of a label, before and after normalizing; if not set, that of the longest label in
    the data that can be spelled."""

    normalize: LabelNormalizer = LabelNormalizer()
    """How accepted labels are normalized before training and scoring; not at all if not set."""

    @field_validator("charset")
    @classmethod
    def _refuse_invalid_charset(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                Charset(given)
            except DataError as error:
                raise ValueError(str(error)) from None
        return given

    @model_validator(mode="after")
    def _refuse_two_lists_of_characters(self) -> Self:
        if self.charset is not None and self.extra_characters:
            raise ValueError(
                f"extra_characters {self.extra_characters!r} are added to the characters in the data, and charset "
                f"lists all that labels may contain; add them to charset, and remove extra_characters"
            )
        return self


class Selection(Options):
    """Selects the combinations of a grid that have all the given labels."""

    rectifier: str | None = None
    encoder: str | None = None
    bridge: str | None = None
    decoder: str | None = None

    def labels(self) -> dict[str, str]:
        """Return the given labels, by axis."""
        return {axis: label for axis in AXES if (label := getattr(self, axis)) is not None}

    def matches(self, variant: Mapping[str, str]) -> bool:
        """Return whether a combination, given as labels by axis, is selected."""
        return all(variant[axis] == label for axis, label in self.labels().items())


class Exclusion(Selection):
    """Excludes the combinations that have all the given labels."""


class RowName(Selection):
    """Names the one combination that has all the given labels."""

    name: str
    """Shown first in the row of a table. Not part of a cell's identity: changing it retrains nothing."""


class Grid(Options):
    """The components to combine: each combination of one variant per axis is trained once per seed.

    The label of a variant is its name in tables.
    """

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Each combination is trained once per seed."""

    rectifier: dict[str, ComponentChoice] = Field(default={"none": ComponentChoice(use="none")}, min_length=1)
    """Rectifiers by label; only `none` if not set."""

    encoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Encoders by label."""

    bridge: dict[str, ComponentChoice] = Field(min_length=1)
    """Bridges by label."""

    decoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Decoders by label."""

    exclude: tuple[Exclusion, ...] = ()
    """Combinations to exclude, by their labels, as in `{ encoder = "coarse", decoder = "CTC" }`."""

    names: tuple[RowName, ...] = ()
    """Names of single combinations, as in `{ name = "CRNN", encoder = "VGG", bridge = "BiLSTM", decoder = "CTC" }`."""

    def variants(self) -> list[dict[str, str]]:
        """Return every combination that is not excluded, as labels by axis; the decoder varies fastest."""
        axes = {axis: getattr(self, axis) for axis in AXES}
        combinations = (dict(zip(axes, labels, strict=True)) for labels in product(*axes.values()))
        return [variant for variant in combinations if not any(one.matches(variant) for one in self.exclude)]

    def name_of(self, variant: Mapping[str, str]) -> str:
        """Return the name of a combination, given as labels by axis; empty if it has none."""
        return next((row.name for row in self.names if row.matches(variant)), "")

    @field_validator("seeds")
    @classmethod
    def _refuse_invalid_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is listed twice; list each once")
        if bad := [seed for seed in seeds if not 0 <= seed < 2**63]:
            raise ValueError(f"seeds must be between 0 and 2**63 - 1, given {bad[0]}")
        return seeds

    @field_validator(*AXES)
    @classmethod
    def _refuse_invalid_labels(cls, variants: dict[str, ComponentChoice]) -> dict[str, ComponentChoice]:
        for label in variants:
            _refuse_unprintable_text("label", label)
        return variants

    @model_validator(mode="after")
    def _refuse_too_many_cells(self) -> Self:
        count = math.prod(len(getattr(self, axis)) for axis in AXES) * len(self.seeds)
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
            if len(matching) != 1:
                matches, move = f"{len(matching)}", f"set more of {', '.join(AXES)}"
                if not matching:
                    matches, move = "none (after `exclude`)", "change its labels, or remove the exclusion"
                rule = f"name {row.name!r} must match exactly one combination, matches {matches}; {move}"
                self._refuse("names", number, rule)
            if row.name in named.values():
                self._refuse("names", number, f"name {row.name!r} is used twice; choose another")
            if other := named.get(matching[0]):
                rule = f"{' / '.join(matching[0])} is named {other!r} and {row.name!r}; remove one name"
                self._refuse("names", number, rule)
            named[matching[0]] = row.name
        return self

    def _refuse_unknown_labels(self, key: str, number: int, selection: Selection) -> None:
        what = f"name {selection.name!r}" if isinstance(selection, RowName) else "exclude"
        for axis, label in selection.labels().items():
            if label not in (known := list(getattr(self, axis))):
                rule = f"{what} refers to the unknown {axis} {label!r}{did_you_mean(label, known)}"
                self._refuse(key, number, f"{rule}; known: {', '.join(known)}")

    def _refuse(self, key: str, number: int | None, rule: str) -> None:
        """Refuse an item of a list, or the whole list."""
        refuse({(key,) if number is None else (key, number): rule}, dict(self), "Grid")


class Experiment(Options):
    """One experiment: the data, the image size, the training and the grid of components to compare."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the folder under results/, and of the experiment in tables."""

    dataset: ComponentChoice
    """The dataset, by its registered name, and its options; paths are relative to the folder of the experiment file."""

    grid: Grid
    image: ImageOptions = ImageOptions()
    labels: LabelOptions = LabelOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    allow: tuple[str, ...] = ()
    """Codes of data problems to accept; a footnote of every table then counts the samples that have them."""

    _source: str = PrivateAttr(default="")
    _text: str = PrivateAttr(default="")

    def as_given(self) -> dict[str, Any]:
        """Return the keys that were set, without defaults, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)

    def describe_mistake(self, location: Location, message: str) -> str:
        """Return the message for a mistake found later; with file and line if the experiment is from a file."""
        return describe_mistake(self._source, self._text, location, message)


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment from a TOML file.

    Raises:
        ConfigError: listing every mistake in syntax, keys and values, with file, line and key.
    """
    data, text = read_toml(path)
    return parse_experiment(data, source=str(path), text=text)


def read_toml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Return a TOML file as plain data and as text; raise `ConfigError` if it cannot be read or parsed."""
    path, text = Path(path), ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; give the path of an experiment's .toml file"]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text: {error.reason}; save it as UTF-8"]) from None
    except (OSError, ValueError, RecursionError) as error:  # a path with NUL, and numbers of thousands of digits
        raise ConfigError([_describe_unreadable_file(path, text, error)]) from None


def _describe_unreadable_file(path: Path, text: str, error: Exception) -> str:
    """Return the message for a file that cannot be read or is not TOML, with the line that is to be corrected."""
    if isinstance(error, OSError):
        return f"{path}: cannot be read: {error.strerror}; give the path of an experiment's .toml file"
    place = re.fullmatch(r"(?s)(.*) \(at line (\d+), column \d+\)", str(error))
    if place is None:
        return f"{path}: not valid TOML: {error}"
    line = text.split("\n")[int(place[2]) - 1].strip()
    return f"{path}:{place[2]}: not valid TOML: {place[1]}; correct the line {to_printable_line(line, 80)!r}"


def parse_experiment(data: Mapping[str, Any], *, source: str, text: str = "") -> Experiment:
    """Validate plain data.

    Args:
        data: the experiment, as in a TOML file; values typed on a command line may be `Typed`.
        source: path of the file, for messages.
        text: contents of the file, to find line numbers for messages.

    Raises:
        ConfigError: listing every mistake in keys and values.
    """
    try:
        experiment = Experiment.model_validate(decide(data, Experiment))
    except ValidationError as error:
        mistakes = [describe_mistake(source, text, *mistake) for mistake in explain_mistakes(error, Experiment)]
        raise ConfigError(mistakes) from None
    experiment._source, experiment._text = source, text
    return experiment


def _refuse_unprintable_text(what: str, text: str) -> None:
    if not text or text != text.strip() or not text.isprintable() or len(text) > 64:
        raise ValueError(
            f"{what} {text!r} must be 1 to 64 printable characters without leading or trailing spaces; rename it"
        )
