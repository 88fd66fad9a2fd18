"""WorkerProcess: a worker as the process of the run sees it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from types import ModuleType
from typing import Any

from decoderbench import CellOutput, CellTask, CellWork

from . import worker
from .death import UNKNOWN_STATUS

DUMP_SECONDS = 0.5
"""How long a process that exceeds its time may take to print where it is."""

END_SECONDS = 2.0
"""How long a process may live after it has closed its connection."""

PIPE_BYTES = 2**20
"""The largest size of a pipe."""

START_BYTES = 500
"""How much of the end of what a process prints before its first task is kept."""

_starting = threading.Lock()


class WorkerProcess:
    """A worker process, the pipes to it, and the task that it runs.

    Attributes:
        connection: tasks go out; events, log records and outcomes come in.
        output: what the process prints; None once it has ended.
        task: the task that it runs; None while it waits.
        started: when it was given the task, as `time.monotonic()`.
        ready: whether it takes tasks.
        was_ready: whether it was ever ready.
        began: whether it has begun the task.
        lost: whether its connection is closed, or it was killed.
        verdict: why it was killed, if it was: `overdue` or `stopped`.
    """

    def __init__(self, work: CellWork) -> None:
        """Start a process."""
        context: Any = _context()
        self.work = work
        self.connection, theirs = context.Pipe()
        self._output, their_output = context.Pipe(duplex=False)
        their_lifeline, self._lifeline = context.Pipe(duplex=False)
        given = (theirs, their_lifeline, their_output, work, dict(os.environ), _folder())
        self.process = context.Process(target=worker.main, args=given, name="decoderbench worker")
        with _without_main():
            start_server()
            self.process.start()
        for end in (theirs, their_output, their_lifeline):
            end.close()
        self.output: Connection | None = self._output
        self.task: CellTask | None = None
        self.started = 0.0
        self.ready = self.was_ready = self.began = self.lost = False
        self.verdict = ""
        self._printed: CellOutput | None = None
        self._before = b""

    def run(self, task: CellTask) -> None:
        """Give it a task."""
        self._printed = self.work.output_of(task.cell)
        self.task, self.started, self.began = task, time.monotonic(), False
        try:
            self.connection.send(task)
        except OSError:
            self.lost = True

    def finish(self) -> None:
        """Note that it has ended its task."""
        self._drain()
        self._close_output(announce=True)
        self.task = None

    def sources(self) -> list[Any]:
        """Return what becomes readable when it sends or prints something, or ends."""
        end = [self.process.sentinel] if self.process.is_alive() else []
        return [self.connection, *end, *([] if self.output is None else [self.output])]

    def has_ended(self) -> bool:
        """Return whether the process is gone, or no longer sends anything.

        If the server of workers was killed, nobody can tell the exit status of a worker, but it lives on.
        """
        if self.lost or self.process.is_alive():
            return self.lost
        return self.process.exitcode != UNKNOWN_STATUS or not Path(f"/proc/{self.process.pid}").exists()

    def has_sent(self) -> bool:
        """Return whether there is a message, or the end of all messages."""
        try:
            return bool(self.connection.poll())
        except OSError:
            return False

    def read_output(self) -> None:
        """Take what it has printed."""
        if self.output is None:
            return
        if content := os.read(self.output.fileno(), PIPE_BYTES):
            self._append(content)
        else:
            self.output.close()
            self.output = None

    def last_output(self) -> str:
        """Return the end of what it has printed."""
        return self._before.decode(errors="backslashreplace") if self._printed is None else self._printed.tail()

    def ask_to_stop(self) -> None:
        """Ask it to save its cell and end; one that waits just ends."""
        if self.task is None:
            self.kill()
        else:
            self._signal(signal.SIGTERM)

    def kill_overdue(self) -> None:
        """Kill it because its cell takes too long; it first prints where it is."""
        self._signal(signal.SIGUSR1)  # faulthandler prints the stack, whatever the process is doing
        end = time.monotonic() + DUMP_SECONDS
        while self.output is not None and (left := end - time.monotonic()) > 0 and self.output.poll(left):
            self.read_output()
        self.verdict = "overdue"
        self.kill()

    def kill(self) -> None:
        """End it and the processes that its cell has started, at once."""
        self.lost = True
        self._signal(signal.SIGKILL, group=True)

    def end(self) -> int | None:
        """Return the exit status of a process that has ended; None if it lives on without a connection and is killed.

        A negative status is that of a signal.
        """
        self.process.join(END_SECONDS)
        exit_code: int | None = self.process.exitcode
        self._signal(signal.SIGKILL, group=True)  # children of the cell, too
        self.process.join()
        self._drain()
        self._close_output()
        self._lifeline.close()
        self.connection.close()
        if self.output is not None:
            self.output.close()
        return exit_code

    def _append(self, content: bytes) -> None:
        if self._printed is None:
            self._before = (self._before + content)[-START_BYTES:]
        else:
            self._printed.append(content)

    def _close_output(self, *, announce: bool = False) -> None:
        if self._printed is not None:
            self._printed.close(announce=announce)

    def _drain(self) -> None:
        """Take what is in the pipe now; a thread or child that the cell has left may print for ever."""
        if self.output is not None and self.output.poll():
            self.read_output()

    def _signal(self, number: int, *, group: bool = False) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.process.pid, number)
        if group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def start_server() -> None:
    """Start the server that forks workers, unless it runs; its imports take seconds.

    It finds the modules that this process finds. Python would give it the working folder and the search path of the
    environment (cpython issue 126631): a file torch.py in the working folder would be imported, and the record would
    name the version of the installed one.
    """
    _context()
    path = os.pathsep.join(place or _folder() for place in sys.path if isinstance(place, str))
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    try:
        ensure_running()
    finally:
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _context() -> Any:
    """Return what starts processes: a server that has imported the framework once, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    components = sorted(name for name in sys.modules if name.partition(".")[0] == "decoderbench_plugins")
    context.set_forkserver_preload(["decoderbench.execution.preload", *components])
    return context


def _folder() -> str:
    with suppress(OSError):
        return str(Path.cwd())
    return ""


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main script in the block: a worker would import it again, and a script without a guard would run."""
    with _starting:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
