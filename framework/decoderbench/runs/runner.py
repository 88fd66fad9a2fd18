"""execute: prepared experiment -> cells -> records -> report. The second half of `decoderbench run`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.kept_images import write_images
from decoderbench.command_line import shell_command
from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.data.audit import Audit
from decoderbench.deadline import Deadline
from decoderbench.errors import PendingCellsError
from decoderbench.execution.executors import choose_executor
from decoderbench.execution.jobs import choose_jobs, most_memory_of
from decoderbench.execution.resident_data import DataSource
from decoderbench.execution.resume import Repeat
from decoderbench.execution.run import Run
from decoderbench.execution.signals import StopSignals
from decoderbench.execution.starts import keep_starts
from decoderbench.execution.work import CellWork
from decoderbench.files.storage import StorageError
from decoderbench.planning.inputs import Inputs
from decoderbench.planning.plan_record import plan_of
from decoderbench.planning.prepare import Prepared, prepare
from decoderbench.planning.selection import select_cells, select_trials
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.report import write_files
from decoderbench.runs.rescoring import rescore
from decoderbench.training.cores import choose_threads, using_threads
from decoderbench.training.devices import choose_device

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("decoderbench")

CHECKPOINT_SECONDS = 60.0
"""Seconds of training between two checkpoints of a cell, unless given."""


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path | None = None,
    device: str | None = None,
    select: str = "",
    retry_failed: bool = False,
    retrain_changed: bool = False,
    threads: int | None = None,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    cell_timeout: float | None = None,
    checkpoint_every: float | None = CHECKPOINT_SECONDS,
    locking: bool = True,
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
        executor: which registered executor runs the cells; default: `$DECODERBENCH_EXECUTOR`, else `local`, which runs
            them in processes of their own. `inline` runs them in this process, as does the default where `registry` has
            plugins that no other process can load.
        executor_options: options of the executor.
        jobs: how many cells run at a time; default: as many as cores and memory allow, on CUDA 1.
        cell_timeout: seconds after which a cell is ended with status `timeout`; default: never. Needs an executor that
            runs cells in other processes.
        checkpoint_every: seconds of training between two checkpoints of a cell; None for no checkpoints.
        locking: lock cells, so that several runs may share `results`; False where the filesystem has no safe locks and
            no other process uses the folder.
        stop_after: seconds from this call after which the run ends; cells under way are saved and go on when the run
            is started again.
        registry: the components to choose from; default: all installed ones.
        base_dir: where relative paths of the experiment start; default: the file's folder, or the working directory.

    Raises:
        ConfigError, InfeasibleError, PluginError: before anything is trained or written.
        DataError: before anything is trained.
        PendingCellsError: the time was up before all cells had a result; the report is written.
        StoppedError: a signal ended the run; cells under way are saved and the report is written.
        StorageError: a file could not be written, for example because the disk is full.
        DeviceLostError: a cell left the device unusable for this process; the report is written.
    """
    deadline = Deadline(stop_after)
    if not isinstance(experiment, Experiment):
        base_dir = base_dir if base_dir is not None else Path(experiment).parent
        experiment = load_experiment(experiment)
    directory = open_results(experiment, results, locking=locking)
    chosen_device = choose_device(device)
    choose_threads(threads, chosen_device)  # before anything is read
    registry = registry or Registry(build_plugin_manager())
    chosen = choose_executor(registry, executor, executor_options, jobs=jobs, cell_timeout=cell_timeout)
    chosen.component.warm_up()
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
        executor=executor,
        executor_options=executor_options,
        jobs=jobs,
        cell_timeout=cell_timeout,
        checkpoint_every=checkpoint_every,
    ).results.recorded


class AuditLog:
    """An observer that logs the data audit, for runs without a terminal."""

    @hookimpl
    def data_audited(self, audit: Audit, settings: Sequence[str]) -> None:
        """Log the summary of the data."""
        for line in audit.lines(settings):
            logger.info(line)


