"""What commands print: safe for a terminal, in any encoding, and alone on standard output. No torch here.

Names of files, headers of tables, keys and exceptions may hold escape sequences that move the cursor, change the title
of a window or reverse the order of a line. All text passes through here on its way to a terminal.
"""

from __future__ import annotations

import ctypes
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from decoderbench.errors import ConfigError
from decoderbench.files.storage import StorageError

_UNSAFE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # control characters, but for tab and newline
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # marks of the direction of text
    "\\u2028\\u2029\\ud800-\\udfff]"  # other ends of lines, and bytes of names that are not UTF-8
)
_kept: list[IO[str]] = []
"""Standard output while everything else that prints is sent to standard error."""


def escape_unsafe(text: str) -> str:
    r"""Return text with each character that a terminal would obey as its escape, such as \x1b; line ends stay."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class SafeConsole(Console):
    """A console that prints text with `escape_unsafe`; its own styles and bars stay."""

    @property
    def file(self) -> IO[str]:
        """Where it prints to: standard output even if that is kept for it alone."""
        return _kept[-1] if _kept and not self.stderr else super().file

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; rich would drop some control characters of texts without a trace."""
        with _naming_output(self.stderr):
            super().print(*(escape_unsafe(one) if isinstance(one, str) else one for one in objects), **options)

    def write(self, text: str) -> None:
        """Write text as it is, such as JSON."""
        with _naming_output(self.stderr):
            self.file.write(text)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of an object, those of bars and tables too."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_unsafe(segment.text), segment.style)


class SafeFormatter(logging.Formatter):
    """A format of log lines with `escape_unsafe`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return escape_unsafe(super().format(record))


@contextmanager
def _naming_output(stderr: bool = False) -> Iterator[None]:
    """Turn a full disk under standard output into an error that names it; ignore one under standard error.

    Nobody can be told about the latter, but the exit status holds.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not stderr:
            reason = error.strerror or str(error)
            raise StorageError(f"cannot write to standard output: {reason}; send it elsewhere") from error


def accept_every_character() -> None:
    """Print characters that the encoding of a terminal or a file lacks as their escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def refuse_closed_output() -> None:
    """Raise if standard output is closed, as after `>&-`: all that is printed would be lost without a word.

    The number of a closed standard stream goes to the null device, so that no file which is opened next gets it, and
    with it what libraries print.

    Raises:
        ConfigError: standard output is closed.
    """
    closed = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            closed.append(number)
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest free number
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives
    if 1 in closed:
        raise ConfigError(["standard output is closed; send it to a file, or to /dev/null"])


@contextmanager
def keeping_stdout() -> Iterator[None]:
    """Keep standard output for our own consoles in the block; whatever else prints does so on standard error.

    That is `print` in a plugin, writes of libraries in C, and what child processes print.
    """
    sys.stdout.flush()
    own, restore = _split_off_stdout()
    _kept.append(own)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.remove(own)
        restore()


def _split_off_stdout() -> tuple[IO[str], Any]:
    """Return a stream to the present standard output, and a function that undoes what was done for it."""
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        return sys.stdout, lambda: None
    own: IO[str] = sys.stdout
    with suppress(OSError, AttributeError):  # a stream in memory has no descriptor
        if sys.stdout.fileno() == 1:
            own = os.fdopen(os.dup(saved), "w", encoding=sys.stdout.encoding, errors="backslashreplace")

    def restore() -> None:
        try:
            with _naming_output():
                own.flush()
        finally:
            with _naming_output(stderr=True):
                sys.stderr.flush()
            if os.name == "posix":
                ctypes.CDLL(None).fflush(None)  # what C has not written yet
            os.dup2(saved, 1)
            os.close(saved)
            if own is not sys.stdout:
                with suppress(OSError):  # it was flushed, or that has failed
                    own.close()

    return own, restore
