"""The state of every cell of a results folder, for `decoderbench status`. Changes nothing there. No torch here.

A cell without a result is running if its lock is held. Where the lock cannot tell, as on another machine or without
locks, it is running if `progress.json` is fresh or changes between two looks, so no two clocks have to agree.
"""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

from decoderbench.config.cell import Cell
from decoderbench.errors import DataError
from decoderbench.files.storage import is_alive
from decoderbench.records.cell_progress import FILE, CellProgress, read_progress
from decoderbench.records.record_files import read_result
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import FAILED, Plan, RunRecord

FRESH_SECONDS = 60.0
"""A cell whose lock cannot be seen is running if its `progress.json` has changed within this time."""

LONGEST_LINE = 1 << 24
"""Bytes of the longest line of a checkpoint that is read."""

State = Literal["done", "running", "saved", "waiting", "failed", "unreadable", "infeasible"]
STATES: tuple[State, ...] = get_args(State)
OPEN: tuple[State, ...] = ("running", "saved", "waiting", "unreadable")
"""The states of cells that a run has still to complete."""


@dataclass(frozen=True)
class CellState:
    """What is known of a cell.

    Attributes:
        cell: the cell.
        state: `saved` is waiting with a checkpoint; `unreadable` has a result that cannot be used.
        reason: why it has no result: for `failed`, `unreadable` and `infeasible`.
        progress: the content of `progress.json`, for `running`; None if there is none.
        saved_step: the step of its checkpoint, for `saved`.
        seconds: seconds of training, for `done`; None if its record does not state them.
    """

    cell: Cell
    state: State
    reason: str = ""
    progress: CellProgress | None = None
    saved_step: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class GridState:
    """The cells of a results folder in grid order.

    Attributes:
        plan: the plan of the last run.
        cells: the state of each of its cells, trials of tuning first.
        unsure: a cell of another machine may be running; the next look after a few seconds tells.
    """

    plan: Plan
    cells: tuple[CellState, ...]
    unsure: bool = False

    @property
    def tested(self) -> tuple[CellState, ...]:
        """The cells of the table, without the trials of tuning."""
        return self.cells[len(self.plan.tuning) :]

    @property
    def trials(self) -> tuple[CellState, ...]:
        """The trials of tuning."""
        return self.cells[: len(self.plan.tuning)]

    def counts(self) -> dict[State, int]:
        """Return the number of cells of each state that occurs, trials included."""
        found = Counter(cell.state for cell in self.cells)
        return {state: found[state] for state in STATES if found[state]}

    def of(self, *states: State) -> list[CellState]:
        """Return the cells that are in one of these states."""
        return [cell for cell in self.cells if cell.state in states]

    @property
    def is_complete(self) -> bool:
        """Whether every cell has its result, failed or not."""
        return not self.of(*OPEN)

    def seconds_left(self) -> float | None:
        """Return the estimated seconds of training left, with as many cells side by side as are running now.

        A step takes as long as in finished cells of its row, or as the mean of all that are known. None if nothing is
        known yet.
        """
        rows: dict[tuple[str, ...], list[float]] = {}
        for cell in self.cells:
            if (seconds := _seconds_per_step(cell)) is not None:
                rows.setdefault(cell.cell.variant, []).append(seconds)
        everywhere = [seconds for row in rows.values() for seconds in row]
        left = []
        for cell in self.of(*OPEN):
            if cell.progress is not None and (own := cell.progress.seconds_left) is not None:
                left.append(own)
            elif known := rows.get(cell.cell.variant, everywhere):
                left.append(fmean(known) * (cell.cell.training.steps - (cell.saved_step or 0)))
            else:
                return None
        return max([sum(left) / max(1, len(self.of("running"))), *left]) if left else 0.0


