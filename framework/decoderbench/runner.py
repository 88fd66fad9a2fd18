"""execute: prepared experiment -> cells -> records -> report. The second half of `decoderbench run`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from decoderbench.command_line import shell_command
from decoderbench.conditions import GIVEN
from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.data.audit import Audit
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.deadline import Deadline
from decoderbench.errors import DeviceLostError, PendingCellsError
from decoderbench.exception_text import format_traceback
from decoderbench.planning.prepare import Prepared, prepare
from decoderbench.planning.selection import select_cells
from decoderbench.records import FAILED, Plan, RunRecord
from decoderbench.registry.global_state import preserving_global_state, undoing_changes
from decoderbench.registry.hook_calls import TRAINER
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.registry.registry import Registry
from decoderbench.report import Results, load_results, write_files
from decoderbench.rescoring import rescore
from decoderbench.results_directory import ResultsDirectory
from decoderbench.resume import Repeat, Resume
from decoderbench.storage import write_atomically
from decoderbench.training import trainer
from decoderbench.training.cores import choose_threads, using_threads, warn_of_missing_cores
from decoderbench.training.devices import (
    choose_device,
    release_memory,
    start_device,
    still_works,
    use_ieee_float32,
)
from decoderbench.training.failures import classify, end_behind
from decoderbench.training.local_context import LocalContext
from decoderbench.training.provenance import describe_environment

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("decoderbench")

TRAINING_CHANGES = ("the seed of torch", "the random state of torch", "the random state of CUDA")
"""Global state that training a cell changes, and that is restored without a warning."""


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path | None = None,
    device: str | None = None,
    select: str = "",
    retry_failed: bool = False,
    retrain_changed: bool = False,
    threads: int | None = None,
    stop_after: float | None = None,
    registry: Registry | None = None,
    base_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Train the cells that have no result, write the report, and return one row per cell.

    Args:
        experiment: an experiment, or the path of its TOML file.
        results: where records and report go; default `results/<name>`.
        device: `cpu`, `cuda`, `cuda:1`; default: the accelerator if there is one.
        select: which cells to run, an expression as `select_cells` reads it; default: all.
        retry_failed: run cells again that failed before.
        retrain_changed: train cells again whose results were made under other conditions than those of this run, such
            as another version of torch, or do not state them.
        threads: how many threads train a cell; default: one on a CPU, those of the host on CUDA.
        stop_after: seconds from this call after which the run ends; a cell under way is dropped.
        registry: the components to choose from; default: all installed ones.
        base_dir: where relative paths of the experiment start; default: the file's folder, or the working directory.

    Raises:
        ConfigError, InfeasibleError, PluginError: before anything is trained or written.
        DataError: before anything is trained.
        PendingCellsError: the time was up before all cells had a result; the report is written.
        DeviceLostError: a cell left the device unusable for this process; the report is written.
    """
    deadline = Deadline(stop_after)
    if not isinstance(experiment, Experiment):
        base_dir = base_dir if base_dir is not None else Path(experiment).parent
        experiment = load_experiment(experiment)
    directory = open_results(experiment, results)
    chosen_device = choose_device(device)
    choose_threads(threads, chosen_device)  # before anything is read
    prepared = prepare(experiment, registry=registry, base_dir=base_dir, deadline=deadline, audit_images=True)
    prepared.registry.plugins.add(AuditLog(), "decoderbench audit log")
    return execute(
        prepared,
        directory,
        chosen_device,
        select=select,
        retry_failed=retry_failed,
        retrain_changed=retrain_changed,
        threads=threads,
    ).recorded


class AuditLog:
    """An observer that logs the data audit, for runs without a terminal."""

    @hookimpl
    def data_audited(self, audit: Audit) -> None:
        """Log the summary of the data."""
        for line in audit.lines():
            logger.info(line)


def open_results(experiment: Experiment, path: str | Path | None) -> ResultsDirectory:
    """Return the results directory of an experiment, by default `results/<name>`; nothing is written.

    Raises:
        ConfigError: it is a file, or holds the results of another experiment.
        OtherFormatError: its results were written by another version of decoderbench.
    """
    directory = ResultsDirectory(path or Path("results") / experiment.name)
    directory.refuse_other_experiment(experiment.name)
    return directory


