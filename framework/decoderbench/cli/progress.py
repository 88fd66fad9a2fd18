"""Progress as an observer: bars on a terminal, elsewhere one line per finished cell and a heartbeat.

Several cells may be running at a time, so whatever is known of a running cell is kept by its id.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from decoderbench.config.cell import Cell
from decoderbench.data.audit import Audit
from decoderbench.kinds import VARIANT
from decoderbench.records.cell_progress import Pace
from decoderbench.records.schema import RunRecord
from decoderbench.registry.hookspecs import hookimpl

HEARTBEAT_SECONDS = 30.0
"""Seconds between two lines about a cell that is running, where there are no bars."""
UNSHOWN_SECONDS = 1.0
"""Seconds of reading a dataset that nothing is shown of."""
OTHER_LINES = 6
"""Lines of a terminal that are not for bars of running cells."""
OTHER_COLUMNS = 60
"""Columns of a terminal that are not for the name of a running cell."""


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


class RunningCell:
    """What is shown of a running cell: its pace, loss and score; a bar, if it has one."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.loss = self.score = ""
        self.last_line = time.monotonic()
        self.bar: TaskID | None = None

    def progressed(self, step: int, loss: float) -> None:
        """Note the steps taken and the loss."""
        self.pace.report(step)
        self.loss = f"loss {loss:.3f}"

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """Note the score on the validation split, if there is one."""
        self.pace.report(step)
        if (score := scores.get("val_exact_match")) is not None:
            self.score = f"val {score:.1%}"

    @property
    def numbers(self) -> str:
        """Loss and score, as far as they are known."""
        return " ".join(filter(None, (self.loss, self.score)))


