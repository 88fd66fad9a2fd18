"""my_component: writes what a run tells of itself to `my_component.jsonl` beside its results, one line an event.

Whatever an observer raises is reported and harms no cell.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from decoderbench import Cell, RunRecord, hookimpl

_folder = Path()


@hookimpl
def run_started(cells: Sequence[Cell], directory: Path) -> None:
    """Remember where results go."""
    global _folder
    _folder = directory
    _write("run started", cells=len(cells))


@hookimpl
def cell_started(cell: Cell) -> None:
    """Open what a cell needs; here nothing."""
    _write("cell started", cell=cell.title)


@hookimpl
def cell_validated(cell: Cell, step: int, scores: Mapping[str, float]) -> None:
    """Log a row of the cell's history."""
    _write("validated", cell=cell.title, **{**scores, "step": step})


@hookimpl
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Log the result, and close what `cell_started` opened."""
    _write("cell finished", cell=cell.title, status=record.status, **record.metrics)


def _write(event: str, **facts: object) -> None:
    _folder.mkdir(parents=True, exist_ok=True)
    with (_folder / "my_component.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, **facts}) + "\n")
