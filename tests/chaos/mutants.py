"""Broken stores and executors: each breaks one promise, and a test has to notice it. Called in a forked process."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decoderbench import CellOutcome
from decoderbench.records import leases
from decoderbench_plugins.executors.local.executor import Local


def never_sync() -> None:
    """Leave everything to the cache of the operating system."""
    os.fsync = lambda descriptor: None


def write_in_place() -> None:
    """Write over a file instead of replacing it."""

    def copy(source: Any, target: Any) -> None:
        with open(target, "wb") as file:  # noqa: PTH123 - which the injector replaces
            file.write(Path(source).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        os.unlink(source)  # noqa: PTH108 - as above

    os.replace = copy


def write_result_first() -> None:
    """Let `result.json` appear before the other files of its cell."""
    replace, waiting = os.replace, []

    def in_wrong_order(source: Any, target: Any) -> None:
        if Path(target).name in ("predictions.parquet", "weights.safetensors"):
            waiting.append((source, target))
            return
        os_replace(source, target)
        if Path(target).name == "result.json":
            while waiting:
                os_replace(*waiting.pop())

    def os_replace(source: Any, target: Any) -> None:
        replace(source, target)

    os.replace = in_wrong_order


def lock_nothing() -> None:
    """Let every process have every lock."""
    fcntl.flock = lambda descriptor, operation: None


def share_leases() -> None:
    """Let every process have every lease by heartbeats."""
    leases.Leases.unsafe = "a mutant"  # type: ignore[assignment]
    leases._acquire = lambda lock, timeout: True


def ignore_deaths() -> None:
    """Remove a worker that has died, and forget its cell."""

    def bury(executor: Any, worker: Any) -> Iterator[CellOutcome]:
        worker.end()
        executor._workers.remove(worker)
        yield from ()

    Local._bury = bury  # type: ignore[method-assign]
