"""The command `reproduce`: a finished cell trained again, and whether the number came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import (
    BaseDir,
    Device,
    ExecutorName,
    PluginFolders,
    PluginNames,
    StopAfter,
    Threads,
    command,
    deadline_of,
    err,
    load_registry,
    out,
)
from decoderbench.cli.running import showing_progress


def reproduce(
    results: Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)],
    cell: Annotated[str, typer.Option("--cell", help="Id of a finished cell, or its beginning.", show_default=False)],
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Results folder of the new training.  [default: RESULTS/reproduced/ID]"),
    ] = None,
    base_dir: BaseDir = None,
    device: Device = None,
    threads: Threads = None,
    executor: ExecutorName = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    stop_after: StopAfter = None,
) -> None:
    """Train one finished cell again and say whether the number came back. Exit status 1 if it did not.

    Experiment, data and options are those that the results state. On a CPU as many threads train it as before.
    """
    deadline = deadline_of(stop_after)
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.runs.reproduction import reproduce as train_again
    from decoderbench.training.devices import choose_device

    where = choose_device(device)
    with showing_progress(registry, "what was trained is kept"):
        found = train_again(
            results,
            cell,
            registry,
            device=where,
            results=into,
            base_dir=base_dir,
            threads=threads,
            executor=executor,
            command=command(),
            deadline=deadline,
        )
    out.print(f"{found.before.cell.title}, {found.before.environment.get('date', 'no date')}", markup=False)
    for line in found.lines():
        out.print(f"  {line}", markup=False)
    if found.came_back:
        out.print("the number came back", markup=False)
    else:
        err.print(f"the number did not come back; the new training is in {found.folder}", markup=False)
        raise typer.Exit(1)
