"""Slot: a place of the cluster where one cell runs at a time, as the process of the run sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from decoderbench import CellEvent, CellTask, PendingCellsError, Report, Reserved, TravelingWork

from .agent import Arrived, Broken


class Slot:
    """An agent, and the task that it runs.

    Attributes:
        pending: what Ray is asked for: the result of a call, or the messages of a task; None if the slot waits for one.
        host: the machine; empty until Ray has placed the agent.
        sees_results: whether the machine sees the results folder.
        environment: the conditions that cells run under there; None until the slot is ready.
        task: the task that it runs; None while it waits.
        began: whether the agent has sent anything of the task.
        reserved: its cell, held here if the machine does not see the results folder.
        report: receives the events of the task.
        started: when it was asked for, as `time.monotonic()`.
        asked_to_stop: whether it was asked to save its cell and end.
    """

    def __init__(self, agent: Any, traveling: TravelingWork, cell_timeout: float | None) -> None:
        self.agent = agent
        self.host, self.sees_results = "", True
        self.environment: dict[str, str] | None = None
        self.task: CellTask | None = None
        self.reserved: Reserved | None = None
        self.report: Report = _ignore
        self.started = time.monotonic()
        self.asked_to_stop = self.began = False
        self._beginning = self._begin(traveling, cell_timeout)
        self.pending: Any = next(self._beginning)

    def go_on(self, result: Any) -> None:
        """Take the result of a call of the beginning, and make the next one.

        Raises:
            PendingCellsError: no cell can be run on the machine.
        """
        if isinstance(result, Broken):
            error = PendingCellsError(f"machine {self.host or 'of Ray'}: {result.reason}")
            error.exit_code = result.exit_code
            raise error
        try:
            self.pending = self._beginning.send(result)
        except StopIteration:
            self.pending = None

    def run(self, task: CellTask, report: Report) -> None:
        """Give it a task, whose events go to `report`."""
        self.task, self.report, files = task, report, {}
        if self.reserved is not None:
            files = self.reserved.files
            self.report = self.reserved.noting(self.host, report)
        self.began = False
        self.pending = self.agent.run.options(num_returns="streaming").remote(task, files)

    def finish(self) -> None:
        """Note that the task has ended."""
        if self.reserved is not None:
            self.reserved.release()
        self.task = self.pending = self.reserved = None

    def ask_to_stop(self) -> None:
        """Ask the agent, once, to let its cell save its state and end."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            self.agent.stop.remote()

    def _begin(self, traveling: TravelingWork, cell_timeout: float | None) -> Generator[Any, Any, None]:
        """Yield the calls that make the agent ready; each is made once the one before has returned."""
        arrived: Arrived = yield self.agent.arrive.remote()
        self.host, self.sees_results = arrived.host, arrived.sees_results
        for file in arrived.missing:
            yield from self._send(file, traveling.read)
        self.environment = yield self.agent.open.remote(cell_timeout)

    def _send(self, file: Path, read: Callable[[Path], Any]) -> Generator[Any, Any, None]:
        pieces = list[bytes]()
        for piece in read(file):
            if pieces:
                yield self.agent.put.remote(file, pieces.pop(), False)
            pieces.append(piece)
        yield self.agent.put.remote(file, pieces.pop(), True)


def _ignore(event: CellEvent) -> None:
    """Take no notice of events before a task has begun."""
