"""Importing one plugin, from an entry point, a module or a file, so that whatever is wrong with it becomes one line.

No torch here, unless the plugin brings it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from decoderbench.errors import PluginError
from decoderbench.registry import hookspecs

logger = logging.getLogger("decoderbench")

MAY_BE_SET = ("the environment", "the search path of modules")
IMPORT_SECONDS = 60.0
"""How long a plugin may take to import; `DECODERBENCH_PLUGIN_TIMEOUT` sets another number, 0 none."""


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from."""

    source: str
    """Distribution and version, as in "decoderbench 0.1.0", or the path of a file, or a module."""

    file: str
    """The file that was imported; empty if there is none."""

    def __str__(self) -> str:
        return self.source


def load_entry_point(point: EntryPoint) -> tuple[Any, Origin]:
    """Import what an entry point names.

    Raises:
        PluginError: another distribution's module of the same name was found in its place, or the API differs.
    """
    loaded = _imported(point.load)
    _refuse_other_api(loaded)
    module = sys.modules.get(point.module)
    _refuse_other_api(module)
    _refuse_shadow(point, module)
    return loaded, Origin(origin_of(point), getattr(module, "__file__", None) or "")


def load_module(name: str) -> tuple[ModuleType, Origin]:
    """Import a module by its dotted name, the name of its file being its origin."""
    module = _imported(lambda: importlib.import_module(name))
    _refuse_other_api(module)
    file = getattr(module, "__file__", None) or ""
    return module, Origin(file or name, file)


def load_file(path: Path) -> tuple[ModuleType, Origin]:
    """Import a file under a name of its own, so that `torch.py` in a plugin folder shadows nothing.

    The name holds a digest of the path: two files of one name are two modules.
    """
    file = path.resolve()
    name = f"decoderbench_file_{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"
    module = _imported(lambda: import_file(name, file))
    _refuse_other_api(module)
    return module, Origin(str(path), str(file))


def import_file(name: str, file: Path) -> ModuleType:
    """Import a file as the module of a name, or leave no trace of it."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def origin_of(point: EntryPoint) -> str:
    """Return the distribution of an entry point and its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def one_line(error: BaseException) -> str:
    """Return the error and the place that raised it, on one line."""
    try:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:  # noqa: BLE001 - a plugin's own exception may be broken too
        text = f"{type(error).__name__}, which has no text"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def _imported(load: Callable[[], Any]) -> Any:
    """Import, within the time that a plugin has for it."""
    given = os.environ.get("DECODERBENCH_PLUGIN_TIMEOUT", "")
    try:
        seconds = float(given or IMPORT_SECONDS)
    except ValueError:
        raise PluginError(f"DECODERBENCH_PLUGIN_TIMEOUT={given}: must be a number of seconds, 0 for none") from None
    with _time_limit(seconds), _switches_kept():
        return load()


class _TimeUp(BaseException):
    """Ends an import; no `except Exception` of a plugin may take it for an error of its own."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after a time, where the system can: in the main thread, and not on Windows."""
    can = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGALRM) if can else None
    if before is None or seconds <= 0:  # None is also a handler that was not set from Python
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    started = time.monotonic()
    signal.signal(signal.SIGALRM, interrupt)
    others, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # such as a limit on a whole test
    try:
        yield
    except _TimeUp:
        raise TimeoutError(
            f"it was still being imported after {seconds:g} s; do at import nothing that waits, or set "
            f"DECODERBENCH_PLUGIN_TIMEOUT to more seconds"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if others:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, others - (time.monotonic() - started)), interval)


@contextmanager
def _switches_kept() -> Iterator[None]:
    """Put back what an import switches for everybody, such as the default dtype, and say so.

    Without torch there is nothing to put back yet. What an import tells other libraries, by the environment and the
    search path, stays.
    """
    if "torch" not in sys.modules:
        yield
        return
    from decoderbench.registry.global_state import changed_switches, put_back, read_process_state

    before = read_process_state()
    try:
        yield
    finally:
        changed = [name for name in changed_switches(before) if name not in MAY_BE_SET]
        put_back(before, but=MAY_BE_SET)
        if told := [name for name in changed if "random" not in name and "seed" not in name]:
            logger.warning("an import switched %s, which is put back", " and ".join(told))


def _refuse_other_api(plugin: object) -> None:
    wanted = getattr(plugin, "DECODERBENCH_API", hookspecs.API_VERSION)
    if wanted != hookspecs.API_VERSION:
        raise PluginError(
            f"it is written for version {wanted!r} of the plugin API (DECODERBENCH_API), this decoderbench has version "
            f"{hookspecs.API_VERSION}; install a plugin and a decoderbench that fit each other"
        )


def _refuse_shadow(point: EntryPoint, module: ModuleType | None) -> None:
    """Refuse a module that was found elsewhere than its distribution put it."""
    if point.dist is None or module is None or module.__file__ is None:
        return
    path = point.module.replace(".", "/")
    own = [file for file in point.dist.files or () if file.as_posix() in (f"{path}.py", f"{path}/__init__.py")]
    places = [Path(str(point.dist.locate_file(file))).resolve() for file in own]
    if places and Path(module.__file__).resolve() not in places:
        raise PluginError(
            f"its module {point.module!r} is hidden by another of that name, {module.__file__}; rename one of them"
        )
