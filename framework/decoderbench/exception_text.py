"""An exception as text that can be printed and kept: printable and bounded, whatever a plugin raised. No torch here."""

from __future__ import annotations

import traceback
from pathlib import Path

MAX_TEXT = 1000
"""The most characters of an exception's text in a reason, a table or a log; a traceback holds more."""

MAX_TRACEBACK = 10_000_000
"""The most characters of a traceback in a file."""


def text_of(error: BaseException, limit: int = MAX_TEXT) -> str:
    """Return what an exception says, its class if that is nothing: one printable line of bounded length. Never raises.

    Exceptions of plugins may raise in `__str__`, hold megabytes, escape sequences of terminals or lone surrogates.
    """
    return _read_text(error, limit) or type_name(error)


def describe_error(error: BaseException) -> str:
    """Return the type, text and location of an exception: one printable line of bounded length. Never raises."""
    text = _read_text(error)
    shown = ", whose text cannot be shown" if text is None else f": {text}" if text else ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    where = f" ({to_printable_line(Path(frames[-1].filename).name, 100)}:{frames[-1].lineno})" if frames else ""
    return f"{type_name(error)}{shown}{where}"


def type_name(error: BaseException) -> str:
    """Return the name of an exception's class, also if a metaclass defines another `__name__`."""
    return to_printable_line(type.__dict__["__name__"].__get__(type(error)), 100)


def _read_text(error: BaseException, limit: int = MAX_TEXT) -> str | None:
    try:
        return to_printable_line(str(error), limit)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a plugin's `__str__` may raise anything
        return None


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an exception: printable lines, at most `MAX_TRACEBACK` characters. Never raises."""
    try:
        text = "".join(traceback.format_exception(error))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - a plugin's exception may have attributes that raise
        text = f"{describe_error(error)}\nits traceback cannot be shown: {describe_error(failure)}\n"
    return to_printable_text(text)


def to_printable_text(text: str) -> str:
    """Return text whose lines are printable, such as what a process has printed, at most `MAX_TRACEBACK` characters."""
    cut = f"\n... ({len(text):,} characters)\n" if len(text) > MAX_TRACEBACK else ""
    return "\n".join(map(_escape, text[:MAX_TRACEBACK].replace("\t", "    ").split("\n"))) + cut


def to_printable_line(text: str, limit: int = MAX_TEXT) -> str:
    """Return text on one line: blanks in a row become one, other unprintable characters are escaped, `limit` cuts."""
    line = _escape(" ".join(text[: 100 * limit].split()))
    return line if len(line) <= limit and len(text) <= 100 * limit else f"{line[:limit]}... ({len(text):,} characters)"


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
