"""Progress as an observer plugin: bars on a terminal, elsewhere one plain line a finished cell and a heartbeat."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from decoderbench.config.cell import Cell
from decoderbench.records import RunRecord
from decoderbench.registry.hookspecs import hookimpl

HEARTBEAT_SECONDS = 30.0


def progress_for(console: Console) -> PlainProgress | BarProgress:
    """Return bars for a terminal, plain lines for anything else."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """One line a finished cell, and one every half minute while a cell runs. For logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_cells = self.num_finished = 0
        self._spoke = self._started = time.monotonic()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    def images_done(self, done: int, total: int) -> None:
        """Say when all images are decoded; it happens once for each data set and size."""
        if done == total:
            self._say(f"decoded {total:,} images in {time.monotonic() - self._started:.0f} s")

    @hookimpl
    def run_started(self, cells: Sequence[Cell]) -> None:
        """Count the cells."""
        self.num_cells = len(cells)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Start the clock."""
        self._spoke = self._started = time.monotonic()

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Say now and then that the cell is alive."""
        now = time.monotonic()
        if now - self._spoke >= HEARTBEAT_SECONDS:
            self._spoke = now
            left = (now - self._started) / step * (cell.training.steps - step)
            self._say(f"... {cell.title}: step {step} of {cell.training.steps}, loss {loss:.3f}, {left:.0f} s left")

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Say what came of the cell."""
        self.num_finished += 1
        self._say(f"[{self.num_finished}/{self.num_cells}] {cell.title}: {outcome(record)}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarProgress:
    """Two bars, for the cells and for the steps of the one under way. For terminals."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_cells = self.num_finished = 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._images = self._bars.add_task("images", total=None, visible=False, note="")
        self._cells = self._bars.add_task("cells", total=None, visible=False, note="")
        self._steps: TaskID | None = None
        self._loss = self._score = ""

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bars.stop()

    def images_done(self, done: int, total: int) -> None:
        """Move the bar of decoded images."""
        self._bars.update(self._images, completed=done, total=total, visible=done < total)

    @hookimpl
    def run_started(self, cells: Sequence[Cell]) -> None:
        """Put up the upper bar."""
        self.num_cells = len(cells)
        self._bars.update(self._cells, total=len(cells), visible=True)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Put up the lower bar."""
        self._loss = self._score = ""
        self._steps = self._bars.add_task(
            escape(f"{cell.decoder.label[:24]}, seed {cell.seed}"), total=cell.training.steps, note=""
        )

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Move the lower bar."""
        self._loss = f"loss {loss:.3f}"
        self._move(step)

    @hookimpl
    def cell_validated(self, cell: Cell, step: int, scores: Mapping[str, float]) -> None:
        """Show the score on the validation split."""
        self._score = f"val {scores['val_exact_match']:.1%}"
        self._move(step)

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Leave a line above the bars."""
        self.num_finished += 1
        if self._steps is not None:
            self._bars.remove_task(self._steps)
            self._steps = None
        self._bars.update(self._cells, completed=self.num_finished)
        self.console.print(
            f"[{self.num_finished}/{self.num_cells}] {cell.title}: {outcome(record)}",
            markup=False,
            highlight=False,
        )

    def _move(self, step: int) -> None:
        if self._steps is not None:
            self._bars.update(self._steps, completed=step, note=f"{self._loss} {self._score}")


def outcome(record: RunRecord) -> str:
    """Return what came of a cell, in half a line."""
    if record.status != "done":
        return f"{record.status}: {record.reason}"
    exact, cer = record.metrics.get("exact_match"), record.metrics.get("cer")
    seconds = record.cost.train_seconds
    parts = [
        f"exact match {exact:.1%}" if exact is not None else "",
        f"CER {cer:.2%}" if cer is not None else "",
        f"{seconds:.0f} s" if seconds is not None else "",
    ]
    return ", ".join(part for part in parts if part)
