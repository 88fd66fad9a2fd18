"""What a worker process does: run one cell after the other, and send what happens over its own pipe.

The pipe has two ends and no lock, so a worker that is killed at any instant blocks nobody.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from decoderbench import CellEvent, CellOutcome, CellWork, DecoderBenchError, PendingCellsError, PluginError

if sys.platform == "linux":
    from fcntl import F_SETSIG


@dataclass(frozen=True)
class Ready:
    """The worker has loaded plugins and images, and waits for tasks.

    Attributes:
        environment: the conditions that it runs cells under, if the run cannot describe them itself.
    """

    environment: dict[str, str] | None


@dataclass(frozen=True)
class NotReady:
    """The worker cannot run cells, and ends.

    Attributes:
        reason: why.
        exit_code: exit status of the run.
    """

    reason: str
    exit_code: int


@dataclass(frozen=True)
class Ended:
    """A task has ended.

    Attributes:
        outcome: what became of it.
        leaving: whether the worker ends too, because the cell may have left something behind in its process.
    """

    outcome: CellOutcome
    leaving: bool


def main(
    connection: Connection,
    lifeline: Connection,
    output: Connection,
    work: CellWork,
    environment: dict[str, str],
    folder: str,
) -> None:
    """Run cells until the other end of `connection` is closed.

    Args:
        connection: tasks come in; events, log records and outcomes go out.
        lifeline: nothing is sent through it; the process is killed when its other end is closed.
        output: receives everything that is printed, in C too.
        work: what cells need.
        environment: variables of the run's environment.
        folder: the working folder of the run.
    """
    for pipe in (connection, lifeline, output):
        os.set_inheritable(pipe.fileno(), False)  # what a cell executes must not keep them open
    os.setpgid(0, 0)  # Ctrl-C on a terminal reaches the run alone, and a kill reaches the children of a cell
    _die_with(lifeline)
    _redirect(output)
    stopped: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    send = Messages(connection).send
    _log_to(send)
    try:
        runner = work.open(lambda: "stopped" if stopped else "")
        environment_here = work.describe() if work.device.startswith("cuda") else None
    except PendingCellsError as error:
        return send(NotReady(error.reason, error.exit_code))
    except DecoderBenchError as error:
        return send(NotReady(str(error), error.exit_code))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything when it is loaded
        return send(NotReady(f"{type(error).__name__}: {error}", PluginError.exit_code))
    threads = threading.active_count()
    send(Ready(environment_here))
    while not stopped:
        try:
            task = connection.recv()
        except EOFError:
            return None
        try:
            outcome = runner.run(task, send)
        except DecoderBenchError as error:  # the cell has not failed: a plugin could not be loaded here, for example
            return send(NotReady(str(error), error.exit_code))
        failed = outcome.record is not None and outcome.new and outcome.record.status not in ("done", "infeasible")
        leaving = failed or runner.state_changed or runner.device_lost
        leaving = leaving or threading.active_count() > threads or _has_children()
        send(Ended(outcome, leaving))
        if leaving:
            return None
    return None


class Messages:
    """Sends messages to the process of the run, from all threads of this one."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._process = connection, os.getpid()
        self._lock = threading.RLock()  # for a log record of a finalizer that runs within
        self._room = select.poll()
        self._room.register(connection.fileno(), select.POLLOUT)

    def send(self, message: object) -> None:
        """Send a message; end the process if nobody receives it any more: the cell has not failed.

        Progress is left out where the receiver is slow, such as an observer that waits for a network: a cell waits for
        nobody.
        """
        if os.getpid() != self._process:
            sys.stderr.write(f"{message}\n")  # of a child process of the cell; the pipe is not its own
            return
        content = ForkingPickler.dumps(message)
        with self._lock:
            if isinstance(message, CellEvent) and message.hook == "cell_progressed" and not self._room.poll(0):
                return
            try:
                self._connection.send_bytes(content)
            except OSError:
                os.kill(self._process, signal.SIGKILL)


def _has_children() -> bool:
    """Return whether a cell has left child processes, which would disturb the next one."""
    if sys.platform != "linux":
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _die_with(lifeline: Connection) -> None:
    """Let the system kill this process and its children when the process of the run is gone, however it ended."""
    if sys.platform == "linux":
        fcntl.fcntl(lifeline.fileno(), fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(lifeline.fileno(), F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline.fileno(), fcntl.F_SETFL, fcntl.fcntl(lifeline.fileno(), fcntl.F_GETFL) | os.O_ASYNC)
        if lifeline.poll():  # it was closed before
            os.kill(os.getpid(), signal.SIGKILL)


def _redirect(output: Connection) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    # New streams: those of before may be of a file, or in memory, with text of another process that is not written yet.
    sys.stdout, sys.stderr = (
        open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for descriptor in (1, 2)
    )


def _log_to(send: Callable[[object], None]) -> None:
    """Send log records to the process of the run."""

    class Handler(QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            send(record)

    root = logging.getLogger()
    root.handlers[:] = [Handler(send)]  # type: ignore[arg-type]
    root.setLevel(logging.WARNING)
    logging.getLogger("decoderbench").setLevel(logging.INFO)
