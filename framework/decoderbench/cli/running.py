"""Commands that train and report: run, compare, plan, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoderbench.cli.common import (
    Additions,
    Allow,
    Assignments,
    Device,
    ExperimentFile,
    PluginFolders,
    PluginNames,
    Results,
    RetryFailed,
    Seeds,
    Select,
    changes_of,
    command,
    err,
    load,
    out,
    plugins_of,
    registry_of,
)
from decoderbench.config.experiment import Experiment, parse_experiment
from decoderbench.config.overrides import add_variants, merge

if TYPE_CHECKING:
    from decoderbench.registry.registry import Registry


def run(
    experiment: ExperimentFile,
    results: Results = None,
    device: Device = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    add: Additions = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Train every cell of an experiment that has no result yet, and report."""
    changes = changes_of(assignments, seeds, allow)
    checked, registry = load(experiment, changes, add, plugin, plugins_dir)
    _run(checked, registry, experiment.parent, results, device, select, retry_failed)


def compare(
    images: Annotated[Path, typer.Argument(help="A folder of labeled images.", show_default=False)],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimizer steps of each cell.")] = 2000,
    results: Results = None,
    device: Device = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    add: Additions = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Compare three decoders on your own images; no file to write.

    Labels come from labels.csv, a tab-separated file, .gt.txt files or the file names.
    """
    from decoderbench.planning.compare_preset import comparison

    changes = changes_of(assignments, seeds, allow)
    registry = registry_of(plugin, plugins_dir)
    data = comparison(images, registry, steps=steps, options=changes.get("dataset", {}))
    checked = parse_experiment(add_variants(merge(data, changes), add or []), source="compare")
    _run(checked, registry, Path(), results, device, select, retry_failed)


def plan(
    experiment: ExperimentFile,
    seeds: Seeds = None,
    assignments: Assignments = None,
    add: Additions = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show the grid: frames, parameters and MACs of every cell, and which cannot be trained and why."""
    checked, registry = load(experiment, changes_of(assignments, seeds, allow), add, plugin, plugins_dir)
    from decoderbench.planning.grid import plan_cells, plan_table, read_buckets, read_data, refuse_if_all_infeasible

    data = read_data(checked, registry, base_dir=experiment.parent, cache_dir=None)
    cells = plan_cells(checked, registry, data, read_buckets(checked, data, cache_dir=None))
    if as_json:
        print(json.dumps([{"cell_id": c.cell_id, **c.model_dump(mode="json")} for c in cells], indent=1))  # noqa: T201
    else:
        for line in data.audit.lines():
            out.print(line, markup=False)
        out.print(plan_table(cells), markup=False)
    refuse_if_all_infeasible(cells)


def report(
    results: Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)],
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Rebuild tables and figures from the records alone; nothing is trained."""
    from decoderbench.report import load_results, markdown_table, write_files

    # Plugins can add columns, but the bundled ones do not and would import torch.
    loaded = load_results(results, extra_columns=plugins_of(plugin, plugins_dir, shipped=False).report_columns)
    out.print(markdown_table(loaded), markup=False)
    page = write_files(loaded, command=command())
    out.print(f"written: {page}; tables as .csv and .tex and the figures lie beside it", markup=False)


def _run(
    experiment: Experiment,
    registry: Registry,
    base_dir: Path,
    results: Path | None,
    device: str | None,
    select: str,
    retry_failed: bool,
) -> None:
    from decoderbench import runner
    from decoderbench.cli.progress import progress_for
    from decoderbench.report import load_results, markdown_table

    results = results or Path("results") / experiment.name
    try:
        with progress_for(out) as progress:
            registry.plugins.add(progress, "progress")
            frame = runner.run(
                experiment,
                results=results,
                device=device,
                select=select,
                retry_failed=retry_failed,
                registry=registry,
                base_dir=base_dir,
                command=command(),
                echo=lambda line: out.print(line, markup=False),
                images_done=progress.images_done,
            )
    except KeyboardInterrupt:
        err.print("interrupted; finished cells are kept, run the same command again to go on", markup=False)
        raise typer.Exit(130) from None
    out.print(markdown_table(load_results(results)), markup=False)
    out.print(f"report: {results / 'report.md'}", markup=False)
    if failed := int(frame["status"].isin(["failed", "oom", "diverged"]).sum()):
        err.print(f"{failed} of {len(frame)} cells failed; the report says why", markup=False)
        raise typer.Exit(1)
