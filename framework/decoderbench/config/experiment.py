"""Experiment: the contents of a TOML file as validated data, and the Python API of the same. No torch here.

Options of components are not validated here but by the registry, which knows the components.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from decoderbench.config.grid import MAX_CELLS, DatasetChoice, Grid
from decoderbench.config.labels import LabelOptions
from decoderbench.config.merging import merge
from decoderbench.config.mistakes import Location, describe_mistake, explain_mistakes
from decoderbench.config.settings import Setting
from decoderbench.config.tuning import TuningOptions
from decoderbench.config.typed_values import decide
from decoderbench.errors import ConfigError
from decoderbench.exception_text import to_printable_line
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, Options, TrainingOptions, refuse

MAX_NAME = 64
"""The most characters of a name."""

NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$"
"""Names that are safe as a folder, in HTML, in CSV and on a command line."""

MAX_QUESTION = 1000
"""The most characters of a question."""


class Experiment(Options):
    """One experiment: the data, the image size, the training and the grid of components to compare."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the folder under results/, and of the experiment in tables."""

    question: str = ""
    """What the experiment asks, in a sentence or two, above the answer of its report; line breaks count as blanks.

    Reports do not mention it if it is empty."""

    dataset: DatasetChoice
    """The dataset, by its registered name, and its options; paths are relative to the folder of the experiment file."""

    grid: Grid
    image: ImageOptions = ImageOptions()
    labels: LabelOptions = LabelOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

    tuning: TuningOptions | None = None
    """Short runs that choose options for each row; if not set, all rows have the options above."""

    allow: tuple[str, ...] = ()
    """Codes of data problems to accept; a footnote of every table then counts the samples that have them."""

    _source: str = PrivateAttr(default="")
    _text: str = PrivateAttr(default="")

    @field_validator("question")
    @classmethod
    def _join_lines(cls, given: str) -> str:
        question = " ".join(given.split())
        if len(question) > MAX_QUESTION:
            raise ValueError(f"has {len(question):,} characters, and there may be {MAX_QUESTION:,}; shorten it")
        return question

    @model_validator(mode="after")
    def _refuse_invalid_settings(self) -> Self:
        rules: dict[Location, str] = {}
        for label, setting in self.grid.settings.items():
            for table, change in setting.changes().items():
                try:
                    self._changed(table, change)
                except ValidationError as error:
                    mistakes = explain_mistakes(error, type(getattr(self, table)))
                    rules |= {("grid", "settings", label, table, *at): rule for at, rule in mistakes}
        refuse(rules, {"grid": {}}, "Experiment")
        tables = {label: experiment.tables() for label, experiment in self.settings().items()}
        for label, content in tables.items():
            if (first := next(other for other in tables if tables[other] == content)) != label:
                rules["grid", "settings", label] = (
                    f"says the same as the setting {first!r}; change or remove one of them"
                )
        refuse(rules, {"grid": {}}, "Experiment")
        return self

    @model_validator(mode="after")
    def _refuse_too_many_cells(self) -> Self:
        count = self._count_models() * len(self.grid.seeds)
        if count > MAX_CELLS:
            rule = f"makes {count:,} cells, and there may be {MAX_CELLS:,}; lower it, or divide the grid among files"
            refuse({("dataset", "folds"): rule}, {"dataset": {}}, "Experiment")
        return self

    @model_validator(mode="after")
    def _refuse_invalid_tuning(self) -> Self:
        if self.tuning is not None:
            refuse(self._broken_rules_of(self.tuning), {"tuning": {}}, "Experiment")
        return self

    def _count_models(self) -> int:
        """Return how many models all combinations have per seed: each one per fold of its data."""
        folds = {label: changed.dataset.folds or 1 for label, changed in self.settings().items()}
        return sum(folds[variant["setting"]] for variant in self.grid.variants())

    def settings(self) -> dict[str, Experiment]:
        """Return the experiment under each setting, by label; without settings, itself by an empty label."""
        return {
            label: self.model_copy(update={table: self._changed(table, change) for table, change in changes.items()})
            for label, changes in ((label, setting.changes()) for label, setting in self.grid.settings.items())
        } or {"": self}

    def tables(self) -> dict[str, Options | DatasetChoice]:
        """Return the tables that a setting may change, by name."""
        return {table: getattr(self, table) for table in Setting.model_fields}

    def with_options(self, values: Mapping[str, Any]) -> Experiment:
        """Return the experiment with other values of options, as in `{"training.learning_rate": 0.001}`."""
        changes: dict[str, dict[str, Any]] = {}
        for option, value in values.items():
            table, _, name = option.partition(".")
            changes.setdefault(table, {})[name] = value
        return self.model_copy(update={table: self._changed(table, change) for table, change in changes.items()})

    def _broken_rules_of(self, tuning: TuningOptions) -> dict[Location, str]:
        """Return what is wrong with tuning, given the rest of the experiment, by its place."""
        rules: dict[Location, str] = {}
        if shared := set(tuning.seeds) & set(self.grid.seeds):
            rules["tuning", "seeds"] = (
                f"{min(shared)} is a seed of the grid too, whose results must not depend on what was chosen by it; "
                f"list other seeds"
            )
        count = self._count_models() * tuning.num_trials
        if count > MAX_CELLS:
            rules["tuning", "over"] = f"{count:,} trials, and there may be {MAX_CELLS:,}; list fewer values"
        for option, values in tuning.over.items():
            table, _, name = option.partition(".")
            at = "tuning", "over", option
            for label, setting in self.grid.settings.items():
                change = setting.changes().get(table, {})
                if change is None or name in change:
                    rules[at] = f"is set by the setting {label!r} too; leave it to one of them"
            for value in values:
                try:
                    self._changed(table, {name: value})
                except ValidationError as error:
                    rules.setdefault(at, explain_mistakes(error, type(getattr(self, table)))[0][1])
        return rules

    def _changed(self, table: str, change: Any) -> Any:
        """Return a table with a change of a setting; raise `ValidationError` if it does not fit."""
        given = {} if change is None else merge({table: self.as_given().get(table, {})}, {table: change})[table]
        return type(getattr(self, table)).model_validate(given)

    def as_given(self) -> dict[str, Any]:
        """Return the keys that were set, without defaults, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)

    def describe_mistake(self, location: Location, message: str) -> str:
        """Return the message for a mistake found later; with file and line if the experiment is from a file."""
        return describe_mistake(self._source, self._text, location, message)


def to_name(text: str) -> str:
    """Return a name of an experiment for a text, as in "my-captchas" for "My captchas"; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[:MAX_NAME]


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
