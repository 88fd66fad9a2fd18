"""Resume: which cells of a run need no training, because they have a result that holds. No torch here.

A result of another machine, other versions or other sources is kept, and one warning lists what differs. It is
deleted only when its cell starts again, so a run that is interrupted before has lost nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decoderbench.conditions import CONDITIONS, DECISIVE, conditions_of, differing, environment_of, given_conditions_of
from decoderbench.config.cell import Cell
from decoderbench.errors import PendingCellsError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import FAILED, RunRecord, same_result

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class Repeat:
    """Which cells to train again although they have a result.

    Attributes:
        failed: those that failed.
        changed: those whose result was made under other conditions than those of this run, or does not state them.
    """

    failed: bool = False
    changed: bool = False


class Resume:
    """The results of a run's cells at its start, and which of them hold."""

    def __init__(
        self,
        directory: ResultsDirectory,
        cells: Sequence[Cell],
        environment: Mapping[str, str],
        repeat: Repeat,
        *,
        what: str = "cells",
    ) -> None:
        """Delete the results of failed cells that are to be repeated, and report results that were made otherwise.

        `what` is what the cells are, for messages.
        """
        self.directory, self.cells, self.what = directory, cells, what
        self._environment = environment
        self._superseded: dict[str, RunRecord] = {}
        if repeat.failed:
            self._forget_failed()
        self._supersede(repeat)
        self.pending = [cell for cell in cells if not self.is_done(cell)]

    def is_done(self, cell: Cell) -> bool:
        """Return whether a cell has a result that holds, also one that another process has made meanwhile."""
        record = self.directory.read(cell)
        return record is not None and not self._is_superseded(record)

    def superseded(self, cell: Cell) -> RunRecord | None:
        """Return the record of a cell that does not hold any more, if there is one."""
        return self._superseded.get(cell.cell_id)

    def note_new_result(self, cell: Cell) -> None:
        """Note that a cell was run again: its result holds, also if it states the same conditions as the one before."""
        self._superseded.pop(cell.cell_id, None)

    def records(self) -> list[RunRecord]:
        """Return the results that hold now."""
        records = (self.directory.read(cell) for cell in self.cells)
        return [record for record in records if record is not None and not self._is_superseded(record)]

    def with_progress(self, error: PendingCellsError, finished: int, *, out_of_time: bool = False) -> PendingCellsError:
        """Return the error of a run that ended early with the number of results.

        Args:
            error: why it ended.
            finished: the number of results before it.
            out_of_time: whether its time was up.
        """
        records = self.records()
        failed = sum(record.has_failed for record in records)
        progress = f"{len(records)} of {len(self.cells)} {self.what} have results"
        if failed:
            progress += f", {failed} of them failed"
        if out_of_time and len(records) == finished and error.saved_step is None:
            progress += ", none is new: allow more time"
        ended = error.with_reason(f"{error.reason}; {progress}")
        if failed and error.exit_code == PendingCellsError.exit_code:
            ended.exit_code = 1  # a failed cell must not go unnoticed
        return ended

    def _forget_failed(self) -> None:
        for cell in self.cells:
            record = self.directory.read(cell)
            if record is None or record.status not in FAILED:
                continue
            with self.directory.lease(cell, timeout=1.0) as held:  # else another process is trying it again already
                if held and same_result(record, self.directory.read(cell)):
                    self.directory.delete_result(cell)

    def _supersede(self, repeat: Repeat) -> None:
        """Find the results that do not hold, and report those that were made under other conditions."""
        changed: list[RunRecord] = []
        unknown: list[RunRecord] = []
        for cell in self.cells:
            record = self.directory.check(cell)
            if record is None:
                continue
            if record.status == "infeasible" and record.cell.infeasible and record.reason != cell.infeasible:
                self._superseded[cell.cell_id] = (
                    record  # the plan says otherwise today; deciding it again costs nothing
                )
            elif record.status == "done" and differing(self._then(record), self._now(record.cell), DECISIVE):
                changed.append(record)
            elif record.status == "done" and self._not_stated(record):
                unknown.append(record)
        if repeat.changed:
            self._superseded |= {record.cell.cell_id: record for record in (*changed, *unknown)}
        if changed:
            level = logging.INFO if repeat.changed else logging.WARNING
            count = f"{len(changed)} of {len(self.cells)} results were" if len(changed) > 1 else "1 result was"
            move = _next_move(repeat, len(changed))
            logger.log(level, "%s made under other conditions: %s; %s", count, self._describe(changed), move)
        if unknown:
            names = dict.fromkeys(name for record in unknown for name in self._not_stated(record))
            words = ", ".join(CONDITIONS[name] for name in names)
            count = f"{len(unknown)} results do not state their" if len(unknown) > 1 else "1 result does not state its"
            logger.info("%s %s, so these are not compared; %s", count, words, _next_move(repeat, len(unknown)))

    def _then(self, record: RunRecord) -> dict[str, str]:
        return given_conditions_of({"machine": record.device} | record.environment)

    def _now(self, cell: Cell) -> dict[str, str]:
        return conditions_of(environment_of(cell.dataset, self._environment))

    def _not_stated(self, record: RunRecord) -> list[str]:
        then, now = self._then(record), self._now(record.cell)
        return [name for name in CONDITIONS if name in DECISIVE and now[name] and not then[name]]

    def _describe(self, records: Sequence[RunRecord]) -> str:
        """Return what differs from this run, with the number of cells, as in "threads 2, now 1 (3 cells)"."""
        found = Counter(
            (name, then[name], now[name])
            for record in records
            for then, now in [(self._then(record), self._now(record.cell))]
            for name in differing(then, now, DECISIVE)
        )
        order = list(CONDITIONS)
        return "; ".join(
            f"{CONDITIONS[name]} {before}, now {now} ({count} cell{'s' * (count > 1)})"
            for (name, before, now), count in sorted(found.items(), key=lambda item: order.index(item[0][0]))
        )

    def _is_superseded(self, record: RunRecord) -> bool:
        return same_result(record, self._superseded.get(record.cell.cell_id))


def _next_move(repeat: Repeat, number: int) -> str:
    if repeat.changed:
        return "they are trained again" if number > 1 else "it is trained again"
    return f"--retrain-changed trains {'them' if number > 1 else 'it'} again"
