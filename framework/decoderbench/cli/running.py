"""Commands that train and report: run, compare, finetune, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoderbench.cli.common import (
    Additions,
    Allow,
    CellTimeout,
    CheckpointEvery,
    Device,
    ExecutorName,
    ExperimentFile,
    Jobs,
    NoLocks,
    Overrides,
    PluginFolders,
    PluginNames,
    ResultsFolder,
    RetrainChanged,
    RetryFailed,
    Seeds,
    Select,
    StopAfter,
    Threads,
    command,
    deadline_of,
    err,
    execution_options,
    load,
    load_plugins,
    load_registry,
    merge_overrides,
    out,
    override,
)
from decoderbench.cli.interrupts import exit_status_of
from decoderbench.config.experiment import Experiment, parse_experiment
from decoderbench.config.merging import merge
from decoderbench.config.overrides import add_variants
from decoderbench.errors import ConfigError
from decoderbench.execution.resume import Repeat
from decoderbench.records.schema import digest_of_path, is_failure

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from decoderbench.analysis import Analysis
    from decoderbench.config.cell import Cell
    from decoderbench.data.dataset import Dataset
    from decoderbench.deadline import Deadline
    from decoderbench.records.results_directory import ResultsDirectory
    from decoderbench.registry.registry import Registry


def run(
    experiment: ExperimentFile,
    results: ResultsFolder = None,
    device: Device = None,
    seeds: Seeds = None,
    overrides: Overrides = None,
    add: Additions = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
    retrain_changed: RetrainChanged = False,
    threads: Threads = None,
    executor: ExecutorName = None,
    jobs: Jobs = None,
    cell_timeout: CellTimeout = None,
    checkpoint_every: CheckpointEvery = "60s",
    no_locks: NoLocks = False,
    stop_after: StopAfter = None,
) -> None:
    """Train every cell of an experiment that has no result yet, and report."""
    deadline, changes = deadline_of(stop_after), merge_overrides(overrides, seeds, allow)
    execution = execution_options(executor, jobs, cell_timeout, checkpoint_every, changes)
    execution |= {"threads": threads, "locking": not no_locks}
    checked, registry = load(experiment, changes, add, plugin, plugins_dir)
    repeat, where = Repeat(retry_failed, retrain_changed), (experiment, experiment.parent)
    _prepare_and_execute(checked, registry, where, results, device, select, repeat, execution, deadline)


def compare(
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder of labeled images, an LMDB, or a Hugging Face dataset on disk.", show_default=False
        ),
    ],
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimizer steps of each cell.  [default: by number of images]")
    ] = None,
    results: ResultsFolder = None,
    device: Device = None,
    seeds: Seeds = None,
    overrides: Overrides = None,
    add: Additions = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
    retrain_changed: RetrainChanged = False,
    threads: Threads = None,
    executor: ExecutorName = None,
    jobs: Jobs = None,
    cell_timeout: CellTimeout = None,
    checkpoint_every: CheckpointEvery = "60s",
    no_locks: NoLocks = False,
    stop_after: StopAfter = None,
) -> None:
    """Compare three decoders on your own images, without an experiment file.

    Labels come from a table, .gt.txt files or the file names, and the split from the folder if it has one. Settings
    follow from the images, each with a line that gives the reason; --set changes any of them.
    """
    from decoderbench.planning.compare_preset import fit_preset

    deadline, changes = deadline_of(stop_after), merge_overrides(overrides, seeds, allow)
    execution = execution_options(executor, jobs, cell_timeout, checkpoint_every, changes)
    execution |= {"threads": threads, "locking": not no_locks}
    if steps is not None:
        changes = override(changes, "--steps", "training.steps", steps)
    registry = load_registry(plugin, plugins_dir)
    with showing_progress(registry, "nothing is written yet"):
        data, dataset, recipe = fit_preset(images, registry, changes=changes, deadline=deadline)
    data = registry.decide_options(add_variants(merge(data, changes), add or []))
    checked = parse_experiment(data, source="compare")
    for line in recipe:
        out.print(f"recipe: {line}", markup=False)
    execution["recipe"] = recipe
    repeat, where = Repeat(retry_failed, retrain_changed), (images, Path())
    _prepare_and_execute(checked, registry, where, results, device, select, repeat, execution, deadline, dataset)


def finetune(
    reader: Annotated[Path, typer.Argument(help="A pack, as `decoderbench pack` writes it.", show_default=False)],
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder of labeled images, an LMDB, or a Hugging Face dataset on disk.", show_default=False
        ),
    ],
    charset: Annotated[
        str,
        typer.Option(
            "--charset",
            help="new: the characters of the labels; union: those and the pack's; keep: the pack's alone.",
        ),
    ] = "new",
    freeze: Annotated[
        list[str] | None,
        typer.Option("--freeze", help="A stage that is not trained, such as encoder. Repeatable.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimizer steps.  [default: by number of images]")
    ] = None,
    results: ResultsFolder = None,
    device: Device = None,
    seeds: Seeds = None,
    overrides: Overrides = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
    retrain_changed: RetrainChanged = False,
    threads: Threads = None,
    executor: ExecutorName = None,
    jobs: Jobs = None,
    cell_timeout: CellTimeout = None,
    checkpoint_every: CheckpointEvery = "60s",
    no_locks: NoLocks = False,
    stop_after: StopAfter = None,
) -> None:
    """Train the recognizer of a pack on with your own images, also with another alphabet.

    Components and image rules are those of the pack. What is loaded and what is built anew is printed. An experiment
    does the same with training.start_from.
    """
    from decoderbench.planning.finetune_preset import POLICIES, fit_finetuning

    deadline, changes = deadline_of(stop_after), merge_overrides(overrides, seeds, allow)
    execution = execution_options(executor, jobs, cell_timeout, checkpoint_every, changes)
    execution |= {"threads": threads, "locking": not no_locks}
    if charset not in POLICIES:
        raise ConfigError([f"--charset {charset}: must be one of {', '.join(POLICIES)}"])
    if steps is not None:
        changes = override(changes, "--steps", "training.steps", steps)
    registry = load_registry(plugin, plugins_dir)
    with showing_progress(registry, "nothing is written yet"):
        data, dataset, recipe = fit_finetuning(
            reader, images, registry, charset=charset, freeze=freeze or [], changes=changes, deadline=deadline
        )
    data = registry.decide_options(merge(data, changes))
    checked = parse_experiment(data, source="finetune")
    for line in recipe:
        out.print(f"recipe: {line}", markup=False)
    execution["recipe"] = recipe
    repeat, where = Repeat(retry_failed, retrain_changed), (images, Path())
    _prepare_and_execute(checked, registry, where, results, device, "", repeat, execution, deadline, dataset)


def report(
    results: Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)],
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="NAMES",
            help="Columns of the main table, such as exact_match,cer,nats_per_char,latency_ms.  [default: what is "
            "usually shown, in LaTeX what a paper has room for]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Rebuild tables and figures from the records alone. Nothing is trained; changed metrics are computed again."""
    from decoderbench.report import check_columns, markdown_table, write_files

    analysis = load_records(results, plugin, plugins_dir)
    chosen = [] if columns is None else [name.strip() for name in columns.split(",")]
    check_columns(analysis, chosen)
    out.print(markdown_table(analysis, chosen), markup=False)
    page = write_files(analysis, command=command(), columns=chosen)
    where = f"{page.parent}/tables and {page.parent}/figures"
    out.print(f"report: {page} and report.html; tables and figures are in {where}", markup=False)


