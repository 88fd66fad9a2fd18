"""Functions and methods that a plugin may replace for everybody: of Python, decoderbench and the libraries it uses.

Replaced and deleted names of these modules and classes are found and restored. A new name of a module is no change,
because modules import lazily. A new method of a class is a change if it hides an inherited method.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import math
import operator
import os
import random
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from decoderbench.registry.process_settings import Setting

PYTHON = (builtins, functools, itertools, math, operator, random, time, np, np.random, np.linalg)
TORCH = (
    "torch",
    "torch.amp",
    "torch.autograd",
    "torch.linalg",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.utils",
    "torch.optim",
    "torch.random",
    "torch.special",
)
OTHERS = ("PIL.Image", "rapidfuzz.distance.Levenshtein", "timm", "timm.layers", "timm.models")
OWN = ("decoderbench.", "decoderbench_plugins.")

Names = dict[Any, dict[str, Any]]
"""Modules and classes, and what each of their names means."""

IN_TORCH = f"{os.sep}torch{os.sep}"
"""In the path of every file of torch, where its wrappers of functions are defined."""

COMPILER = f"{IN_TORCH}_dynamo{os.sep}"
"""The part of torch that replaces methods such as `Module.__init__` when something is compiled."""

_MISSING = object()


def read_functions() -> Names:
    """Return the names of all watched modules and classes that are imported."""
    return {owner: vars(owner).copy() for owner in _owners()}  # a copy of a class by `dict` takes five times as long


def restore_functions(before: Names) -> None:
    """Restore the names that `replaced` finds."""
    for owner, name in _replaced(before, read_functions()):
        if name in before[owner]:
            setattr(owner, name, before[owner][name])
        else:
            delattr(owner, name)


def replaced(before: Names, now: Names) -> list[str]:
    """Return the full names of the functions, methods and classes that differ."""
    return sorted(f"{_full_name(owner)}.{name}" for owner, name in _replaced(before, now))


def _replaced(before: Names, now: Names) -> Iterator[tuple[Any, str]]:
    for owner, names in before.items():
        current = now.get(owner, names)
        if _equal(names, current):  # fast, and nearly always so
            continue
        for name, value in names.items():
            other = current.get(name, _MISSING)
            if other is not value and _is_code(value) and not _is_expected(owner, name, value, other):
                yield owner, name
        if isinstance(owner, type):
            for name in current.keys() - names.keys():
                inherited = [before.get(base) or vars(base) for base in owner.__mro__[1:-1]]
                hidden = next((names[name] for names in inherited if name in names), _MISSING)
                value = current[name]
                if hidden is not _MISSING and _is_code(value) and not _is_expected(owner, name, hidden, value):
                    yield owner, name


def _equal(names: dict[str, Any], current: dict[str, Any]) -> bool:
    try:
        return names == current
    except Exception:  # noqa: BLE001 - some objects cannot be compared, such as arrays
        return False


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, staticmethod | classmethod | property)


def _is_expected(owner: Any, name: str, before: Any, value: Any) -> bool:
    """Return whether torch itself has set a name.

    It wraps `torch.manual_seed` when its compiler is imported, and the `step` of an optimizer when the first one is
    made. `torch.Storage` depends on the default dtype.
    """
    file = getattr(getattr(value, "__code__", None), "co_filename", "")
    wraps = IN_TORCH in file and getattr(value, "__wrapped__", None) is before
    return wraps or COMPILER in file or (owner.__name__, name) == ("torch", "Storage")


def _owners() -> tuple[Any, ...]:
    """Return the watched modules and classes, each once."""
    return _owners_among(len(sys.modules))


@functools.lru_cache(maxsize=1)
def _owners_among(num_modules: int) -> tuple[Any, ...]:
    """Return the watched modules and classes; their number changes only if modules are imported."""
    found: list[Any] = [*PYTHON]
    if torch := sys.modules.get("torch"):
        found += [sys.modules[name] for name in TORCH]
        found += [torch.Tensor, *_classes_in(torch.nn), *_classes_in(torch.optim)]
    found += [sys.modules[name] for name in OTHERS if name in sys.modules]
    if layers := sys.modules.get("timm.layers"):
        found += _classes_in(layers)
    for name, module in sorted(sys.modules.items()):
        if name.startswith(OWN) and isinstance(module, ModuleType):
            found += [module, *(one for one in _classes_in(module) if one.__module__ == name)]
    return tuple(dict.fromkeys(found))


def _classes_in(module: ModuleType) -> list[type]:
    return [value for value in list(vars(module).values()) if isinstance(value, type)]


def _full_name(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)


FUNCTIONS = Setting(
    "functions",
    read_functions,
    restore_functions,
    same=lambda before, now: next(_replaced(before, now), None) is None,
    details=replaced,
)
