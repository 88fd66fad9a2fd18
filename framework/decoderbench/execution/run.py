"""Run: gives cells to an executor until each has a record, and ends early in a way that loses nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from decoderbench.conditions import environment_of
from decoderbench.config.cell import Cell
from decoderbench.errors import PendingCellsError, StoppedError
from decoderbench.execution.resume import Repeat, Resume
from decoderbench.execution.signals import StopSignals
from decoderbench.records.cell_progress import read_progress
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.executor import CellTask, Executor
from decoderbench.registry.plugin_manager import Plugins
from decoderbench.training.cores import warn_of_missing_cores

logger = logging.getLogger("decoderbench")

POLL_SECONDS = 0.2
"""Seconds between two looks at the locks of cells that other processes are running."""


class Run:
    """One run: which cells it gives to the executor, and what it reports of them."""

    def __init__(self, directory: ResultsDirectory, plugins: Plugins, executor: Executor, signals: StopSignals) -> None:
        self.directory, self.plugins, self.executor, self.signals = directory, plugins, executor, signals

    def complete(self, cells: Sequence[Cell], repeat: Repeat, *, what: str = "cells") -> None:
        """Give every cell a record. Cells that another process is running are left for last and waited for.

        Args:
            cells: the cells.
            repeat: which of them to train again although they have a record.
            what: what they are, for messages.

        Raises:
            PendingCellsError: the run ended before; cells under way are saved.
            DeviceLostError: the device cannot be used any more; the cell that caused it has a record.
        """
        try:
            environment = self.executor.describe()
        except PendingCellsError as error:
            raise self._end([error]) from None
        resume = Resume(self.directory, cells, environment, repeat, what=what)
        finished = len(cells) - len(resume.pending)
        if finished:
            logger.info("%d of %d %s have results already", finished, len(cells), what)
        jobs = min(self.executor.jobs, len(resume.pending))
        if resume.pending:
            self._describe_conditions(environment, jobs)
        self.plugins.notify("run_started", cells=tuple(resume.pending), directory=self.directory.path)
        environment = environment | {"jobs": str(jobs)}
        tasks = [
            CellTask(cell, environment_of(cell.dataset, environment), resume.superseded(cell))
            for cell in resume.pending
        ]
        try:
            self._complete(tasks, resume)
        except PendingCellsError as error:
            raise resume.with_progress(error, finished, out_of_time=self.signals.is_out_of_time()) from None
        if missing := len(cells) - len(resume.records()):
            ended = PendingCellsError(f"the records of {missing} {what} are gone again, or cannot be read")
            raise resume.with_progress(ended, finished)

    def _complete(self, tasks: list[CellTask], resume: Resume) -> None:
        """Run tasks until none is left, and wait for cells that other processes are running."""
        told: set[str] = set()
        while tasks:
            by_id = {task.cell.cell_id: task for task in tasks}
            ended: list[PendingCellsError] = []
            held: list[CellTask] = []
            for outcome in self.executor.submit(tasks):
                if outcome.ended is not None:
                    ended.append(outcome.ended)
                    self.signals.end()  # the others are saved
                elif outcome.held:
                    held.append(by_id.pop(outcome.cell.cell_id))
                else:
                    del by_id[outcome.cell.cell_id]
                    if self.executor.elsewhere:
                        self.directory.refresh(outcome.cell)
                    if outcome.new:
                        resume.note_new_result(outcome.cell)
                        self.plugins.notify("cell_finished", cell=outcome.cell, record=outcome.record)
            if ended or (self.signals.reason() and (by_id or held)):
                raise self._end(ended)
            if by_id:
                lost = next(iter(by_id.values())).cell.title
                raise PendingCellsError(f"executor {self.executor.name!r} returned no outcome of {lost}; correct it")
            for task in held:
                if task.cell.cell_id not in told:
                    told.add(task.cell.cell_id)
                    progress = read_progress(self.directory.cell_directory(task.cell))
                    which = "" if progress is None else f", {progress.pid} on {progress.host}"
                    logger.info("waiting for %s, which another process holds%s", task.cell.title, which)
            tasks = self._wait_for_others(held)

    def _wait_for_others(self, tasks: list[CellTask]) -> list[CellTask]:
        """Return the tasks, once one is free; raise `PendingCellsError` if the run is to stop before."""
        if not tasks:
            return []
        while not (free := [task for task in tasks if self.directory.is_free(task.cell)]):
            if reason := self.signals.reason():
                raise self._end([PendingCellsError(f"{reason} while waiting for {tasks[0].cell.title}")])
            time.sleep(POLL_SECONDS)
        return free + [task for task in tasks if task not in free]

    def _end(self, ended: list[PendingCellsError]) -> PendingCellsError:
        """Return the error that ends the run, in the order of exit statuses: 2 and 3, that of a signal, 1, 4."""
        for error in ended:
            special = type(error) is not PendingCellsError or error.exit_code != PendingCellsError.exit_code
            if special and (self.signals.received is None or error.exit_code in (2, 3)):
                return error  # a full disk, a lost device, damaged images, a worker without plugins
        reasons = [error.reason for error in ended]
        if (why := self.signals.request()) and not (reasons and all(reason.startswith(why) for reason in reasons)):
            reasons.insert(0, why)  # cells in other processes do not know it
        reason = "; ".join(dict.fromkeys(reasons))
        received = self.signals.received
        final = PendingCellsError(reason) if received is None else StoppedError(reason, received)
        final.saved_step = max((error.saved_step for error in ended if error.saved_step is not None), default=None)
        return final

    def _describe_conditions(self, environment: Mapping[str, str], jobs: int) -> None:
        threads = int(environment["threads"] or 1)
        logger.info(
            "training on %s with %d thread%s%s",
            environment["machine"] or "other machines",
            threads,
            "s" * (threads > 1),
            f" per cell, {jobs} cells at a time" if jobs > 1 else "",
        )
        if not self.executor.elsewhere:
            warn_of_missing_cores(threads * jobs if "cpu_capability" in environment else jobs)
