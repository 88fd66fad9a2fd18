"""What a worker process does: run one cell after the other, and send what happens over its own pipe.

The pipe has two ends and no lock, so a worker that is killed at any instant blocks nobody.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection

from decoderbench import CellOutcome, CellWork, DecoderBenchError, PendingCellsError, PluginError

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
    _log_to(connection)
    send = partial(_send, connection)
    try:
        runner = work.open(lambda: "stopped" if stopped else "")
        environment_here = work.describe() if work.device.startswith("cuda") else None
    except PendingCellsError as error:
        return send(NotReady(error.reason, error.exit_code))
    except DecoderBenchError as error:
        return send(NotReady(str(error), error.exit_code))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything when it is loaded
        return send(NotReady(f"{type(error).__name__}: {error}", PluginError.exit_code))
    send(Ready(environment_here))
    while not stopped:
        try:
            task = connection.recv()
        except EOFError:
            return None
        outcome = runner.run(task, send)
        failed = outcome.record is not None and outcome.new and outcome.record.status not in ("done", "infeasible")
        leaving = failed or runner.state_changed or runner.device_lost
        send(Ended(outcome, leaving))
        if leaving:
            return None
    return None


def _send(connection: Connection, message: object) -> None:
    """Send a message; end the process if nobody receives it any more: the cell has not failed."""
    try:
        connection.send(message)
    except OSError:
        os.kill(os.getpid(), signal.SIGKILL)


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


def _log_to(connection: Connection) -> None:
    """Send log records to the process of the run."""

    class Handler(QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            _send(connection, record)

    root = logging.getLogger()
    root.handlers[:] = [Handler(connection)]  # type: ignore[arg-type]
    root.setLevel(logging.WARNING)
    logging.getLogger("decoderbench").setLevel(logging.INFO)
