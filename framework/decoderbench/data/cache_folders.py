"""The folders of the image cache: their locks, when they were used, and what happens to damaged and abandoned ones.

No torch here.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from decoderbench.files.locks import holding
from decoderbench.files.storage import StorageError, rename

ELSEWHERE = "or set DECODERBENCH_CACHE to another folder"
SECONDS_KEPT = 7 * 24 * 3600  # of an interrupted build
logger = logging.getLogger("decoderbench")


@contextmanager
def lock_of(directory: Path) -> Iterator[None]:
    """Hold the lock of a store; the operating system releases it if its holder dies."""
    lock = directory.with_suffix(".lock")
    with ExitStack() as stack:
        if not stack.enter_context(holding(lock, move=ELSEWHERE)):
            logger.info("waiting for another process that builds the image cache %s", directory)
            stack.enter_context(holding(lock, timeout=float("inf"), move=ELSEWHERE))
        yield


def set_aside(directory: Path) -> Path:
    """Rename a damaged store to `.damaged`, in place of an earlier one, and return its path; the caller holds its lock.

    Raises:
        StorageError: it cannot be renamed.
    """
    damaged = directory.with_suffix(".damaged")
    shutil.rmtree(damaged, ignore_errors=True)
    rename(directory, damaged)
    return damaged


def mark_used(path: Path) -> None:
    """Set the time of modification to now, by which unused files of the cache are found."""
    with suppress(OSError):  # those of another user
        os.utime(path)


def remove_abandoned_builds(directory: Path) -> None:
    """Remove interrupted builds of other data that nobody has continued for a week."""
    for building in set(directory.parent.glob("*.building")) - {directory.with_suffix(".building")}:
        with suppress(OSError, StorageError), holding(building.with_suffix(".lock")) as held:
            newest = max(path.stat().st_mtime for path in (building, *building.iterdir()))
            if held and newest < time.time() - SECONDS_KEPT:
                shutil.rmtree(building, ignore_errors=True)
