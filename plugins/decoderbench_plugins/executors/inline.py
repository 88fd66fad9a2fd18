"""inline: cells run in the process of the run, one after the other. For debugging and for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from decoderbench import CellOutcome, CellRunner, CellTask, DeviceLostError, Executor, hookimpl


class Inline(Executor):
    """Runs cells in this process, one at a time: a debugger, a profiler and `print` work as usual.

    A cell that crashes or never returns takes the run with it.
    """

    name = "inline"
    in_process = True

    @cached_property
    def _runner(self) -> CellRunner:
        return self.work.open(self.stopping)

    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        for task in tasks:
            if self.stopping():
                return
            yield self._runner.run(task, self.report)
            if self._runner.device_lost:
                reason = f"{task.cell.title} failed and left {self.work.device} unusable for this process"
                yield CellOutcome(task.cell, ended=DeviceLostError(reason))
                return


@hookimpl
def register_executors() -> list[type[Inline]]:
    """Register the executor of this file."""
    return [Inline]
