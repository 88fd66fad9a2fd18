"""A plugin that logs when a cell starts and when it is reported finished, in the process that knows it."""

import os
import signal
import time
from collections.abc import Generator
from typing import Any

from decoderbench import Cell, CellContext, RunRecord, hookimpl

LOG = "CHAOS_LOG"
"""The environment variable that names the log."""

STOP = "CHAOS_STOP"
"""The environment variable that, if it is set, makes a process stop (SIGSTOP) where it starts its first cell."""

_stopped: list[Cell] = []  # not the variable deleted, as the framework restores what plugins change of the environment

# Faults are injected into `os` later, and the log is not to suffer them.
_open, _write, _close = os.open, os.write, os.close


def log(event: str, cell: Cell) -> None:
    line = f"{event} {cell.cell_id} {os.getpid()} {time.monotonic()}\n"
    descriptor = _open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _write(descriptor, line.encode())
    _close(descriptor)


@hookimpl(wrapper=True)
def run_cell(cell: Cell, context: CellContext) -> Generator[None, RunRecord, RunRecord]:
    log("started", cell)
    if STOP in os.environ and not _stopped:
        _stopped.append(cell)
        os.kill(os.getpid(), signal.SIGSTOP)
    return (yield)


class Finished:
    @hookimpl
    def cell_finished(self, cell: Cell, record: Any) -> None:
        log("finished", cell)


@hookimpl
def register_observers() -> list[Finished]:
    return [Finished()]
