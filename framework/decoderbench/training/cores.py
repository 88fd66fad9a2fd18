"""The cores of the machine: how many threads a cell uses, and whether other processes keep the cores busy."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from decoderbench.data.worker_processes import usable_cores
from decoderbench.errors import ConfigError

logger = logging.getLogger("decoderbench")

SAMPLE_SECONDS = 0.1
"""How long the cores are watched before training begins."""

MAX_THREADS = 1024
"""The most threads of a cell; the system cannot start any number, and the process would end without a message."""

LEAST_TICKS = 5
"""The clock ticks, of usually 10 ms, that a core must have been watched for."""

FIELDS = 8
"""The first fields of a core's line in /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal."""


def choose_threads(threads: int | None, device: torch.device) -> int | None:
    """Return the number of threads to train cells with: as given, else one on a CPU; None leaves those of the host.

    With one thread, a result does not depend on how many cores a machine has, and no thread waits for another one that
    has no core.

    Raises:
        ConfigError: the number is not a whole number in 1..1024.
    """
    if threads is None:
        return 1 if device.type == "cpu" else None
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise ConfigError([f"--threads {threads}: must be a whole number in 1..{MAX_THREADS}"])
    return threads


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let PyTorch compute with so many threads in the block; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def leaving_cores(count: int) -> Iterator[None]:
    """Let PyTorch leave so many cores to other processes in the block: where cores are short, its threads spin."""
    fewer = min(torch.get_num_threads(), max(1, usable_cores() - count))
    with using_threads(fewer if count else None):
        yield


def warn_of_missing_cores(threads: int) -> None:
    """Log a warning if fewer cores, or rounded fewer idle ones, are there than threads: times would be longer.

    The idle time of the cores that this process may use is summed over a tenth of a second in which it does nothing.
    Only Linux reports it; elsewhere there is no warning.
    """
    if threads > (cores := usable_cores()):
        logger.warning("%d threads: this process may use %d cores, and threads that share a core wait", threads, cores)
    before = _read_ticks()
    time.sleep(SAMPLE_SECONDS)
    after = _read_ticks()
    total = sum(after[core][1] - before[core][1] for core in after if core in before)
    if total < LEAST_TICKS * max(1, len(after)):
        return
    idle = len(after) * sum(after[core][0] - before[core][0] for core in after if core in before) / total
    if round(idle) < min(threads, len(after)):
        logger.warning(
            "other processes keep the cores busy: %.1f of %d are idle, %d needed; expect longer times in the table",
            idle,
            len(after),
            threads,
        )


def _read_ticks() -> dict[str, tuple[int, int]]:
    """Return the idle and all clock ticks of each core that this process may use; none where the system hides them."""
    if sys.platform != "linux":
        return {}
    allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = {}
    for line in Path("/proc/stat").read_text(encoding="ascii", errors="replace").splitlines():
        name, *fields = line.split()
        if name in allowed:
            counts = list(map(int, fields[:FIELDS]))
            ticks[name] = counts[3] + counts[4], sum(counts)
    return ticks