def execute(
    prepared: Prepared,
    directory: ResultsDirectory,
    device: torch.device,
    *,
    select: str = "",
    retry_failed: bool = False,
    retrain_changed: bool = False,
    threads: int | None = None,
    command: str = "decoderbench.run(...)",
    origin: str = "",
) -> Results:
    """Train the cells of a prepared experiment that have no result, write the report, and return the results.

    Args:
        prepared: what `prepare` returned.
        directory: where records and report go.
        device: where to train.
        select: which cells to run, an expression as `select_cells` reads it; default: all.
        retry_failed: run cells again that failed before.
        retrain_changed: train cells again whose results were made under other conditions than those of this run, such
            as another version of torch, or do not state them.
        threads: how many threads train a cell; default: one on a CPU, those of the host on CUDA.
        command: the command line that the report names as its origin.
        origin: digest of the path of the experiment file or of the compared folder, as `digest_of_path` returns it.

    Raises:
        ConfigError: the selection matches no cell, or there can be no such number of threads.
        InfeasibleError: no cell of the grid can be trained.
        DataError: images cannot be used; before anything is trained.
        PendingCellsError: the deadline of `prepared` passed before all cells had a result; the report is written.
        DeviceLostError: a cell left the device unusable for this process; the report is written.
    """
    prepared.refuse_if_infeasible()
    selected = select_cells(prepared.cells, select)
    chosen_threads = choose_threads(threads, device)
    directory.refuse_other_experiment(prepared.experiment.name)
    directory.refuse_other_data(origin, prepared.inputs.data_hash)
    plugins = prepared.registry.plugins
    with plugins.observing(), using_threads(chosen_threads):
        return _execute(prepared, directory, device, selected, Repeat(retry_failed, retrain_changed), command, origin)


def _execute(
    prepared: Prepared,
    directory: ResultsDirectory,
    device: torch.device,
    selected: Sequence[Cell],
    repeat: Repeat,
    command: str,
    origin: str,
) -> Results:
    plugins, audit = prepared.registry.plugins, prepared.inputs.audit
    plugins.notify("data_audited", audit=audit)
    plan = Plan(
        experiment=prepared.experiment.name,
        command=command,
        cells=prepared.cells,
        data_summary=(*audit.summary(), *(f"note     {note}" for note in audit.notes)),
        data_notes=tuple(audit.footnotes()),
        origin=origin,
        split_sizes=audit.counts,
    )
    directory.write_plan(plan)
    if others := directory.count_other_results(prepared.cells):
        logger.info("results of earlier settings in %s that are not in this table: %d", directory.path, others)
    plugins.add(trainer, TRAINER)
    start_device(device)  # after the images were decoded by forked processes
    dataset = ResidentDataset(prepared.inputs.images, audit, device)
    metrics = prepared.metrics

    def write_report() -> Results:
        # This plan, not the file: another run may have written its own there meanwhile.
        rescore(directory, plan.cells, metrics)
        results = load_results(directory.path, plan=plan, extra_columns=plugins.report_columns, metrics=metrics)
        write_files(results, command=shell_command("decoderbench", "report", str(directory.path)))
        return results

    try:
        Runner(prepared, directory, dataset).run(selected, repeat)
    except PendingCellsError:
        write_report()
        raise
    return write_report()


