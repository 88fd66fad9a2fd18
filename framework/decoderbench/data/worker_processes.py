"""Processes that decode images: forked, deaf to Ctrl-C, and gone when their parent is. No torch here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from decoderbench.errors import ConfigError


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def can_fork() -> bool:
    """Return whether this process may fork workers: on Linux, unless it is such a worker itself."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def forking_pool(workers: int, prepare: Callable[..., None] | None = None, *given: Any) -> ProcessPoolExecutor:
    """Return a pool that forks its workers when the first task is submitted.

    Args:
        workers: number of processes.
        prepare: called in each process before its first task, with `given`.
    """
    fork = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, fork, initializer=_set_up_worker, initargs=(prepare, *given))


@contextmanager
def forking_despite_threads() -> Iterator[None]:
    """Fork without Python's warning: this process may have threads, such as torch's, but the workers use none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        yield


@contextmanager
def decoding_processes(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Run processes for `decode_images` and end them afterwards; None if there are to be none or forking is unsafe.

    Enter it before torch is imported and before CUDA is started, so that the processes have neither.

    Raises:
        ConfigError: the system does not start so many.
    """
    if not workers or not can_fork():
        yield None
        return
    before = set(multiprocessing.active_children())
    try:
        pool = forking_pool(workers)
        with forking_despite_threads():
            pool.submit(os.getpid).result()
    except OSError as error:
        for child in set(multiprocessing.active_children()) - before:  # nothing else ends those that were started
            child.kill()
        what = f"--workers {workers}: so many processes cannot be started ({error.strerror or error})"
        raise ConfigError([f"{what}; give fewer, or 0 to decode in threads"]) from error
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _set_up_worker(prepare: Callable[..., None] | None, *given: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which shuts the pool down
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*given)


def _exit_with_parent() -> None:
    # Without this, workers outlive a killed parent: each holds the other end of the pipe that it waits on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
