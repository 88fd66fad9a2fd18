"""What is opened while a component works: files, folders, connections, programs."""

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS = {"open", "os.listdir", "os.scandir", "glob.glob", "socket.connect", "subprocess.Popen", "os.system", "os.exec"}
# Code that is imported on first use, and what Python and its packages read of themselves.
OWN_PLACES = (*{*sysconfig.get_paths().values(), sys.base_prefix, sys.prefix}, "/proc/", "/sys/", "/dev/")
OWN_FILES = (".py", ".pyc", ".so", ".pyd", ".dll")

_watching: list[list[str]] = []
_hooked = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what is opened in the block, as sentences. The hook stays, as Python takes none back, but sleeps."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    events: list[str] = []
    _watching.append(events)
    try:
        yield events
    finally:
        _watching.remove(events)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event in EVENTS:
        what = next((argument for argument in arguments if isinstance(argument, str | bytes)), "")
        path = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
        if not path.startswith(OWN_PLACES) and not path.endswith(OWN_FILES):
            for events in _watching:
                events.append(f"{event} of {path or arguments!r}")
