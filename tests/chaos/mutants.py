"""Broken stores: each breaks one promise, and a campaign has to notice it. Called in a forked process."""

import fcntl
import os
from pathlib import Path
from typing import Any


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
