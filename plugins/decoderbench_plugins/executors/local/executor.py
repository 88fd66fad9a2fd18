"""Local: hands cells to worker processes, and survives whatever happens to one of them."""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from decoderbench import CellEvent, CellOutcome, CellTask, Executor, PendingCellsError

from .death import count_kills_for_memory, describe_death
from .process import WorkerProcess, start_server
from .worker import Ended, NotReady, Ready

logger = logging.getLogger("decoderbench")

POLL_SECONDS = 0.1
"""Seconds between two looks at what no pipe tells: signals, the time limit of a cell."""

STOP_SECONDS = 10.0
"""Seconds that a cell has to save its state and end, a step included, before its process is killed."""

START_FAILURES = 3
"""Workers in a row that may die before they have begun a cell; then the run ends."""


class Local(Executor):
    """Runs cells side by side, each in a worker process: what crashes, hangs or is killed costs only its own cell.

    Workers come from a server process that has imported PyTorch and the built-in components once, and has done nothing
    else, so that none starts with the state of another. A worker runs one cell after the other, until one fails or
    changes global state. The images are mapped from one file, which all workers share.
    """

    name = "local"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._workers: list[WorkerProcess] = []
        self._waiting: deque[CellTask] = deque()
        self._broken: PendingCellsError | None = None  # why no cell can be run here
        self._environment: dict[str, str] | None = None
        self._stopped_at: float | None = None
        self._start_failures = 0
        self._kills = count_kills_for_memory()

    @classmethod
    def warm_up(cls) -> None:
        """Start the server of workers, which imports PyTorch while the run reads its data."""
        with suppress(OSError):  # the first worker tells
            start_server()

    def describe(self) -> dict[str, str]:
        """Return the conditions of this process, which are those of its workers; CUDA is described by a worker."""
        if not self.work.device.startswith("cuda"):
            return self.work.describe()
        while self._environment is None:
            if self._broken is not None:
                raise self._broken
            if reason := self.stopping():
                raise PendingCellsError(reason)
            if not self._workers:
                self._start_worker()
            list(self._receive())
        return self._environment

    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        self._waiting.extend(tasks)
        while self._waiting or self._busy():
            if self._broken is not None or self.stopping():
                self._waiting.clear()
                self._stop()
            while self._broken is None and len(self._workers) < min(self.jobs, len(self._waiting) + self._busy()):
                self._start_worker()
            for worker in self._workers:
                if worker.ready and worker.task is None and self._waiting:
                    worker.run(self._waiting.popleft())
            if self._workers:
                yield from self._receive()
                self._kill_overdue()
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.kill()
            worker.end()
        self._workers.clear()

    def _start_worker(self) -> None:
        try:
            self._workers.append(WorkerProcess(self.work))
        except (OSError, EOFError) as error:  # there is no room for one, or the server of workers was killed
            self._count_failed_start(f"{type(error).__name__}: {error}; give fewer --jobs, or --executor inline")

    def _busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def _receive(self) -> Iterator[CellOutcome]:
        """Wait for messages, output and deaths, and yield the outcomes among them."""
        sources = {source: worker for worker in self._workers for source in worker.sources()}
        for source in wait(list(sources), timeout=POLL_SECONDS):
            worker = sources[source]
            if source is worker.output:
                worker.read_output()
            elif source is worker.connection:
                yield from self._take(worker)
        for worker in [worker for worker in self._workers if worker.has_ended()]:
            yield from self._bury(worker)

    def _take(self, worker: WorkerProcess) -> Iterator[CellOutcome]:
        """Act on the next message of a worker; yield the outcome if it is one."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.lost = True
            return
        except Exception as error:  # noqa: BLE001 - of a log record with an object of a plugin that is unknown here
            logger.warning("a log record of a cell cannot be read: %s: %s", type(error).__name__, error)
            return
        if isinstance(message, Ready):
            worker.ready = worker.was_ready = True
            self._environment = message.environment
        elif isinstance(message, CellEvent):
            worker.began, self._start_failures = True, 0
            self.report(message)
        elif isinstance(message, logging.LogRecord):
            logging.getLogger(message.name).handle(message)
        elif isinstance(message, NotReady):
            worker.finish()
            if self._broken is None:  # cells under way are saved first
                self._broken = PendingCellsError(f"a worker process cannot run cells: {message.reason}")
                self._broken.exit_code = message.exit_code
        elif isinstance(message, Ended):
            self._start_failures = 0
            worker.finish()
            worker.ready = not message.leaving
            yield message.outcome

    def _bury(self, worker: WorkerProcess) -> Iterator[CellOutcome]:
        """Remove a worker that has died, after all that it has sent, and yield the outcome of its cell."""
        worker.lost = False
        while not worker.lost and worker.has_sent():
            yield from self._take(worker)
        exit_code = worker.end()
        self._workers.remove(worker)
        kills = count_kills_for_memory()
        status, reason = describe_death(exit_code, killed_for_memory=kills > self._kills)
        self._kills = kills
        task = worker.task
        if task is None:
            if not worker.was_ready and self._stopped_at is None and self._broken is None:
                self._count_failed_start(f"{reason}; its last output: {worker.last_output()}")
        elif worker.verdict == "overdue":
            reason = f"no result after {self.cell_timeout:g} s (--cell-timeout); its process was ended"
            yield self.work.publish_failure(task, "timeout", reason, worker.last_output())
        elif worker.verdict == "stopped":
            reason = f"{task.cell.title} did not stop within {STOP_SECONDS:g} s and was ended"
            yield CellOutcome(task.cell, ended=PendingCellsError(reason))
        elif exit_code == -signal.SIGTERM and (self._stopped_at is not None or self.stopping()):
            yield CellOutcome(task.cell, ended=PendingCellsError(f"{task.cell.title} was ended by SIGTERM, unsaved"))
        elif not worker.began:  # what killed the process was left by a cell before, or came from outside
            self._waiting.appendleft(task)
            self._count_failed_start(f"{reason}; its last output: {worker.last_output()}")
        else:
            yield self.work.publish_failure(task, status, reason, worker.last_output())

    def _count_failed_start(self, reason: str) -> None:
        """Let the run end if worker after worker dies before it has begun a cell."""
        self._start_failures += 1
        if self._start_failures == START_FAILURES:
            self._broken = PendingCellsError(f"no worker process can start: {reason}")

    def _kill_overdue(self) -> None:
        """Kill workers whose cell has exceeded its time."""
        if self.cell_timeout is None:
            return
        for worker in self._workers:
            if worker.task is not None and time.monotonic() - worker.started > self.cell_timeout:
                worker.kill_overdue()

    def _stop(self) -> None:
        """Ask the cells under way to save and end; kill those that do not."""
        now = time.monotonic()
        if self._stopped_at is None:
            self._stopped_at = now
            for worker in self._workers:
                worker.ask_to_stop()
        elif now - self._stopped_at > STOP_SECONDS:
            for worker in self._workers:
                worker.verdict = "stopped"
                worker.kill()
