"""CellRunner: runs cells in this process, one after the other. Whatever happens in one cell affects no other."""

from __future__ import annotations

import copy
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from decoderbench.config.cell import Cell
from decoderbench.data.image_store import DamagedImagesError
from decoderbench.deadline import Deadline
from decoderbench.errors import PendingCellsError
from decoderbench.exception_text import format_traceback
from decoderbench.execution.death import find_death, outcome_of_death
from decoderbench.execution.origin import with_origin
from decoderbench.execution.resident_data import ResidentData
from decoderbench.files.storage import StorageError, write_atomically
from decoderbench.kinds import AXES
from decoderbench.records.cell_progress import ProgressFile
from decoderbench.records.leases import LostLeaseError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import FAILED, RunRecord, same_result
from decoderbench.registry.executor import CellEvent, CellOutcome, CellTask, Report
from decoderbench.registry.global_state import preserving_global_state, undoing_changes
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import release_memory, still_works, synchronize, use_ieee_float32
from decoderbench.training.failures import classify, end_behind
from decoderbench.training.local_context import LocalContext
from decoderbench.training.measuring import MachineTurn

logger = logging.getLogger("decoderbench")

TRAINING_CHANGES = ("the seed of torch", "the random state of torch", "the random state of CUDA")
"""Global state that training a cell changes, and that is restored without a warning."""


class CellRunner:
    """Runs cells with the components and images of this process.

    Attributes:
        device_lost: whether a cell has left the device unusable for this process.
        state_changed: whether a cell has changed global state of this process, which was restored as far as it can be.
    """

    def __init__(
        self,
        registry: Registry,
        data: ResidentData,
        directory: ResultsDirectory,
        deadline: Deadline,
        *,
        checkpoint_every: float | None = None,
    ) -> None:
        self.registry, self.data, self.directory = registry, data, directory
        self.turn = MachineTurn(must_stop=deadline.is_over, synchronize=partial(synchronize, data.device))
        self.deadline = replace(deadline, pause=self.turn.between_steps)
        self.checkpoint_every = checkpoint_every
        self.device_lost = self.state_changed = False

    def run(self, task: CellTask, report: Report) -> CellOutcome:
        """Run a cell unless it has a record or another process holds it; publish its record."""
        cell = task.cell
        try:
            with self.directory.lease(cell) as leased:
                if not leased:
                    return CellOutcome(cell, held=True)
                found = self.directory.read(cell)
                if found is not None and not same_result(found, task.superseded):
                    return CellOutcome(cell, found)
                if (death := find_death(self.directory, task)) is not None:
                    return outcome_of_death(self.directory, task, death)
                self.deadline.check(f"before {cell.title}")
                self._refuse_changed_sources(task)
                self.directory.delete_result(cell)
                report(CellEvent("cell_started", {"cell": cell}))
                with ProgressFile(self.directory.cell_directory(cell), cell.training.steps) as progress:
                    record = with_origin(self._run(task, noting(progress, report), progress), task.environment)
                self.directory.publish(record)
        except LostLeaseError as error:
            logger.warning("%s: %s", cell.title, error.reason)
            return CellOutcome(cell, held=True)
        except PendingCellsError as error:
            return CellOutcome(cell, ended=error)
        if record.status in FAILED and not still_works(self.data.device):
            self.device_lost = True
        return CellOutcome(cell, record, new=True)

    def _run(self, task: CellTask, report: Report, progress: ProgressFile) -> RunRecord:
        cell = task.cell
        if cell.infeasible:
            status = "failed" if cell.purpose == "undecided" else "infeasible"  # its trials failed
            return RunRecord(cell=cell, status=status, reason=cell.infeasible)

        def pause() -> None:
            progress.beat()
            self.directory.check_lease(cell)
            self.deadline.pause()

        context = LocalContext(
            cell=copy.deepcopy(cell),  # a trainer that changes it changes no other cell, and not where results go
            registry=self.registry,
            dataset=self.data.of(cell.data_key),
            directory=self.directory.cell_directory(cell),
            environment=dict(task.environment) | {"date": datetime.now(UTC).isoformat(timespec="seconds")},
            deadline=replace(self.deadline, pause=pause),
            report=report,
            checkpoint_every=self.checkpoint_every,
            turn=self.turn,
        )
        try:
            with self.turn.training(), preserving_global_state():
                use_ieee_float32()
                with undoing_changes(partial(self._name_changes, cell), keeping=TRAINING_CHANGES), _ending_forks():
                    return self.registry.plugins.run_cell(cell, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, pytest.skip for example
            end = end_behind(error)
            if isinstance(end, LostLeaseError):
                raise end from None
            if isinstance(end, StorageError | DamagedImagesError):
                raise end.with_reason(f"{cell.title}: {end.reason}") from None
            if end is not None and self.deadline.is_over():
                saved = f"{cell.title} is saved at step {end.saved_step} of {cell.training.steps}"
                reason = f"{end.reason} of {cell.title}" if end.saved_step is None else saved
                raise end.with_reason(reason) from None
            details = format_traceback(error)
            status, reason = classify(error)
        # Outside of the except block, which keeps the exception and with it the tensors of the cell.
        release_memory(self.data.device)
        write_atomically(context.directory / "traceback.txt", details.encode())
        return RunRecord(
            cell=cell,
            status=status,
            reason=reason,
            device=task.environment.get("machine", ""),  # not from CUDA, which may have failed
            environment=dict(context.environment),
        )

    def _refuse_changed_sources(self, task: CellTask) -> None:
        """Raise if this process has loaded other source code than the plan, whose cells name it.

        Raises:
            PendingCellsError: a file was changed meanwhile.
            UnknownNameError: a component is missing, because its plugin could not be loaded here.
        """
        cell = task.cell
        for axis in AXES:
            component = getattr(cell, axis)
            if self.registry[axis][component.use].source_digest() != component.source:
                raise PendingCellsError(f"the source of {axis} {component.use!r} has changed since the run started")
        if list(self.registry.plugins.trainers().values()) != list(cell.trainers.values()):
            raise PendingCellsError("the source of a plugin's run_cell has changed since the run started")
        wrappers = describe_wrappers(self.registry)
        if (planned := task.environment.get("wrappers", wrappers)) != wrappers:
            raise PendingCellsError(f"plugins around run_cell are {wrappers}, but {planned} when the run started")

    def _name_changes(self, cell: Cell, change: str) -> None:
        self.state_changed = True
        logger.warning("%s %s", cell.title, change)


@contextmanager
def _ending_forks() -> Iterator[None]:
    """End a child process that the block has forked, where it would go on as if it were the process of the cell."""
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            traceback.print_exc()
            os._exit(1)


def describe_wrappers(registry: Registry) -> str:
    """Return the plugins around `run_cell`, each with a digest of its source."""
    wrappers = registry.plugins.trainer_wrappers()
    return ", ".join(f"{name} {digest}" for name, digest in sorted(wrappers.items())) or "none"


def noting(progress: ProgressFile, report: Report) -> Report:
    """Return a report that also keeps the progress file of a cell."""

    def note_and_report(event: CellEvent) -> None:
        if event.hook == "cell_progressed":
            progress.progressed(event.arguments["step"], event.arguments["loss"])
        elif event.hook == "cell_validated":
            progress.validated(event.arguments["step"], event.arguments["scores"].get("val_exact_match"))
        report(event)

    return note_and_report