def load_records(results: Path, plugin: list[str] | None, plugins_dir: list[Path] | None) -> Analysis:
    """Return what the records of a results folder say, with metrics that have changed computed again."""
    from decoderbench.records.results_directory import ResultsDirectory
    from decoderbench.registry.metric_definitions import definitions_of
    from decoderbench.report import load_report
    from decoderbench.runs.rescoring import rescore

    # Plugins can add columns and metrics. The built-in ones do not, and would import torch.
    plugins, directory = load_plugins(plugin, plugins_dir, builtin=False), ResultsDirectory(results)
    plan, metrics = directory.read_plan(), definitions_of(plugins)
    rescore(directory, plan.cells, metrics)
    return load_report(directory, plan=plan, extra_columns=plugins.report_columns, metrics=metrics)


@contextmanager
def showing_progress(registry: Registry, kept: str, *, console: Console = out) -> Iterator[None]:
    """Show the progress of the block. A signal that ends it becomes one line, which says what is kept."""
    from decoderbench.cli.progress import progress_for

    plugins, name = registry.plugins, "decoderbench progress"
    try:
        with progress_for(console) as progress:
            plugins.add(progress, name)
            yield
    except KeyboardInterrupt as error:
        err.print(f"interrupted; {kept}, run the same command again to continue", markup=False)
        raise typer.Exit(exit_status_of(error)) from None
    finally:
        plugins.manager.unregister(name=name)


