"""Experiment: what a TOML file says, as data. The same models are the Python API. No torch here.

Component options stay raw in here; the registry, which knows the components, checks them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from decoderbench.config.toml_lines import line_of
from decoderbench.data.label_normalizer import LabelNormalizer
from decoderbench.errors import ConfigError, DataError, did_you_mean
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
"""Safe as a folder, in HTML, in CSV and on a command line."""

Location = tuple[str | int, ...]


class ComponentChoice(BaseModel):
    """A component by name; every other key is one of its options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    use: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: object) -> object:
        return {"use": given} if isinstance(given, str) else given

    @property
    def options(self) -> dict[str, Any]:
        """The options as given."""
        return dict(self.model_extra or {})


class LabelOptions(Options):
    """What labels may be; found in the data where it is left out."""

    charset: str | None = None
    """Characters that labels may hold in the data, in the order of their ids; all characters of the data if left out.
    It is judged before labels are normalized: upper-case labels need upper-case letters here, whatever their case
    becomes. Decoders are built for what normalizing makes of it."""

    max_length: int | None = Field(default=None, ge=1)
    """Characters that a label may have, in the data and normalized; the longest of the data if left out."""

    normalize: LabelNormalizer = LabelNormalizer()
    """What is made of the labels that were accepted, before they are trained on and scored; nothing if left out."""

    @field_validator("charset")
    @classmethod
    def _no_repeats(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                Charset(given)
            except DataError as error:
                raise ValueError(str(error)) from None
        return given


class Selection(Options):
    """The combinations of a grid that have all the labels given here."""

    rectifier: str | None = None
    encoder: str | None = None
    bridge: str | None = None
    decoder: str | None = None

    def labels(self) -> dict[str, str]:
        """Return the labels that were given, by axis."""
        return {axis: label for axis in AXES if (label := getattr(self, axis)) is not None}

    def fits(self, variant: Mapping[str, str]) -> bool:
        """Return whether a combination, labels by axis, is one of them."""
        return all(variant[axis] == label for axis, label in self.labels().items())


class Exclusion(Selection):
    """Combinations to leave out: those that have all the labels given here."""


class RowName(Selection):
    """What the one combination that has all the labels given here is called."""

    name: str
    """Stands first in the row of a table. It is no part of a cell: another name trains nothing again."""


class Grid(Options):
    """The axes: every combination of one variant of each is a cell. A variant's label is its name in tables."""

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Each combination is trained once with each seed."""

    rectifier: dict[str, ComponentChoice] = Field(default={"none": ComponentChoice(use="none")}, min_length=1)
    """Rectifiers by label; none if left out."""

    encoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Encoders by label."""

    bridge: dict[str, ComponentChoice] = Field(min_length=1)
    """Bridges by label."""

    decoder: dict[str, ComponentChoice] = Field(min_length=1)
    """Decoders by label."""

    exclude: tuple[Exclusion, ...] = ()
    """Combinations to leave out, by their labels, as in `{ encoder = "coarse", decoder = "CTC" }`."""

    names: tuple[RowName, ...] = ()
    """Names of single combinations, as in `{ name = "CRNN", encoder = "VGG", bridge = "BiLSTM", decoder = "CTC" }`."""

    def variants(self) -> list[dict[str, str]]:
        """Return the label of each axis for every combination, decoders innermost."""
        axes = {axis: getattr(self, axis) for axis in AXES}
        combinations = (dict(zip(axes, labels, strict=True)) for labels in product(*axes.values()))
        return [one for one in combinations if not any(exclusion.fits(one) for exclusion in self.exclude)]

    def name_of(self, variant: Mapping[str, str]) -> str:
        """Return the name of a combination, labels by axis; empty if it has none."""
        return next((row.name for row in self.names if row.fits(variant)), "")

    @field_validator("seeds")
    @classmethod
    def _usable_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed is listed twice; list each once")
        if bad := [seed for seed in seeds if not 0 <= seed < 2**63]:
            raise ValueError(f"seeds lie between 0 and 2**63 - 1, given {bad[0]}")
        return seeds

    @field_validator(*AXES)
    @classmethod
    def _readable_labels(cls, variants: dict[str, ComponentChoice]) -> dict[str, ComponentChoice]:
        for label in variants:
            _refuse_unreadable("label", label)
        return variants

    @model_validator(mode="after")
    def _usable_exclusions(self) -> Self:
        for exclusion in self.exclude:
            if not exclusion.labels():
                raise ValueError("an empty exclusion leaves out everything; name a label of an axis")
            self._refuse_unknown_labels("exclude", exclusion)
        if not self.variants():
            raise ValueError("exclude leaves no combination; take an exclusion out")
        return self

    @model_validator(mode="after")
    def _usable_names(self) -> Self:
        named: dict[tuple[str, ...], str] = {}
        for row in self.names:
            _refuse_unreadable("name", row.name)
            self._refuse_unknown_labels(f"name {row.name!r}", row)
            fitting = [tuple(variant.values()) for variant in self.variants() if row.fits(variant)]
            if len(fitting) != 1:
                count = len(fitting) or "none that exclude leaves"
                raise ValueError(f"name {row.name!r} must fit one combination, fits {count}; give the labels of one")
            if row.name in named.values():
                raise ValueError(f"name {row.name!r} is given twice; names differ")
            if other := named.get(fitting[0]):
                raise ValueError(f"{' / '.join(fitting[0])} is named {other!r} and {row.name!r}; take one name out")
            named[fitting[0]] = row.name
        return self

    def _refuse_unknown_labels(self, what: str, selection: Selection) -> None:
        for axis, label in selection.labels().items():
            if label not in (known := list(getattr(self, axis))):
                raise ValueError(f"{what} names the unknown {axis} {label!r}{did_you_mean(label, known)}")


class Experiment(Options):
    """One experiment: data, image size, training and the grid of components to compare."""

    name: str = Field(pattern=NAME_PATTERN)
    """Names the folder under results/ and the rows of a table."""

    dataset: ComponentChoice
    """The registered dataset to use, and its options; relative paths start at the experiment file's folder."""

    grid: Grid
    image: ImageOptions = ImageOptions()
    labels: LabelOptions = LabelOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    allow: tuple[str, ...] = ()
    """Codes of data problems to accept; each is then counted below every table."""

    def as_given(self) -> dict[str, Any]:
        """Return what was set, without the defaults, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment from a TOML file.

    Raises:
        ConfigError: listing every mistake in syntax, keys and values with file, line and key.
    """
    data, text = read_toml(path)
    return parse_experiment(data, source=str(path), text=text)


def read_toml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Return a TOML file as plain data and as text; raise `ConfigError` if it is not one."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), text
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; give the path of an experiment's .toml file"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read as UTF-8 text: {error}"]) from None


def parse_experiment(data: Mapping[str, Any], *, source: str, text: str = "") -> Experiment:
    """Validate plain data; `source` and `text` say where it came from, for the messages."""
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        problems = [describe(source, text, *_explain(problem, Experiment)) for problem in error.errors()]
        raise ConfigError(problems) from None


def describe(source: str, text: str, location: Location, message: str) -> str:
    """Return `file:line: key: message`; the line is left out where the key is not in the file."""
    line = line_of(text, location)
    where = f"{source}:{line}" if line else source
    return f"{where}: {'.'.join(map(str, location))}: {message}"


def explain_options(error: ValidationError, model: type[BaseModel]) -> list[tuple[Location, str]]:
    """Return the location and the message of each mistake in a component's options."""
    return [_explain(problem, model) for problem in error.errors()]


def _explain(problem: Any, model: type[BaseModel]) -> tuple[Location, str]:
    location: Location = problem["loc"]
    message, given = problem["msg"], problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        return location, f"unknown key{did_you_mean(str(location[-1]), known)}; known: {', '.join(known) or 'none'}"
    if problem["type"] == "missing":
        return location, f"is missing; every {'experiment' if len(location) == 1 else 'such table'} needs it"
    if problem["type"] == "tuple_type":
        message = "Input should be a list, as in [...] or, for tables, [[...]]"
    ours = message.startswith("Value error, ")
    message = message.removeprefix("Value error, ")
    if not isinstance(given, Mapping | list | tuple) and repr(given) not in message:
        message = f"{message}, given {given!r}"
    return location, message if ours else message[0].lower() + message[1:]


def _refuse_unreadable(what: str, text: str) -> None:
    if not text or text != text.strip() or not text.isprintable() or len(text) > 64:
        raise ValueError(f"{what} {text!r} must be 1 to 64 printable characters without blanks around them; rename it")


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that are known at a location of a model."""
    for key in location:
        if isinstance(key, int):
            continue  # a row of a list, whose model is that of its rows
        field = model.model_fields.get(key)
        types = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = next((one for one in types if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is None:
            break
        model = inner
    return sorted(model.model_fields)
