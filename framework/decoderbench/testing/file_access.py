"""Watches which files, folders, connections and programs a component opens."""

import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EVENTS = {
    "open", "os.listdir", "os.scandir", "glob.glob", "sqlite3.connect", "socket.connect", "socket.sendto",
    "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
}  # fmt: skip
# Ignored: code that is imported on first use, and files that Python and its packages read about themselves.
IGNORED_PLACES = (*(f"{place}{os.sep}" for place in {*sysconfig.get_paths().values()}), "/proc/", "/sys/", "/dev/")
IGNORED_SUFFIXES = (".py", ".pyc", ".so", ".pyd", ".dll")

_watchers: list[tuple[frozenset[int | None], list[str]]] = []
"""Of each block: the threads whose access is ignored, and what the others have opened."""

_hook_is_installed = False


@contextmanager
def watching_file_access() -> Iterator[list[str]]:
    """Collect descriptions of everything that this thread and new ones open in the block, except for imports.

    Python cannot remove an audit hook. It stays installed, but does nothing outside of such blocks.
    """
    global _hook_is_installed
    if not _hook_is_installed:
        sys.addaudithook(_record)
        _hook_is_installed = True
    others = frozenset(thread.ident for thread in threading.enumerate()) - {threading.get_ident()}
    watcher: tuple[frozenset[int | None], list[str]] = (others, [])
    _watchers.append(watcher)
    try:
        yield watcher[1]
    finally:
        _watchers.remove(watcher)


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if not _watchers or event not in EVENTS or not arguments or isinstance(arguments[0], int) or _is_importing():
        return
    what = arguments[0] if isinstance(arguments[0], str | bytes) else next(iter(arguments[1:]), arguments[0])
    path = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
    if not path.startswith(IGNORED_PLACES) and not path.endswith(IGNORED_SUFFIXES):
        for ignored, events in _watchers:
            if threading.get_ident() not in ignored:
                events.append(f"{event} of {path!r}")


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