def _prepare_and_execute(
    experiment: Experiment,
    registry: Registry,
    where: tuple[Path, Path],
    results: Path | None,
    device: str | None,
    select: str,
    repeat: Repeat,
    execution: dict[str, Any],
    deadline: Deadline,
    dataset: Dataset | None = None,
) -> None:
    from decoderbench.execution.executors import choose_executor
    from decoderbench.planning.prepare import prepare
    from decoderbench.runs.runner import execute, open_results
    from decoderbench.training.devices import choose_device

    source, base_dir = where
    directory = open_results(experiment, results, locking=execution.pop("locking"))
    chosen_device = choose_device(device)
    how = {name: execution[name] for name in ("jobs", "cell_timeout")}
    choose_executor(registry, execution["executor"], execution["executor_options"], **how).component.warm_up()
    with showing_progress(registry, "finished cells are kept"):
        prepared = prepare(
            experiment, registry=registry, base_dir=base_dir, dataset=dataset, deadline=deadline, audit_images=True
        )
        finished = execute(
            prepared,
            directory,
            chosen_device,
            select=select,
            retry_failed=repeat.failed,
            retrain_changed=repeat.changed,
            **execution,
            command=command(),
            origin=digest_of_path(source),
        )
    print_outcome(directory, finished, select)


def print_outcome(directory: ResultsDirectory, finished: Analysis, select: str) -> None:
    """Print the table and what failed; exit status 1 if something did."""
    from decoderbench.planning.selection import select_cells
    from decoderbench.report import markdown_table

    out.print(markdown_table(finished), markup=False)
    out.print(f"report: {directory.path / 'report.md'} and report.html", markup=False)
    selected = select_cells(finished.results.plan.cells, select)
    rows = {cell.variant for cell in selected}
    trials = [cell for cell in finished.results.plan.tuning if cell.variant in rows]
    failed = [
        _report_failed(directory, trials, finished.results.trials, "trials of tuning"),
        _report_failed(directory, selected, finished.results.recorded, "cells"),
    ]
    if any(failed):
        raise typer.Exit(1)


def _report_failed(directory: ResultsDirectory, cells: Sequence[Cell], frame: pd.DataFrame, what: str) -> bool:
    """Say how many of some cells have failed, if any, and return whether."""
    statuses = dict(zip(frame["cell_id"], frame["status"], strict=True))
    recorded = [cell for cell in cells if cell.cell_id in statuses]
    failed = [cell for cell in recorded if is_failure(statuses[cell.cell_id], cell)]
    if failed:
        reasons = f"the report gives the reasons, traceback.txt in {directory.path / 'cells'}/* the details"
        move = "--retry-failed runs them again"
        err.print(f"{len(failed)} of {len(recorded)} {what} failed; {reasons}; {move}", markup=False)
    return bool(failed)