def progress_for(console: Console) -> PlainProgress | BarProgress:
    """Return bars for a terminal, lines for anything else."""
    return BarProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """One line per finished cell, and one every half minute for each running cell. For log files."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_cells = self.num_finished = 0
        self._started = time.monotonic()
        self._running: dict[str, RunningCell] = {}
        self._reading = ReadingClock(every=HEARTBEAT_SECONDS)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    @hookimpl
    def data_audited(self, audit: Audit, settings: Sequence[str]) -> None:
        """Print the summary of the data."""
        for line in audit.lines(settings):
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
        """Count the cells; those of tuning and those to test apart."""
        self.num_cells, self.num_finished = len(cells), 0

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Start the clock of the cell."""
        self._running[cell.cell_id] = RunningCell()

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Print a line every half minute."""
        running = self._running.setdefault(cell.cell_id, RunningCell())
        running.progressed(step, loss)
        now = time.monotonic()
        if now - running.last_line >= HEARTBEAT_SECONDS:
            running.last_line = now
            left = running.pace.seconds_left(cell.training.steps)
            parts = [f"step {step} of {cell.training.steps}", running.loss, running.score]
            parts.append("" if left is None else f"{describe_duration(left)} left")
            self._print(f"... {cell.title}: {', '.join(filter(None, parts))}")

    @hookimpl
    def cell_validated(self, cell: Cell, step: int, scores: Mapping[str, float]) -> None:
        """Note the score for the next line."""
        self._running.setdefault(cell.cell_id, RunningCell()).validated(step, scores)

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Print the result of the cell."""
        self._running.pop(cell.cell_id, None)
        self.num_finished += 1
        self._print(f"[{self.num_finished}/{self.num_cells}] {cell.title}: {describe_result(record)}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarProgress:
    """Bars: for the reading and decoding of data, then for the cells and for the steps of each running one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_cells = self.num_finished = 0
        self._bars = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # else it is a file, where lines belong
        )
        self._reading = ReadingClock(every=0)
        self._read = self._bars.add_task("reading", total=None, visible=False, note="")
        self._images = self._bars.add_task("images", total=None, visible=False, note="")
        self._cells = self._bars.add_task("cells", total=None, visible=False, note="")
        self._names: dict[str, str] = {}
        self._running: dict[str, RunningCell] = {}
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []

    def __enter__(self) -> BarProgress:
        self._bars.start()
        for handler in logging.getLogger().handlers:  # their lines go above the bars, not between them
            if isinstance(handler, logging.StreamHandler) and handler.stream.isatty():
                self._handlers.append((handler, handler.stream))
                handler.setStream(FileProxy(self.console, handler.stream))
        return self

    def __exit__(self, *unused: object) -> None:
        self._bars.stop()
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers.clear()

    @hookimpl
    def data_audited(self, audit: Audit, settings: Sequence[str]) -> None:
        """Print the summary of the data above the bars."""
        for line in audit.lines(settings):
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
        """Show the bar of cells; those of tuning come first."""
        self.num_cells, self.num_finished = len(cells), 0
        self._names = short_names(cells, max(20, self.console.width - OTHER_COLUMNS))
        self._bars.update(self._cells, completed=0, total=len(cells), visible=True)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Add the bar of its steps."""
        self._remove_bar(cell)  # of an attempt whose process has died
        self._bar_of(cell)

    @hookimpl
    def cell_progressed(self, cell: Cell, step: int, loss: float) -> None:
        """Move its bar."""
        self._bar_of(cell).progressed(step, loss)
        self._move(cell)

    @hookimpl
    def cell_validated(self, cell: Cell, step: int, scores: Mapping[str, float]) -> None:
        """Show its score on the validation split."""
        self._bar_of(cell).validated(step, scores)
        self._move(cell)

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Print the result of the cell above the bars."""
        self.num_finished += 1
        self._remove_bar(cell)
        self._bars.update(self._cells, completed=self.num_finished)
        self.console.print(
            f"[{self.num_finished}/{self.num_cells}] {cell.title}: {describe_result(record)}",
            markup=False,
            highlight=False,
        )

    def _bar_of(self, cell: Cell) -> RunningCell:
        if (running := self._running.get(cell.cell_id)) is None:
            running = self._running[cell.cell_id] = RunningCell()
            name = self._names.get(cell.cell_id, cell.title)
            running.bar = self._bars.add_task(escape(name), total=cell.training.steps, visible=False, note="")
            self._show_as_many_as_fit()
        return running

    def _remove_bar(self, cell: Cell) -> None:
        if (running := self._running.pop(cell.cell_id, None)) is not None and running.bar is not None:
            self._bars.remove_task(running.bar)
            self._show_as_many_as_fit()

    def _move(self, cell: Cell) -> None:
        running = self._running[cell.cell_id]
        if running.bar is not None:
            self._bars.update(running.bar, completed=running.pace.step, note=running.numbers)

    def _show_as_many_as_fit(self) -> None:
        """Show the bars of the cells that started first, and how many others are running."""
        room = max(1, self.console.height - OTHER_LINES)
        for index, running in enumerate(self._running.values()):
            if running.bar is not None:
                self._bars.update(running.bar, visible=index < room)
        hidden = len(self._running) - room
        self._bars.update(self._cells, note=f"{hidden} more running" if hidden > 0 else "")


def short_names(cells: Sequence[Cell], width: int) -> dict[str, str]:
    """Return a name for each cell id: the seed and the labels on which the cells differ, at least the decoder's.

    Labels are cropped so that about `width` characters are enough.
    """
    labels = {cell.cell_id: dict(zip(VARIANT, cell.variant, strict=True)) for cell in cells}
    varying = [axis for axis in VARIANT if len({of_cell[axis] for of_cell in labels.values()}) > 1]
    differ = [axis for axis in VARIANT if axis == "decoder" or axis in varying]
    trials = {cell.cell_id: f", {cell.tuned_text}" for cell in cells if cell.purpose == "tuning"}
    seeds = {cell.cell_id: f", {cell.model_title}{trials.get(cell.cell_id, '')}" for cell in cells}
    room = width - max(map(len, seeds.values()), default=0) - len(" / ") * (len(differ) - 1)
    each = max(6, room // len(differ))
    return {
        cell.cell_id: " / ".join(_crop(labels[cell.cell_id][axis], each) for axis in differ) + seeds[cell.cell_id]
        for cell in cells
    }


def _crop(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def describe_result(record: RunRecord) -> str:
    """Return the result of a cell in half a line."""
    if record.status != "done":
        return f"{record.status}: {record.reason}"
    exact, cer = record.metrics.get("exact_match"), record.metrics.get("cer")
    seconds = record.cost.train_seconds
    parts = [
        f"{'validation ' * (record.cell.purpose == 'tuning')}exact match {exact:.1%}" if exact is not None else "",
        f"CER {cer:.2%}" if cer is not None else "",
        f"{seconds:.0f} s" if seconds is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def describe_duration(seconds: float) -> str:
    """Return seconds in one unit that people read at a glance, as in "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
