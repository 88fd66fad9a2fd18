"""SIGINT and SIGTERM outside of training: the command ends at once, with one line and exit status 130 or 143."""

from __future__ import annotations

import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


def raise_on_sigterm() -> None:
    """Let SIGTERM raise `Terminated` as Ctrl-C raises `KeyboardInterrupt`, unless it is ignored on purpose."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def exit_status_of(error: BaseException | None) -> int:
    """Return the exit status that shells give a process which the signal of an interrupt has ended."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