class Runner:
    """Runs cells one after the other in this process. Whatever happens in one cell affects no other."""

    def __init__(self, prepared: Prepared, directory: ResultsDirectory, dataset: ResidentDataset) -> None:
        self.registry, self.deadline = prepared.registry, prepared.deadline
        self.directory, self.dataset = directory, dataset
        source = ""
        with suppress(OSError, TypeError):  # of a class that no file defines, as in a notebook
            source = self.registry["dataset"][prepared.experiment.dataset.use].source_digest()
        wrappers = self.registry.plugins.trainer_wrappers()
        self.environment = describe_environment(dataset.device) | {
            "dataset_source": source,
            "wrappers": ", ".join(f"{name} {digest}" for name, digest in sorted(wrappers.items())) or "none",
        }

    def run(self, cells: Sequence[Cell], repeat: Repeat) -> None:
        """Give every cell a record. Cells that another process is training are left for last and waited for.

        Raises:
            PendingCellsError: the deadline has passed; a cell under way has no record.
            DeviceLostError: the device cannot be used any more; the cell that caused it has a record.
        """
        resume = Resume(self.directory, cells, self.environment, repeat)
        if finished := len(cells) - len(resume.pending):
            logger.info("%d of %d cells have results already", finished, len(cells))
        if resume.pending:
            self._describe_conditions()
        self.registry.plugins.notify("run_started", cells=tuple(resume.pending), directory=self.directory.path)
        try:
            held = [cell for cell in resume.pending if not self._complete(cell, resume)]
            for cell in held:
                logger.info("waiting for %s, which another process is training", cell.title)
                if not self._complete(cell, resume, timeout=self.deadline.remaining()):
                    self.deadline.check(f"waiting for {cell.title}, which another process is training")
        except PendingCellsError as error:
            raise resume.with_progress(error, finished) from None
        if missing := len(cells) - len(resume.records()):
            ended = PendingCellsError(f"the records of {missing} cells are gone again, or cannot be read")
            raise resume.with_progress(ended, finished)

    def _describe_conditions(self) -> None:
        threads = torch.get_num_threads()
        logger.info("training on %s with %d thread%s", self.environment["machine"], threads, "s" * (threads > 1))
        warn_of_missing_cores(threads if self.dataset.device.type == "cpu" else 1)

    def _complete(self, cell: Cell, resume: Resume, *, timeout: float = 0.0) -> bool:
        """Run a cell if no result of it holds; return False if another process has it for `timeout` seconds."""
        with self.directory.lease(cell, timeout=timeout) as held:
            if held and not resume.is_done(cell):
                self.deadline.check(f"before {cell.title}")
                resume.start(cell)
                self.registry.plugins.notify("cell_started", cell=cell)
                record = self._with_origin(self._run(cell))
                self.directory.publish(record)
                self.registry.plugins.notify("cell_finished", cell=cell, record=record)
                if record.status in FAILED and not still_works(self.dataset.device):
                    raise DeviceLostError(
                        f"{cell.title} failed and left {self.dataset.device} unusable for this process"
                    )
        return held

    def _with_origin(self, record: RunRecord) -> RunRecord:
        """Return a record that states its origin, whatever the trainer that made it has stated.

        Where a component or trainer has changed a condition of the run, such as the threads, both values are stated.
        """
        if record.status == "infeasible":
            return record
        stated = record.environment
        given = {
            f"{GIVEN}{name}": value for name, value in self.environment.items() if stated.get(name, value) != value
        }
        origin = {
            "device": record.device or self.environment["machine"],
            "environment": self.environment | stated | given,
        }
        return record.model_copy(update=origin)

    def _run(self, cell: Cell) -> RunRecord:
        if cell.infeasible:
            return RunRecord(cell=cell, status="infeasible", reason=cell.infeasible)
        context = LocalContext(
            cell=copy.deepcopy(cell),  # a trainer that changes it changes no other cell, and not where results go
            registry=self.registry,
            dataset=self.dataset,
            directory=self.directory.cell_directory(cell),
            environment=self.environment | {"date": datetime.now(UTC).isoformat(timespec="seconds")},
            deadline=self.deadline,
        )
        try:
            with preserving_global_state():
                use_ieee_float32()
                with undoing_changes(partial(_name_changes, cell), keeping=TRAINING_CHANGES):
                    return self.registry.plugins.run_cell(cell, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, pytest.skip for example
            if self.deadline.remaining() <= 0 and (end := end_behind(error)) is not None:
                raise PendingCellsError(f"{end.reason} of {cell.title}, which is dropped") from None
            details = format_traceback(error)
            status, reason = classify(error)
        # Outside of the except block, which keeps the exception and with it the tensors of the cell.
        release_memory(self.dataset.device)
        write_atomically(context.directory / "traceback.txt", details.encode())
        return RunRecord(
            cell=cell,
            status=status,
            reason=reason,
            device=self.environment["machine"],  # not from CUDA, which may have failed
            environment=dict(context.environment),
        )


def _name_changes(cell: Cell, change: str) -> None:
    logger.warning("%s %s", cell.title, change)