def open_results(experiment: Experiment, path: str | Path | None, *, locking: bool = True) -> ResultsDirectory:
    """Return the results directory of an experiment, by default `results/<name>`; nothing is written.

    Raises:
        ConfigError: it is a file, or holds the results of another experiment, or cells cannot be held safely there.
        OtherFormatError: its results were written by another version of decoderbench.
    """
    directory = ResultsDirectory(path or Path("results") / experiment.name, locking=locking)
    directory.refuse_other_experiment(experiment.name)
    directory.refuse_unsafe_leases()
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
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    cell_timeout: float | None = None,
    checkpoint_every: float | None = CHECKPOINT_SECONDS,
    command: str = "decoderbench.run(...)",
    origin: str = "",
    recipe: Sequence[str] = (),
    same_as: Plan | None = None,
) -> Analysis:
    """Train the cells of a prepared experiment that have no result, write the report, and return its data.

    Args:
        prepared: what `prepare` returned.
        directory: where records and report go.
        device: where to train.
        select: which cells to run, an expression as `select_cells` reads it; default: all.
        retry_failed: run cells again that failed before.
        retrain_changed: train cells again whose results were made under other conditions than those of this run, such
            as another version of torch, or do not state them.
        threads: how many threads train a cell; default: one on a CPU, those of the host on CUDA.
        executor: which registered executor runs the cells; default: `$DECODERBENCH_EXECUTOR`, else `local`, which runs
            them in processes of their own. `inline` runs them in this process, as does the default where `registry` has
            plugins that no other process can load.
        executor_options: options of the executor.
        jobs: how many cells run at a time; default: as many as cores and memory allow, on CUDA 1.
        cell_timeout: seconds after which a cell is ended with status `timeout`; default: never. Needs an executor that
            runs cells in other processes.
        checkpoint_every: seconds of training between two checkpoints of a cell; None for no checkpoints.
        command: the command line that the report names as its origin.
        origin: digest of the path of the experiment file or of the compared folder, as `digest_of_path` returns it.
        recipe: how settings were chosen from the data, which the report repeats.
        same_as: the plan in the folder, if this run takes part in another one: what that says of its origin stays.

    Raises:
        ConfigError: the selection matches no cell, or there can be no such number of threads.
        InfeasibleError: no cell of the grid can be trained.
        DataError: images cannot be used; before anything is trained.
        PendingCellsError: the deadline of `prepared` passed before all cells had a result; the report is written.
        StoppedError: a signal ended the run; cells under way are saved and the report is written.
        StorageError: a file could not be written, for example because the disk is full.
        DeviceLostError: a cell left the device unusable for this process; the report is written.
    """
    prepared.refuse_if_infeasible()
    planned = prepared.decide(directory.read)
    selected = select_cells(planned, select)
    trials = select_trials(prepared.trials, selected)
    chosen_threads = choose_threads(threads, device)
    chosen = choose_executor(prepared.registry, executor, executor_options, jobs=jobs, cell_timeout=cell_timeout)
    if chosen.component.in_process and not chosen.by_name:
        logger.info("plugins are objects of this process, which no other can load; cells run in it, one at a time")
    chosen_jobs = 1
    if not chosen.component.in_process:
        elsewhere = chosen.component.elsewhere
        chosen_jobs = choose_jobs(jobs, device, chosen_threads, [*trials, *selected], elsewhere=elsewhere)
    directory.refuse_other_experiment(prepared.experiment.name)
    directory.refuse_other_data(origin, {inputs.data_hash for inputs in prepared.data.values()})
    directory.begin()
    plugins = prepared.registry.plugins
    data = {
        key: DataSource(inputs.images.directory.resolve(), inputs.audit, inputs.dataset.name, inputs.images)
        for key, inputs in prepared.data.items()
    }
    work = CellWork(
        results=directory.path.resolve(),
        locking=directory.locking,
        plugins=plugins.sources,
        data=data,
        device=str(device),
        threads=chosen_threads,
        checkpoint_every=checkpoint_every,
        memory=most_memory_of([*trials, *selected]),
        registry=prepared.registry,
    )
    plan = plan_of(prepared, planned, directory.path, command=command, origin=origin, recipe=recipe)
    if same_as is not None:
        stated = {name: getattr(same_as, name) for name in ("command", "definition", "origin", "recipe")}
        plan = plan.model_copy(update=stated)

    def let_rows_choose() -> None:
        nonlocal plan
        cells = prepared.decide(directory.read)
        if cells != plan.cells:
            plan = plan.model_copy(update={"cells": cells})
            directory.write_plan(plan)

    def write_report() -> Analysis:
        # This plan, not the file: another run may have written its own there meanwhile.
        rescore(directory, plan.cells, prepared.metrics)
        analysis = load_report(directory, plan=plan, extra_columns=plugins.report_columns, metrics=prepared.metrics)
        data = {inputs.data_hash: (inputs.images, inputs.audit) for inputs in _with_folds_last(prepared.data.values())}
        write_images(directory.path, analysis.wanted_images, data)
        write_files(analysis, command=shell_command("decoderbench", "report", str(directory.path)))
        return analysis

    with plugins.observing(), using_threads(chosen_threads):
        for inputs in prepared.data.values():
            plugins.notify("data_audited", audit=inputs.audit, settings=prepared.settings_of(inputs))
        changed = "; the data have changed" if directory.has_other_data(prepared.cells) else ""
        directory.write_plan(plan)
        keep_starts(prepared.starts, prepared.cells, prepared.registry, directory)
        if others := directory.count_other_results([*prepared.trials, *planned]):
            where = directory.path
            logger.info("results of earlier settings in %s that are not in this table: %d%s", where, others, changed)
        with StopSignals(prepared.deadline) as signals:
            running = chosen.component(
                chosen.config,
                work,
                lambda event: plugins.notify(event.hook, **event.arguments),
                jobs=chosen_jobs,
                cell_timeout=cell_timeout,
                stopping=signals.reason,
            )
            try:
                with running:
                    started, repeat = Run(directory, plugins, running, signals), Repeat(retry_failed, retrain_changed)
                    if trials:
                        started.complete(_ordered_by_data(trials), repeat, what="trials of tuning")
                    let_rows_choose()
                    places = {cell.place for cell in selected}
                    cells = [cell for cell in plan.cells if cell.place in places]
                    started.complete(_ordered_by_data(cells), repeat)
            except StorageError:
                raise  # a report could not be written either
            except PendingCellsError:
                try:
                    let_rows_choose()
                    write_report()
                except StorageError as full:  # what ended the run decides about its exit status
                    logger.warning("the report is not written: %s", full.reason)
                raise
        return write_report()


def _with_folds_last(data: Iterable[Inputs]) -> list[Inputs]:
    """Return data such that, of those with the same images, the one that tests all of them comes last."""
    return sorted(data, key=lambda inputs: bool(inputs.label_audit.folds))


def _ordered_by_data(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells such that those of the same images and labels follow each other: each are loaded once."""
    order = list(dict.fromkeys(cell.data_key for cell in cells))
    return sorted(cells, key=lambda cell: order.index(cell.data_key))
