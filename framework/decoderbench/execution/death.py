"""Death: the record of a cell whose process has died, made by whoever can hold the cell first. No torch here.

Where cells are held by heartbeats, a dead process holds its cell for another minute, and a process that has waited for
longer gets it first. So what is known of the death is left in the folder of the cell, and whoever holds it next makes
the record of it, in the place of training the cell again.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decoderbench.exception_text import to_printable_line, to_printable_text
from decoderbench.execution.origin import with_origin
from decoderbench.files.storage import delete, is_alive, write_atomically
from decoderbench.records.cell_progress import FILE as PROGRESS
from decoderbench.records.leases import DEATH, holder_of
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord, Status
from decoderbench.registry.executor import CellOutcome, CellTask


@dataclass(frozen=True)
class Death:
    """What is known of the end of a process that ran a cell.

    Attributes:
        status: of the record, as `crashed`.
        reason: one sentence.
        details: a traceback or the last output.
    """

    status: Status
    reason: str
    details: str = ""

    def publish(self, directory: ResultsDirectory, task: CellTask) -> RunRecord:
        """Make the record of a cell that this process holds."""
        cell, folder = task.cell, directory.cell_directory(task.cell)
        directory.delete_result(cell)
        delete(folder / PROGRESS)
        if self.details:
            write_atomically(folder / "traceback.txt", to_printable_text(self.details).encode())
        record = RunRecord(cell=cell, status=self.status, reason=to_printable_line(self.reason))
        record = with_origin(record, task.environment)
        directory.publish(record)
        delete(folder / DEATH)
        return record

    def leave(self, directory: ResultsDirectory, task: CellTask) -> None:
        """Leave it for whoever holds the cell next, unless the process that holds it is seen to be alive."""
        folder = directory.cell_directory(task.cell)
        if holder := holder_of(folder).decode(errors="replace"):
            _, host, pid = holder.split()
            if host != socket.gethostname() or not is_alive(int(pid)):
                write_atomically(folder / DEATH, json.dumps({"holder": holder, **asdict(self)}).encode())


def find_death(directory: ResultsDirectory, task: CellTask) -> Death | None:
    """Return what was left of the process that held a cell before this one; None if it has ended properly."""
    path = directory.cell_directory(task.cell) / DEATH
    if not path.exists():
        return None
    left_by = directory.left_by(task.cell).decode(errors="replace")
    found = _read(path)
    delete(path)
    return Death(**found) if left_by and found.pop("holder", "") == left_by else None


def outcome_of_death(directory: ResultsDirectory, task: CellTask, death: Death) -> CellOutcome:
    """Return the outcome of a task whose process has died, after its record was published."""
    return CellOutcome(task.cell, death.publish(directory, task), new=True)


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_bytes()))
    return {}
