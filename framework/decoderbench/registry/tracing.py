"""`DECODERBENCH_TRACE=1`: every hook call with its arguments, implementations and result, on stderr."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence
from typing import Any

import pluggy

from decoderbench.exception_text import describe_error


def trace_hooks(manager: pluggy.PluginManager) -> None:
    """Print every hook call with its arguments, its implementations and its result."""
    shortening = reprlib.Repr()
    shortening.maxstring = shortening.maxother = 60
    shortening.maxdict, shortening.maxlist = 8, 40
    short = shortening.repr

    def before(hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        names = ", ".join(impl.plugin_name for impl in reversed(implementations)) or "nobody"
        given = ", ".join(f"{name}={short(value)}" for name, value in arguments.items())
        print(f"hook {hook}({given}) -> {names}", file=sys.stderr)  # noqa: T201

    def after(outcome: Any, hook: str, implementations: Sequence[Any], arguments: Any) -> None:
        error = outcome.exception
        result = f" raised {describe_error(error)}" if error else f" = {short(outcome.get_result())}"
        print(f"hook {hook}{result}", file=sys.stderr)  # noqa: T201

    manager.add_hookcall_monitoring(before, after)
