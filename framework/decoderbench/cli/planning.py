"""Commands that train nothing: prepare, plan."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from decoderbench.cli.common import (
    Additions,
    Allow,
    ExperimentFile,
    Overrides,
    PluginFolders,
    PluginNames,
    Seeds,
    Select,
    StopAfter,
    deadline_of,
    err,
    load,
    merge_overrides,
    out,
)
from decoderbench.cli.running import showing_progress


def prepare(
    experiment: ExperimentFile,
    seeds: Seeds = None,
    overrides: Overrides = None,
    add: Additions = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    stop_after: StopAfter = None,
) -> None:
    """Do everything that a run does before training: check, plan, decode the images, audit. Train nothing."""
    deadline = deadline_of(stop_after)
    checked, registry = load(experiment, merge_overrides(overrides, seeds, allow), add, plugin, plugins_dir)
    from decoderbench.planning.prepare import prepare as prepare_experiment

    with showing_progress(registry, "images decoded so far are kept"):
        prepared = prepare_experiment(
            checked, registry=registry, base_dir=experiment.parent, deadline=deadline, audit_images=True
        )
    for inputs in prepared.data.values():
        for line in inputs.audit.lines(prepared.settings_of(inputs)):
            out.print(line, markup=False)
    prepared.refuse_if_infeasible()
    infeasible = sum(bool(cell.infeasible) for cell in prepared.cells)
    images = ", ".join(str(inputs.images.directory) for inputs in prepared.data.values())
    tuning = f"; {len(prepared.trials)} trials of tuning" if prepared.trials else ""
    out.print(f"{len(prepared.cells)} cells, {infeasible} of them infeasible{tuning}; images: {images}", markup=False)


def plan(
    experiment: ExperimentFile,
    seeds: Seeds = None,
    overrides: Overrides = None,
    add: Additions = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    select: Select = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show the grid: frames, parameters and MACs of every cell, and why a cell cannot be trained."""
    checked, registry = load(experiment, merge_overrides(overrides, seeds, allow), add, plugin, plugins_dir)
    from decoderbench.planning.grid import plan_table
    from decoderbench.planning.prepare import prepare
    from decoderbench.planning.selection import select_cells, select_trials

    with showing_progress(registry, "images decoded so far are kept", console=err):
        prepared = prepare(checked, registry=registry, base_dir=experiment.parent)
    cells = select_cells(prepared.cells, select)
    trials = select_trials(prepared.trials, cells)
    if as_json:
        shown = [
            {"cell_id": cell.cell_id, "data_key": cell.data_key, **cell.model_dump(mode="json")}
            for cell in (*trials, *cells)
        ]
        out.write(json.dumps(shown, indent=1) + "\n")
    else:
        for inputs in prepared.data.values():
            for line in inputs.audit_so_far.lines(prepared.settings_of(inputs)):
                out.print(line, markup=False)
        out.print(plan_table(cells), markup=False)
        if prepared.tuning and trials:
            out.print(prepared.tuning.summary(trials), markup=False)
    prepared.refuse_if_infeasible()
