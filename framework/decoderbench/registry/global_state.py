"""Global state of the process that plugins may change: read it, find what changed, restore it.

Not covered, because it cannot be read or not be undone within a process: kernels of operators that `torch.library`
replaces, what a C extension keeps, threads, open files and file descriptors, `atexit` functions, resource limits,
streams and contexts of CUDA, libraries that have read the environment, new names in modules, and data that is changed
in place, such as the images of the dataset. Only a process of its own protects other cells from these.

torch is not imported here: its settings are part of the state from the moment that it is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from decoderbench.registry.process_settings import PROCESS_SETTINGS, Setting, read, write
from decoderbench.registry.replaced_functions import FUNCTIONS

OBSERVERS_MAY_CHANGE = frozenset(
    {
        "logging",
        "the warnings filters",
        "the signal handlers",
        "the standard streams",
        "the exception hooks",
        "the trace functions",
        "the module search path",
        "the environment",
    }
)
"""Settings that change no number of a cell, and that trackers set for the length of a run."""

MAX_DETAILS = 3


def settings() -> tuple[Setting, ...]:
    """Return all settings; those of torch are among them once it is imported."""
    if "torch" not in sys.modules:
        return (FUNCTIONS, *PROCESS_SETTINGS)
    from decoderbench.registry.torch_settings import TORCH_SETTINGS

    # Functions come first: others are written with them.
    return (FUNCTIONS, *TORCH_SETTINGS, *PROCESS_SETTINGS)


def read_global_state() -> dict[str, Any]:
    """Return every setting by name; for one that cannot be read, the error."""
    return {setting.name: read(setting) for setting in settings()}


def changed_state(before: dict[str, Any]) -> list[str]:
    """Return the names of the settings that have changed."""
    return [setting.name for setting, _ in _changes(before)]


@contextmanager
def undoing_changes(report: Callable[[str], None] | None = None, *, keeping: Collection[str] = ()) -> Iterator[None]:
    """Restore the global state that the block changes, except settings named in `keeping`.

    `report` is called with what changed, as in "changed global state (the environment: OMP_NUM_THREADS); restored".

    If the block imports torch, that happens with the state from before the block, and the settings that torch then has
    are those to restore: it reads the number of threads from the environment, once.
    """
    before = read_global_state()
    finder = _TorchFinder(before)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        changed = [(setting, now) for setting, now in _changes(before) if setting.name not in keeping]
        if changed:
            texts = [_describe(setting, before[setting.name], now) for setting, now in changed]
            _restore(before, keeping)
            left = [setting.name for setting, _ in changed if not setting.same(before[setting.name], read(setting))]
            but = f", except {', '.join(left)}, which cannot be" if left else ""
            if report:
                report(f"changed global state ({', '.join(texts)}); restored{but}")


@contextmanager
def preserving_global_state() -> Iterator[None]:
    """Enable gradients in the block, and restore any global state that the block changes."""
    import torch

    with torch.enable_grad(), undoing_changes():  # leaving the first restores the grad mode, whatever the block set
        yield


def _changes(before: dict[str, Any]) -> Iterator[tuple[Setting, Any]]:
    """Yield each setting that has changed, with its value now."""
    for setting in settings():
        if setting.name in before and not setting.same(before[setting.name], now := read(setting)):
            yield setting, now


def _restore(before: dict[str, Any], keeping: Collection[str] = ()) -> None:
    for setting in settings():  # each is read just before, because writing one may change another
        kept = setting.name not in before or setting.name in keeping
        if not kept and not setting.same(before[setting.name], read(setting)):
            write(setting, before[setting.name])


def _describe(setting: Setting, before: Any, now: Any) -> str:
    details = setting.details(before, now)
    more = f" and {len(details) - MAX_DETAILS} more" if len(details) > MAX_DETAILS else ""
    return f"{setting.name}: {', '.join(details[:MAX_DETAILS])}{more}" if details else setting.name


class _TorchFinder(MetaPathFinder):
    """Notices the import of torch, and adds the settings that it then has to the state that will be restored."""

    def __init__(self, before: dict[str, Any]) -> None:
        self.before = before

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute, changed = spec.loader.exec_module, list(_changes(self.before))
        _restore(self.before)

        def execute_then_read(module: ModuleType) -> None:
            try:
                execute(module)
                self.before.update(read_global_state())
            finally:
                for setting, now in changed:
                    write(setting, now)

        spec.loader.exec_module = execute_then_read  # type: ignore[method-assign]
        return spec
