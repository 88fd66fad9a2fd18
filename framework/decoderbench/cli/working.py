"""The command `worker`: another machine takes part in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import (
    BaseDir,
    CellTimeout,
    CheckpointEvery,
    Device,
    ExecutorName,
    Jobs,
    Overrides,
    PluginFolders,
    PluginNames,
    RetryFailed,
    Select,
    StopAfter,
    Threads,
    deadline_of,
    execution_options,
    load_registry,
)
from decoderbench.cli.running import print_outcome, showing_progress
from decoderbench.config.overrides import parse_overrides
from decoderbench.errors import ConfigError


def worker(
    results: Annotated[Path, typer.Argument(help="A results folder in which a run has started.", show_default=False)],
    base_dir: BaseDir = None,
    device: Device = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    retry_failed: RetryFailed = False,
    threads: Threads = None,
    executor: ExecutorName = None,
    overrides: Overrides = None,
    jobs: Jobs = None,
    cell_timeout: CellTimeout = None,
    checkpoint_every: CheckpointEvery = "60s",
    stop_after: StopAfter = None,
) -> None:
    """Train cells of a run that nobody is training, on any machine that sees its results folder.

    Experiment, data and options are those that the folder states. Where components, images or labels are others here,
    that is named and nothing is trained. Cells of other machines are waited for, and taken over if their process dies.
    """
    deadline, changes = deadline_of(stop_after), parse_overrides(overrides or [])
    execution = execution_options(executor, jobs, cell_timeout, checkpoint_every, changes)
    if changes:
        rule = "the results folder states the experiment; only executor.OPTION can be set"
        raise ConfigError([f"--set {next(iter(changes))}: {rule}"])
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.execution.executors import choose_executor
    from decoderbench.records.results_directory import ResultsDirectory
    from decoderbench.runs.worker import work
    from decoderbench.training.devices import choose_device

    where = choose_device(device)
    how = {name: execution[name] for name in ("jobs", "cell_timeout")}
    choose_executor(registry, executor, execution["executor_options"], **how).component.warm_up()
    with showing_progress(registry, "finished cells are kept"):
        finished = work(
            results,
            registry,
            device=where,
            base_dir=base_dir,
            deadline=deadline,
            select=select,
            retry_failed=retry_failed,
            threads=threads,
            **execution,
        )
    print_outcome(ResultsDirectory(results), finished, select)
