"""The command `status`: the state of every cell of a results folder, also of cells that other machines run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from decoderbench.cli.common import err, out
from decoderbench.cli.progress import HEARTBEAT_SECONDS, describe_duration
from decoderbench.command_line import with_results
from decoderbench.errors import ConfigError

if TYPE_CHECKING:
    from decoderbench.housekeeping.status import CellState, GridState, State, StatusReader
    from decoderbench.records.cell_progress import CellProgress

LOOK_SECONDS = 1.0
"""Seconds between two looks of `--watch`."""
DOUBT_SECONDS = 3.0
"""Seconds after which a cell that may be running elsewhere is looked at again."""


def status(
    results: Annotated[Path, typer.Argument(help="The results folder of a run.", show_default=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second until all cells are done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the state of every cell as JSON.")] = False,
) -> None:
    """Show which cells are done, running, failed or waiting, and the time left, without changing anything."""
    from decoderbench.housekeeping.status import StatusReader

    if watch and as_json:
        raise ConfigError(["--watch and --json exclude each other; give one of them"])
    reader = StatusReader(results)
    if watch:
        _watch(reader)
        return
    grid = reader.read()
    if grid.unsure:
        err.print("looking twice, because cells may be running where their locks cannot be seen", markup=False)
        time.sleep(DOUBT_SECONDS)
        grid = reader.read()
    if as_json:
        out.write(json.dumps(_as_data(grid), indent=1) + "\n")
    else:
        _print(grid, results)


def summary_of(grid: GridState, results: Path) -> str:
    """Return the number of cells in each state, those of tuning apart, and the time left, as one line."""
    counts = grid.counts()
    counts.pop("done", None)
    parts = [
        *([f"{_done(grid.trials)} of {len(grid.trials)} trials of tuning done"] if grid.trials else []),
        f"{_done(grid.tested)} of {len(grid.tested)} cells done",
        *(f"{n} {state}" for state, n in counts.items()),
    ]
    line = f"{results}: {', '.join(parts)}"
    if grid.is_complete:
        return line
    if not (running := counts.get("running", 0)):
        command = with_results(grid.plan.command, results, Path("results") / grid.plan.experiment)
        return f"{line}; no cell is running, continue with: {command}"
    left = grid.seconds_left()
    if left is None:
        return f"{line}; time left not known yet"
    return f"{line}; about {describe_duration(left)} of training left, {running} at a time"


def _done(cells: Sequence[CellState]) -> int:
    return sum(cell.state == "done" for cell in cells)


def lines_of(grid: GridState, *, but: State | None = None) -> Iterator[str]:
    """Yield a line per cell, except cells that are done, waiting, or in the state `but`."""
    for state in ("running", "saved", "failed", "unreadable", "infeasible"):
        for cell in grid.of(state) if state != but else ():
            details = ", ".join(_details(cell))
            yield f"  {state:<10}  {cell.cell.title}{': ' if details else ''}{details}"


def _details(cell: CellState) -> list[str]:
    if cell.state == "saved":
        return [f"at step {cell.saved_step:,} of {cell.cell.training.steps:,}"]
    if cell.progress is None:
        return [" ".join(cell.reason.split())] if cell.reason else []
    progress = cell.progress
    steps = f"step {progress.step:,} of {progress.steps:,}"
    return [steps, *_numbers(progress), f"on {progress.host}, process {progress.pid}"]


def _numbers(progress: CellProgress) -> list[str]:
    parts = []
    if progress.first_step is None:
        parts.append("starting")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.score is not None:
        parts.append(f"val {progress.score:.1%}")
    if (left := progress.seconds_left) is not None:
        parts.append(f"{describe_duration(left)} left" if left else "testing")
    return parts


def _print(grid: GridState, results: Path) -> None:
    for line in (summary_of(grid, results), *lines_of(grid)):
        out.print(line, markup=False)


def _watch(reader: StatusReader) -> None:
    """Show the state until it is complete or until Ctrl-C: on a terminal drawn anew, else one line per change."""
    results = reader.directory.path
    grid = reader.read()  # an unusable folder ends the command before anything is drawn
    try:
        if not out.is_terminal:
            _watch_in_lines(reader)
            return
        with Live(console=out, auto_refresh=False, transient=True) as live:
            for grid in _looks(reader):
                live.update(_drawing_of(grid, results), refresh=True)
    except KeyboardInterrupt:
        pass
    _print(grid, results)


def _watch_in_lines(reader: StatusReader) -> None:
    printed, at = None, 0.0
    for grid in _looks(reader):
        counts, now = grid.counts(), time.monotonic()
        if counts != printed or now - at >= HEARTBEAT_SECONDS:
            out.print(summary_of(grid, reader.directory.path), markup=False)
            out.file.flush()  # a pipe
            printed, at = counts, now


def _looks(reader: StatusReader) -> Iterator[GridState]:
    """Yield the state every second; the last one is complete."""
    while not (grid := reader.read()).is_complete:
        yield grid
        time.sleep(LOOK_SECONDS)
    yield grid


def _drawing_of(grid: GridState, results: Path) -> Group:
    """Return the summary, the running cells with bars, and the other cells that are not done."""
    bars = Table.grid(padding=(0, 1))
    for cell in grid.of("running"):
        step, steps = (cell.progress.step, cell.progress.steps) if cell.progress else (0, 1)
        bars.add_row(
            Text(cell.cell.title, overflow="ellipsis", no_wrap=True),
            ProgressBar(total=steps, completed=step, width=16),
            Text(", ".join(_details(cell)), overflow="ellipsis", no_wrap=True),
        )
    others = [Text(line, overflow="ellipsis", no_wrap=True) for line in lines_of(grid, but="running")]
    last = Text()  # where ^C appears
    return Group(Text(summary_of(grid, results), overflow="fold", no_wrap=False), bars, *others, last)


def _as_data(grid: GridState) -> dict[str, Any]:
    return {
        "experiment": grid.plan.experiment,
        "counts": grid.counts(),
        "seconds_left": grid.seconds_left(),
        "cells": [
            {
                "cell_id": cell.cell.cell_id,
                "title": cell.cell.title,
                "purpose": cell.cell.purpose,
                "state": cell.state,
                "reason": cell.reason,
                "saved_step": cell.saved_step,
                "progress": cell.progress.model_dump() | {"seconds_left": cell.progress.seconds_left}
                if cell.progress
                else None,
            }
            for cell in grid.cells
        ],
    }
