"""A check: one rule, applied to one component.

A rule is a function that takes a subject and raises `ConformanceError` or `RuleSkipped`. Its docstring states the rule,
and is what a person reads when it fails. Its name is the key of expected failures.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decoderbench.exception_text import text_of, type_name
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.testing.assertions import ConformanceError, RuleSkipped
from decoderbench.testing.subjects.base import Subject

SEED = 271828  # unlikely to be the seed that a component sets

Rule = Callable[[Any], None]


@dataclass(frozen=True)
class Check:
    """One rule and the component to apply it to; call it to run it."""

    subject: Subject
    rule: Rule
    advisory: bool = False
    """Whether a component that breaks the rule works all the same; `decoderbench check` then warns."""

    @property
    def name(self) -> str:
        """The name of the rule in expected failures and reports, such as `memorizes_six_texts`."""
        return self.rule.__name__

    @property
    def sentence(self) -> str:
        """The rule as a sentence, without its full stop."""
        return (self.rule.__doc__ or self.name).partition("\n")[0].rstrip(".")

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.subject.options.items())
        return f"{self.subject.kind}/{self.subject.name}({options})-{self.name}"

    def __call__(self) -> None:
        """Run the check from a fixed random state, and restore any global state that it changes.

        Raises:
            ConformanceError: the component breaks the rule; any exception of the component counts.
            RuleSkipped: the rule cannot be checked for this component.
        """
        with preserving_global_state():
            torch.manual_seed(SEED)
            try:
                self.rule(self.subject)
            except ConformanceError as failure:
                raise self._failure(str(failure), failure.got, failure.do) from None
            except RuleSkipped:
                raise
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                got, do = f"{type_name(error)}: {text_of(error)}", self.subject.advice
                do = do or _point_to_source(error, self.subject.cls)
                raise self._failure(f"got {got}; {do}", got, do) from error

    def _failure(self, details: str, got: str, do: str) -> ConformanceError:
        message = f"{self.subject.title} breaks the rule {self.name}: {self.sentence}; {details}"
        return ConformanceError(message, got=got, do=do)


def run_all(checks: Iterable[Check]) -> None:
    """Run checks in order; raise `ConformanceError` at the first failure."""
    for check in checks:
        with suppress(RuleSkipped):
            check()


def _point_to_source(error: BaseException, cls: Any) -> str:
    """Return a hint with the innermost line of the component's own file in the traceback."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):
        file = ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"look at {Path(file).name}:{lines[-1]}" if lines else "decoderbench check --verbose shows the traceback"
