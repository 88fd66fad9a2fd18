"""What is opened while a component works: files, folders, connections, programs."""

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
# Code that is imported on first use, and what Python and its packages read of themselves.
OWN_PLACES = (*(f"{place}{os.sep}" for place in {*sysconfig.get_paths().values()}), "/proc/", "/sys/", "/dev/")
OWN_FILES = (".py", ".pyc", ".so", ".pyd", ".dll")

_watching: list[tuple[int, list[str]]] = []
_hooked = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what this thread opens in the block, as sentences.

    Imports do not count. The hook stays, as Python takes none back, but sleeps.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    watch: tuple[int, list[str]] = (threading.get_ident(), [])
    _watching.append(watch)
    try:
        yield watch[1]
    finally:
        _watching.remove(watch)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching or event not in EVENTS or not arguments or isinstance(arguments[0], int) or _is_importing():
        return
    what = arguments[0] if isinstance(arguments[0], str | bytes) else next(iter(arguments[1:]), arguments[0])
    path = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
    if not path.startswith(OWN_PLACES) and not path.endswith(OWN_FILES):
        for thread, events in _watching:
            if thread == threading.get_ident():
                events.append(f"{event} of {path!r}")


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
