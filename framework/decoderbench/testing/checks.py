"""Checks: a rule asked of one component, whoever asks: a call, the command line, or pytest."""

from __future__ import annotations

import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from decoderbench.data.dataset import Dataset
from decoderbench.errors import PluginError
from decoderbench.metrics import Metric
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.options import ComponentConfig
from decoderbench.registry.global_state import process_state_kept
from decoderbench.registry.registry import Shelf
from decoderbench.testing.rules import ConformanceError, NotAskedError, require

FIRST_SEED = 271828  # none that a component would seed with

BASES: dict[str, type] = {
    "rectifier": Rectifier,
    "encoder": Encoder,
    "bridge": Bridge,
    "decoder": Decoder,
    "dataset": Dataset,
    "metric": Metric,
}


@dataclass
class Subject(ABC):
    """A component class and the options that it is checked with."""

    kind: str
    cls: Any
    options: Mapping[str, object] = field(default_factory=dict)
    base_dir: Path = Path()
    """Where relative paths of a dataset's options start."""

    @property
    def who(self) -> str:
        """What a message calls it."""
        return f"{self.kind} {getattr(self.cls, 'name', self.cls.__name__)!r}"

    @cached_property
    def config(self) -> ComponentConfig:
        """The options, with all defaults."""
        config_class: type[ComponentConfig] = self.cls.Config
        return config_class.model_validate(self.options)

    @abstractmethod
    def outcome(self) -> Iterator[bytes]:
        """Do what a run does with it, from the seed 0, and yield all that comes of it."""


Rule = Callable[[Any], None]


@dataclass(frozen=True)
class Check:
    """One rule, to be asked of one component by calling it."""

    subject: Subject
    rule: Rule

    @property
    def name(self) -> str:
        """What expected failures and reports call it, such as `memorizes`."""
        return self.rule.__name__

    @property
    def sentence(self) -> str:
        """What the rule says, without a full stop."""
        return (self.rule.__doc__ or self.name).partition("\n")[0].rstrip(".")

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.subject.options.items())
        return (
            f"{self.subject.kind}/{getattr(self.subject.cls, 'name', self.subject.cls.__name__)}({options})-{self.name}"
        )

    def __call__(self) -> None:
        """Ask, from the same random state each time, and leave the process as it was.

        Raises:
            ConformanceError: the rule is broken; whatever a component raises is a breach.
            NotAskedError: the rule cannot be asked of this component.
        """
        with process_state_kept():
            torch.manual_seed(FIRST_SEED)
            try:
                self.rule(self.subject)
            except ConformanceError as breach:
                raise ConformanceError(
                    f"{self.subject.who} breaks the rule: {self.sentence}; {breach}", got=breach.got, do=breach.do
                ) from None
            except NotAskedError:
                raise
            except (Exception, SystemExit) as error:
                got, do = f"{type(error).__name__}: {error}", _look_at(error, self.subject.cls)
                raise ConformanceError(
                    f"{self.subject.who} breaks the rule: {self.sentence}; got {got}; {do}", got=got, do=do
                ) from error


def _look_at(error: BaseException, cls: Any) -> str:
    """Return the last line of the component's own file on the way to an error, as a move."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):
        file = ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"look at {Path(file).name}:{lines[-1]}" if lines else "the traceback (check --verbose) shows where"


def kind_of(component: object) -> str | None:
    """Return which kind of component a class is, or None if it is none."""
    if not isinstance(component, type):
        return None
    return next((kind for kind, base in BASES.items() if issubclass(component, base)), None)


def can_be_registered(subject: Subject) -> None:
    """The registry takes it, and each of its options has a default and a docstring."""
    shelf: Shelf[Any] = Shelf(subject.kind, BASES[subject.kind])
    try:
        shelf.add(subject.cls, getattr(subject.cls, "__module__", "?"), "under check")
    except PluginError as error:
        raise ConformanceError(str(error), got=str(error), do="") from None
    if subject.kind == "metric":
        return
    for name, option in subject.cls.Config.model_fields.items():
        who = f"option {name!r} of {subject.who}"
        if subject.kind != "dataset":  # where its images lie, only its user knows
            require(not option.is_required(), got=f"{who} without a default", do="give it one: a name is enough then")
        require(option.description is not None, got=f"{who} without a docstring", do="say below it what it does")
    assert subject.config is not None


def ask_all(checks: Iterable[Check]) -> None:
    """Ask one check after the other; raise at the first breach."""
    for check in checks:
        try:
            check()
        except NotAskedError:
            continue
