"""Watch: what other processes, perhaps of other machines, do with cells of a results folder."""

from __future__ import annotations

from typing import cast

from decoderbench.execution.work import CellWork
from decoderbench.records.cell_progress import CellProgress, read_progress
from decoderbench.records.record_files import RESULT
from decoderbench.records.schema import same_result
from decoderbench.registry.executor import CellEvent, CellOutcome, CellTask
from decoderbench.registry.executor import CellWork as Work


class Watch:
    """Looks at the files of tasks that run elsewhere, for an executor whose jobs send nothing back."""

    def __init__(self, work: Work) -> None:
        self._work = cast("CellWork", work)
        self._directory = self._work.directory()
        self._seen: dict[str, CellProgress] = {}

    def look(self, task: CellTask, *, thoroughly: bool = False) -> list[CellEvent | CellOutcome]:
        """Return what has happened to a task since the last look; an outcome comes last, once there is a result.

        Over a network, a result may be seen a minute late, unless the look is `thorough`, which writes a file.
        """
        cell, folder = task.cell, self._directory.cell_directory(task.cell)
        if thoroughly:
            self._directory.refresh(cell)
        if (folder / RESULT).exists():
            record = self._directory.read(cell)
            if record is not None and not same_result(record, task.superseded):
                begun = [] if cell.cell_id in self._seen else [CellEvent("cell_started", {"cell": cell})]
                return [*begun, CellOutcome(cell, record, new=True)]
        progress = read_progress(folder)
        if progress is None:
            return []
        before = self._seen.get(cell.cell_id)
        self._seen[cell.cell_id] = progress
        events = [] if before else [CellEvent("cell_started", {"cell": cell})]
        if progress.loss is not None and (before is None or progress.step != before.step):
            events.append(CellEvent("cell_progressed", {"cell": cell, "step": progress.step, "loss": progress.loss}))
        if progress.score is not None and (before is None or progress.score != before.score):
            scores = {"val_exact_match": progress.score}
            events.append(CellEvent("cell_validated", {"cell": cell, "step": progress.step, "scores": scores}))
        return list(events)
