"""Settings of the process that a plugin may change: those of Python, the system, NumPy and Pillow. No torch here."""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.style  # noqa: F401 - its first import takes a number from `random`, and many libraries import it
from PIL import Image, ImageFile


def same(before: Any, now: Any) -> bool:
    """Return whether two values of a setting are equal; NumPy's random state holds an array."""
    if isinstance(before, tuple):
        return isinstance(now, tuple) and len(before) == len(now) and all(map(same, before, now))
    if isinstance(before, np.ndarray):
        return bool(np.array_equal(before, now))
    return bool(before == now)


def changed_keys(before: Any, now: Any) -> list[str]:
    """Return the keys whose values differ, if the setting is a mapping, else nothing."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return []
    return sorted(str(key) for key in before.keys() | now.keys() if before.get(key) != now.get(key))


class Setting(NamedTuple):
    """A setting of the whole process.

    Attributes:
        name: its name in messages.
        read: returns its value; the value is compared and written later, so it must not change with the setting.
        write: sets it to a value that `read` returned.
        same: whether a value, given second, leaves everything as it was with the first one.
        details: what differs between two values, if the name alone does not say it.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = same
    details: Callable[[Any, Any], list[str]] = changed_keys


def _read_environment() -> dict[str, str]:
    """Return the environment without the variables that torch sets: for its compilers, and when CUDA starts."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TORCH", "TRITON")) and name != "CUDA_MODULE_LOADING"
    }


def _set_environment(variables: dict[str, str]) -> None:
    for name in _read_environment().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _set_module_search_path(places: list[str]) -> None:
    sys.path[:] = places


def _only_appended(before: list[str], now: list[str]) -> bool:
    """Return whether modules are found where they were: places at the end hide nothing."""
    return now[: len(before)] == before


def _set_filters(filters: tuple[Any, ...]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _same_general_filters(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Return whether the filters of general warnings are equal; libraries add others for their own warnings."""
    general = [
        [f for f in filters if f[1] is None and f[3] is None and f[2].__module__ == "builtins"]
        for filters in (before, now)
    ]
    return general[0] == general[1]


def _loggers() -> tuple[logging.Logger, ...]:
    return logging.getLogger(), logging.getLogger("decoderbench")


def _read_logging() -> tuple[Any, ...]:
    levels = tuple((log.level, log.propagate, log.disabled) for log in _loggers())
    parts = tuple((tuple(log.handlers), tuple(log.filters)) for log in _loggers())
    return logging.root.manager.disable, levels, parts


def _set_logging(state: tuple[Any, ...]) -> None:
    logging.disable(state[0])
    for log, (level, propagate, disabled), (handlers, filters) in zip(_loggers(), state[1], state[2], strict=True):
        log.setLevel(level)
        log.propagate, log.disabled = propagate, disabled
        log.handlers[:], log.filters[:] = handlers, filters


def _read_signals() -> dict[str, Any]:
    """Return the handlers by signal, without the one by which torch watches its processes for loading data."""
    watched = signal.valid_signals() - {getattr(signal, "SIGCHLD", None)}
    return {signal.Signals(number).name: signal.getsignal(number) for number in watched if number in _NAMED}


_NAMED = {*signal.Signals}


def _set_signals(handlers: dict[str, Any]) -> None:
    for name, handler in handlers.items():
        if handler is not None and signal.getsignal(signal.Signals[name]) != handler:
            signal.signal(signal.Signals[name], handler)


def _read_umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _read_streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(streams: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _read_exception_hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.unraisablehook, threading.excepthook


def _set_exception_hooks(hooks: tuple[Any, ...]) -> None:
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


def _set_trace_functions(functions: tuple[Any, ...]) -> None:
    sys.settrace(functions[0])
    sys.setprofile(functions[1])


def _read_start_method() -> str:
    """Return how processes are started; a first use of the default is no change."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _read_garbage_collection() -> tuple[Any, ...]:
    return gc.isenabled(), gc.get_threshold()


def _set_garbage_collection(state: tuple[Any, ...]) -> None:
    (gc.enable if state[0] else gc.disable)()
    gc.set_threshold(*state[1])


def _read_pillow() -> tuple[Any, ...]:
    return ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS


def _set_pillow(limits: tuple[Any, ...]) -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = limits


def _read_processors() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


def _set_processors(numbers: set[int]) -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, numbers)


PROCESS_SETTINGS = (
    Setting("NumPy error handling", np.geterr, lambda modes: np.seterr(**modes)),
    Setting("NumPy print options", np.get_printoptions, lambda options: np.set_printoptions(**options)),
    Setting("how Pillow treats damaged and large images", _read_pillow, _set_pillow),
    Setting("garbage collection", _read_garbage_collection, _set_garbage_collection),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("logging", _read_logging, _set_logging),
    Setting("the warnings filters", lambda: tuple(warnings.filters), _set_filters, _same_general_filters),
    Setting("the random state of Python", random.getstate, random.setstate),
    Setting("the random state of NumPy", lambda: np.random.get_state(legacy=True), np.random.set_state),
    Setting("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    Setting("the signal handlers", _read_signals, _set_signals),
    Setting("the umask", _read_umask, os.umask),
    Setting("the standard streams", _read_streams, _set_streams),
    Setting("the exception hooks", _read_exception_hooks, _set_exception_hooks),
    Setting("the trace functions", lambda: (sys.gettrace(), sys.getprofile()), _set_trace_functions),
    Setting(
        "how processes are started",
        _read_start_method,
        lambda method: multiprocessing.set_start_method(method, force=True),
    ),
    Setting("the processors to run on", _read_processors, _set_processors),
    Setting("the module search path", lambda: list(sys.path), _set_module_search_path, _only_appended),
    Setting("the working directory", Path.cwd, os.chdir),
    Setting("the environment", _read_environment, _set_environment),
)


def read(setting: Setting) -> Any:
    """Return the value of a setting; if it cannot be read, the error as text."""
    try:
        return setting.read()
    except Exception as error:  # noqa: BLE001 - torch cannot read some settings after others; a folder may be gone
        return f"{type(error).__name__}: {error}"


def write(setting: Setting, value: Any) -> None:
    """Set a setting to a value that `read` returned, if that is possible."""
    with suppress(Exception):
        setting.write(value)
