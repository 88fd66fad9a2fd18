"""The errors that a user can cause, and the exit status of each kind.

A message names the thing, the rule, what was given and the next move; lower case, no trailing period.
"""

import copy
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Self


class DecoderBenchError(Exception):
    """Base of every error that a user can cause; the command line prints it without a traceback."""

    exit_code = 2


class ConfigError(DecoderBenchError):
    """One or more mistakes in an experiment; the message lists all of them, one per line."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class UnknownNameError(DecoderBenchError):
    """No component is registered under the given name."""


class PluginError(DecoderBenchError):
    """A plugin cannot be loaded, or two plugins claim one name."""


class InfeasibleError(DecoderBenchError):
    """A combination of components cannot work, or no cell of a grid can be trained."""


class DataError(DecoderBenchError):
    """Images or labels cannot be used as they are."""

    exit_code = 3


class DivergedError(DecoderBenchError):
    """Training produced a number that is not finite."""

    exit_code = 1


class PendingCellsError(DecoderBenchError):
    """A run ended before all of its cells had a result; finished cells are kept, and the report is written."""

    exit_code = 4
    saved_step: int | None = None
    """The step at which the cell under way was saved; None if it starts again at step 0."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; give the same command again to go on")
        self.reason = reason

    def with_reason(self, reason: str) -> Self:
        """Return the same error with another reason."""
        changed = copy.copy(self)
        PendingCellsError.__init__(changed, reason)
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason,), self.__dict__  # pickle would give the whole message to __init__


class StoppedError(PendingCellsError):
    """A signal ended the run, and the cells under way were saved.

    Attributes:
        signal: its number.
    """

    def __init__(self, reason: str, signal: int) -> None:
        super().__init__(reason)
        self.signal = signal
        self.exit_code = 128 + signal

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.signal), self.__dict__


class DeviceLostError(PendingCellsError):
    """A cell left the device unusable for this process."""

    exit_code = 1


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known name, or an empty string if none is close."""
    names = {name.lower(): name for name in known}
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
