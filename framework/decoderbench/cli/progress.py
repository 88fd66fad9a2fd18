"""Progress as an observer: bars on a terminal, elsewhere one line per finished cell and a heartbeat."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from decoderbench.config.cell import Cell
from decoderbench.data.audit import Audit
from decoderbench.records import RunRecord
from decoderbench.registry.hookspecs import hookimpl

HEARTBEAT_SECONDS = 30.0
"""Seconds between two lines about a cell that is running, where there are no bars."""
UNSHOWN_SECONDS = 1.0
"""Seconds of reading a dataset that nothing is shown of."""


class ReadingClock:
    """Tells when to show how far the reading of a dataset is: not before it takes long, then every few seconds."""

    def __init__(self, *, every: float) -> None:
        self.every = every
        self._done, self._next = float("inf"), 0.0

    def is_due(self, done: int) -> bool:
        """Return whether to show that `done` items are read; fewer than before are those of another reading."""
        now = time.monotonic()
        if done < self._done:
            self._next = now + UNSHOWN_SECONDS
        self._done = done
        if now < self._next:
            return False
        self._next = now + self.every
        return True


def progress_for(console: Console) -> PlainProgress | BarProgress:
    """Return bars for a terminal, lines for anything else."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """One line per finished cell, and one every half minute while a cell runs. For log files."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_cells = self.num_finished = 0
        self._last_line = self._started = time.monotonic()
        self._reading = ReadingClock(every=HEARTBEAT_SECONDS)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    @hookimpl
    def data_audited(self, audit: Audit) -> None:
        """Print the summary of the data."""
        for line in audit.lines():
            self._print(line)

    @hookimpl
    def data_read(self, done: int, total: int) -> None:
        """Print a line every half minute while a dataset is read, the first one after a second."""
        if self._reading.is_due(done) and done < total:
            self._print(f"reading: {done:,} of {total:,}")

    @hookimpl
    def images_decoded(self, done: int, total: int) -> None:
        """Print a line when all images are decoded; this happens once per dataset and image size."""
        if done == total:
            self._print(f"decoded {total:,} images in {time.monotonic() - self._started:.0f} s")

    @hookimpl
    def run_started(self, cells: Sequence[Cell]) -> None:
        """Count the cells."""
        self.num_cells = len(cells)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Start the clock."""
        self._last_line = self._started = time.monotonic()

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Print a line every half minute."""
        now = time.monotonic()
        if now - self._last_line >= HEARTBEAT_SECONDS:
            self._last_line = now
            left = (now - self._started) / step * (cell.training.steps - step)
            self._print(f"... {cell.title}: step {step} of {cell.training.steps}, loss {loss:.3f}, {left:.0f} s left")

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Print the result of the cell."""
        self.num_finished += 1
        self._print(f"[{self.num_finished}/{self.num_cells}] {cell.title}: {describe_result(record)}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarProgress:
    """Bars: for the reading and decoding of data, then for the cells and for the steps of one. For terminals."""

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
        self._reading = ReadingClock(every=0)
        self._read = self._bars.add_task("reading", total=None, visible=False, note="")
        self._images = self._bars.add_task("images", total=None, visible=False, note="")
        self._cells = self._bars.add_task("cells", total=None, visible=False, note="")
        self._steps: TaskID | None = None
        self._loss = self._score = ""

    def __enter__(self) -> BarProgress:
        self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bars.stop()

    @hookimpl
    def data_audited(self, audit: Audit) -> None:
        """Print the summary of the data above the bars."""
        for line in audit.lines():
            self.console.print(line, markup=False, highlight=False)

    @hookimpl
    def data_read(self, done: int, total: int) -> None:
        """Move the bar of a dataset that takes more than a second to read."""
        visible = self._reading.is_due(done) and done < total
        self._bars.update(self._read, completed=done, total=total, visible=visible)

    @hookimpl
    def images_decoded(self, done: int, total: int) -> None:
        """Move the bar of decoded images."""
        self._bars.update(self._images, completed=done, total=total, visible=done < total)

    @hookimpl
    def run_started(self, cells: Sequence[Cell]) -> None:
        """Show the bar of cells."""
        self.num_cells = len(cells)
        self._bars.update(self._cells, total=len(cells), visible=True)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Show the bar of steps."""
        self._loss = self._score = ""
        self._steps = self._bars.add_task(
            escape(f"{cell.decoder.label[:24]}, seed {cell.seed}"), total=cell.training.steps, note=""
        )

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Move the bar of steps."""
        self._loss = f"loss {loss:.3f}"
        self._move(step)

    @hookimpl
    def cell_validated(self, cell: Cell, step: int, scores: Mapping[str, float]) -> None:
        """Show the score on the validation split."""
        self._score = f"val {scores['val_exact_match']:.1%}"
        self._move(step)

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Print the result of the cell above the bars."""
        self.num_finished += 1
        if self._steps is not None:
            self._bars.remove_task(self._steps)
            self._steps = None
        self._bars.update(self._cells, completed=self.num_finished)
        self.console.print(
            f"[{self.num_finished}/{self.num_cells}] {cell.title}: {describe_result(record)}",
            markup=False,
            highlight=False,
        )

    def _move(self, step: int) -> None:
        if self._steps is not None:
            self._bars.update(self._steps, completed=step, note=f"{self._loss} {self._score}")


def describe_result(record: RunRecord) -> str:
    """Return the result of a cell in half a line."""
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