class StatusReader:
    """Reads the state of a results folder, again and again: what has not changed is read once."""

    def __init__(self, path: Path) -> None:
        self.directory = ResultsDirectory(path)
        self._host = socket.gethostname()
        self._results: dict[str, tuple[object, CellState]] = {}
        self._plan: tuple[object, Plan] | None = None
        self._seen: dict[str, tuple[CellProgress, float | None]] = {}

    def read(self) -> GridState:
        """Return the state of every cell.

        Raises:
            DataError: the folder has no plan, or it cannot be read.
        """
        plan, unsure = self._read_plan(), False
        cells = []
        for cell in (*plan.tuning, *plan.cells):
            state = self._result_of(cell)
            if state is None:
                state, doubtful = self._without_result(cell)
                unsure |= doubtful
            cells.append(state)
        return GridState(plan, tuple(cells), unsure)

    def _read_plan(self) -> Plan:
        signature = _signature(self.directory.path / "plan.json")
        if self._plan is None or self._plan[0] != signature:
            self._plan = signature, self.directory.read_plan()
        return self._plan[1]

    def _result_of(self, cell: Cell) -> CellState | None:
        """Return the state of a cell with a result, or None."""
        signature = _signature(self.directory.cell_directory(cell) / "result.json")
        if signature is None:
            return None
        known = self._results.get(cell.cell_id)
        if known is None or known[0] != signature:
            try:
                record = read_result(self.directory.cell_directory(cell))
            except DataError as error:
                found = CellState(cell, "unreadable", str(error))
            except FileNotFoundError:  # deleted meanwhile
                return None
            else:
                found = _state_of(cell, record)
            known = self._results[cell.cell_id] = signature, found
        return known[1]

    def _without_result(self, cell: Cell) -> tuple[CellState, bool]:
        """Return the state of a cell that has no result, and whether another look may show that it is running."""
        folder = self.directory.cell_directory(cell)
        progress = read_progress(folder)
        held: bool | None = self.directory.is_leased(cell)
        unsure = False
        if not held and progress is not None and (progress.host != self._host or is_alive(progress.pid)):
            held = self._changes(cell, folder, progress)
            unsure = held is None
        if held:
            return CellState(cell, "running", progress=progress), False
        if cell.infeasible:
            return CellState(cell, "infeasible", cell.infeasible), False
        saved = saved_step(folder)
        return CellState(cell, "saved" if saved else "waiting", saved_step=saved or None), unsure

    def _changes(self, cell: Cell, folder: Path, progress: CellProgress) -> bool | None:
        """Return whether somebody keeps writing the progress of a cell; None if it is seen for the first time.

        A file that is fresh by the clock of this machine counts, and so does one that has changed between two looks.
        """
        now = time.monotonic()
        before, changed = self._seen.get(cell.cell_id, (None, None))
        if before is not None and before != progress:
            changed = now
        self._seen[cell.cell_id] = progress, changed
        try:
            age = abs(time.time() - (folder / FILE).stat().st_mtime)  # a clock that is set back gives no negative age
        except OSError:
            return False
        if age <= FRESH_SECONDS or (changed is not None and now - changed <= FRESH_SECONDS):
            return True
        return None if before is None else False


def saved_step(folder: Path) -> int | None:
    """Return the step at which the cell of a folder would go on; None without a checkpoint.

    The digest of the checkpoint is not checked here: reading all of it would take long.
    """
    for name in ("current", "previous"):  # as in training/checkpoint.py, which needs torch
        path = folder / "checkpoint" / f"{name}.checkpoint"
        if not path.is_file():  # a pipe would block
            continue
        try:
            with path.open("rb") as file:
                file.readline(LONGEST_LINE)  # size and sha256
                step = dict(json.loads(file.readline(LONGEST_LINE))["dict"])["step"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(step, int):
            return step
    return None


def _state_of(cell: Cell, record: RunRecord) -> CellState:
    """Return the state of a cell with a record."""
    if record.status == "done":
        return CellState(cell, "done", seconds=record.cost.train_seconds)
    if record.status in FAILED:
        return CellState(cell, "failed", f"{record.status}: {record.reason}")
    return CellState(cell, "infeasible", record.reason)


def _seconds_per_step(cell: CellState) -> float | None:
    """Return the seconds that a step of a cell takes, as far as they are known; trials may take fewer steps."""
    if cell.progress is not None and cell.progress.seconds_per_step is not None:
        return cell.progress.seconds_per_step
    return None if cell.seconds is None else cell.seconds / cell.cell.training.steps


def _signature(path: Path) -> object:
    """Return what differs once a file is replaced; None if there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
