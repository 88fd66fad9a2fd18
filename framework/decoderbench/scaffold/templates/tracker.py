"""my_component: writes the events of a run to `my_component.jsonl` in its results directory, one line per event.

An exception in an observer is reported and never fails a cell.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from decoderbench import Cell, RunRecord, hookimpl


class MyComponent:
    """Observes one run; each run gets a new object."""

    def __init__(self) -> None:
        self.directory = Path()

    @hookimpl
    def run_started(self, cells: Sequence[Cell], directory: Path) -> None:
        """Store the results directory."""
        self.directory = directory
        self.write("run started", cells=len(cells))

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Open resources for a cell; none are needed here."""
        self.write("cell started", cell=cell.title)

    @hookimpl
    def cell_validated(self, cell: Cell, step: int, scores: Mapping[str, float]) -> None:
        """Log a row of the cell's history."""
        self.write("validated", cell=cell.title, **{**scores, "step": step})

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Log the result, and close the resources that `cell_started` opened."""
        self.write("cell finished", cell=cell.title, status=record.status, **record.metrics)

    def write(self, event: str, **facts: object) -> None:
        """Append a line to the file."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "my_component.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")


@hookimpl
def register_observers() -> Iterable[object]:
    """Create the observer of one run."""
    return [MyComponent()]
