"""Drain: what one job of the array does. It runs cells that no other job has, until none is left."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoderbench import CellEvent, DecoderBenchError, Node, PendingCellsError, PluginError

from .deaths import Deaths

logger = logging.getLogger("decoderbench")

HELD_SECONDS = 2.0
"""Seconds between two attempts at cells that other jobs are running."""

KILL_SECONDS = 120.0
"""How long a job that was told to end waits until Slurm ends it."""

SAVE_SECONDS = 60.0
"""How long a job waits for its cell to be saved before it is queued again; Slurm ends it after 90 s."""


@dataclass(frozen=True)
class Drained:
    """How a job has ended.

    Attributes:
        reason: why cells are left; empty if none is.
        exit_code: exit status of the run if no cell can be run at all; 0 else.
    """

    reason: str = ""
    exit_code: int = 0


class Drain:
    """A job. It can be pickled, and goes on where it was after Slurm has queued it again."""

    def __init__(self, payload: Path, stop: Path, cell_timeout: float | None, deaths: Deaths) -> None:
        """Describe a job.

        Args:
            payload: a file with the work and the tasks of all jobs of the array, which is too large for each of them.
            stop: a file that lets all of them save their cells and end when it exists.
            cell_timeout: seconds after which a cell is ended.
            deaths: counts the jobs that have died with a cell.
        """
        self.payload, self.stop, self.cell_timeout, self.deaths = payload, stop, cell_timeout, deaths

    def __call__(self, number: int) -> Drained:
        """Run cells, first those at the place of this job in the queue: `number` of as many."""
        self._stopping, self._running, self._terminated = threading.Event(), True, False
        self._result = Drained("the job was ended")
        self._begun: Path | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminate)  # of scancel, or before the job is preempted
        thread = threading.Thread(target=self._run, args=(number,))
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # in pieces, so that signals are handled
        end = time.monotonic() + KILL_SECONDS
        while self._terminated and time.monotonic() < end:
            time.sleep(0.2)  # a job that returns is not queued again
        return self._result

    def _terminate(self, number: int, frame: object) -> None:
        self._stopping.set()
        self._terminated = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"

    def checkpoint(self, number: int) -> Any:
        """Save the cell under way, and return what Slurm is to queue again; called when the time of the job is up."""
        from submitit.helpers import DelayedSubmission

        self._stopping.set()
        end = time.monotonic() + SAVE_SECONDS
        while self._running and time.monotonic() < end:
            time.sleep(0.1)
        if self._begun is not None:
            self._begun.unlink(missing_ok=True)  # it takes longer to be saved, and has not died
        return DelayedSubmission(Drain(self.payload, self.stop, self.cell_timeout, self.deaths), number)

    def _run(self, number: int) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            self._result = self._drain(number)
        except PendingCellsError as error:
            self._result = Drained(_at_host(error.reason), error.exit_code)
        except DecoderBenchError as error:
            self._result = Drained(_at_host(str(error)), error.exit_code)
        except OSError as error:  # such as a full disk
            self._result = Drained(_at_host(f"{type(error).__name__}: {error}"), PendingCellsError.exit_code)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything when it is loaded
            self._result = Drained(_at_host(f"{type(error).__name__}: {error}"), PluginError.exit_code)
        finally:
            logger.removeHandler(handler)
            self._running = False

    def _drain(self, number: int) -> Drained:
        from submitit import JobEnvironment
        from submitit.helpers import DelayedSubmission

        if not self.payload.exists():
            return Drained("the run has ended")
        traveling, tasks = DelayedSubmission.load(self.payload).args
        job_id = str(JobEnvironment().job_id)
        node = Node(traveling)
        try:
            if not node.sees_results:
                raise PendingCellsError("it does not see the results folder; give --results that all machines see")
            if node.missing:
                raise PendingCellsError(
                    f"it does not see {node.missing[0]}; set DECODERBENCH_CACHE to a folder of a shared filesystem"
                )
            node.open(_log, cell_timeout=self.cell_timeout, stopping=self._why_stop)
            left = [*tasks[number:], *tasks[:number]]
            while left:
                held = []
                for task in left:
                    if reason := self._why_stop():
                        return Drained(reason)
                    if task.cell.cell_id in self.deaths.too_many():
                        continue  # the run makes its record
                    begun = self._begun = self.deaths.begin(task.cell.cell_id, job_id)
                    outcome = node.run(task)
                    begun.unlink(missing_ok=True)
                    if outcome.new and outcome.record is not None:
                        logger.info("%s: %s %s", task.cell.title, outcome.record.status, outcome.record.reason)
                    if outcome.ended is not None:
                        stopped = bool(self._why_stop())
                        return Drained(_at_host(outcome.ended.reason), 0 if stopped else outcome.ended.exit_code)
                    if outcome.held:
                        held.append(task)
                left = held
                if left:
                    time.sleep(HELD_SECONDS)
            return Drained()
        finally:
            node.close()

    def _why_stop(self) -> str:
        return "stopped" if self._stopping.is_set() or self.stop.exists() else ""


def _at_host(reason: str) -> str:
    return f"machine {socket.gethostname()}: {reason}"


def _log(event: CellEvent) -> None:
    """Log which cell begins, for who reads the output of the job; the run reads the files of cells."""
    if event.hook == "cell_started":
        logger.info("%s begins on %s", event.arguments["cell"].title, socket.gethostname())
