"""Why a worker process died: its exit status, a signal, or the memory of the machine."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Literal

UNKNOWN_STATUS = 255
"""Exit status of a process that has ended with it, or whose parent, the server of workers, is gone."""

KILL_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat")
"""Files in which Linux counts the processes that it has killed because memory ran out."""


def count_kills_for_memory() -> int:
    """Return how many processes the system has killed because memory ran out; 0 where it does not tell."""
    total = 0
    for file in KILL_COUNTERS:
        with suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", Path(file).read_text(encoding="ascii", errors="replace"), re.M)
            total += int(found[1]) if found else 0
    return total


def describe_death(exit_code: int | None, *, killed_for_memory: bool) -> tuple[Literal["crashed", "oom"], str]:
    """Return the status and the reason of a cell whose process has died.

    Args:
        exit_code: as of `multiprocessing.Process`: negative for a signal; None if it is unknown.
        killed_for_memory: whether the system has killed a process for memory since the death before.
    """
    if exit_code is None:
        return "crashed", "its process closed the connection to the run without a result, as os.execv does"
    if exit_code == UNKNOWN_STATUS:
        return "crashed", "its process ended without a result, with status 255 or one that is not known"
    if exit_code >= 0:
        return "crashed", f"its process exited with status {exit_code} without a result"
    if exit_code == -signal.SIGKILL and killed_for_memory:
        return "oom", "the system killed its process because memory ran out; give fewer --jobs, or a smaller batch size"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    maybe = ", perhaps because memory ran out" * (exit_code == -signal.SIGKILL)
    return "crashed", f"its process was killed by {name}{maybe}"
