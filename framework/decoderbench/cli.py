"""The command line: run, compare, plan, report, plugins. Torch is imported only by commands that need it.

Exit status: 0 done, 1 some cell failed, 2 usage or configuration, 3 data, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from decoderbench import __version__
from decoderbench.errors import ConfigError, DecoderBenchError
from decoderbench.experiment import Experiment, describe, merge, parse_assignments, parse_experiment, read_toml

if TYPE_CHECKING:
    from decoderbench.plugin_manager import Plugins
    from decoderbench.registry import Registry

app = typer.Typer(
    name="decoderbench",
    help="Which decoder should turn a CNN's features into text, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

ExperimentFile = Annotated[Path, typer.Argument(help="An experiment's .toml file.", show_default=False)]
PluginNames = Annotated[
    list[str] | None, typer.Option("-p", "--plugin", help="Load a plugin: a module, or a .py file. Repeatable.")
]
PluginFolders = Annotated[
    list[Path] | None, typer.Option("--plugins-dir", help="Load every .py file of a folder as a plugin. Repeatable.")
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Change a key, as in training.steps=500. Repeatable.")
]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Seeds to train with, as in 0,1,2.")]
Results = Annotated[Path | None, typer.Option("--results", help="Where results go.  [default: results/NAME]")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N.  [default: the accelerator if there is one]")
]
Select = Annotated[
    str, typer.Option("-k", "--select", help="Run only cells whose name fits, as in 'ctc and not seed 1'.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run cells again that failed before.")]
Allow = Annotated[list[str] | None, typer.Option("--allow", help="Accept a data problem by its code. Repeatable.")]


@app.command()
def run(
    experiment: ExperimentFile,
    results: Results = None,
    device: Device = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Train every cell of an experiment that has no result yet, and report."""
    changes = _changes(assignments, seeds, allow)
    checked, registry = _load(experiment, changes, plugin, plugins_dir)
    _run(checked, registry, experiment.parent, results, device, select, retry_failed)


@app.command()
def compare(
    images: Annotated[Path, typer.Argument(help="A folder of labelled images.", show_default=False)],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps of each cell.")] = 2000,
    results: Results = None,
    device: Device = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    select: Select = "",
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Compare three decoders on your own images; no file to write.

    Labels come from labels.csv, a tab-separated file, .gt.txt files or the file names.
    """
    from decoderbench.comparison import comparison

    changes = _changes(assignments, seeds, allow)
    registry = _registry(plugin, plugins_dir)
    data = comparison(images, registry, steps=steps, options=changes.get("dataset", {}))
    checked = parse_experiment(merge(data, changes), source="compare")
    _run(checked, registry, Path(), results, device, select, retry_failed)


@app.command()
def plan(
    experiment: ExperimentFile,
    seeds: Seeds = None,
    assignments: Assignments = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show the grid: frames, parameters and MACs of every cell, and which cannot be trained and why."""
    checked, registry = _load(experiment, _changes(assignments, seeds, allow), plugin, plugins_dir)
    from decoderbench.plan import plan_cells, plan_table, read_buckets, read_data, refuse_if_all_infeasible

    data = read_data(checked, registry, base_dir=experiment.parent, cache_dir=None)
    cells = plan_cells(checked, registry, data, read_buckets(checked, data, cache_dir=None))
    if as_json:
        print(json.dumps([{"cell_id": c.cell_id, **c.model_dump(mode="json")} for c in cells], indent=1))  # noqa: T201
    else:
        for line in data.audit.lines():
            out.print(line, markup=False)
        out.print(plan_table(cells), markup=False)
    refuse_if_all_infeasible(cells)


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)],
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Rebuild tables and figures from the records alone; nothing is trained."""
    from decoderbench.report import load_results, markdown_table, write_files

    # Plugins can add columns, but the bundled ones do not; so none is loaded unless it is asked for.
    columns = _plugins(plugin, plugins_dir, installed=False).report_columns if plugin or plugins_dir else None
    loaded = load_results(results, extra_columns=columns)
    out.print(markdown_table(loaded), markup=False)
    page = write_files(loaded, command=_command())
    out.print(f"written: {page}; tables as .csv and .tex and the figures lie beside it", markup=False)


@app.command()
def plugins(
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks of plugins that were left out.")] = False,
) -> None:
    """List every component: kind, name, where it comes from, options with defaults."""
    registry = _registry(plugin, plugins_dir)
    for shelf in registry.shelves():
        for registered in shelf.values():
            out.print(f"{shelf.kind} {registered.name}  ({registered.origin})", markup=False)
            for name, field in registered.config_class.model_fields.items():
                default = "required" if field.is_required() else f"= {field.get_default(call_default_factory=True)!r}"
                described = " ".join((field.description or "").split())
                out.print(f"    {name} {default}  {described}", markup=False)
    for broken in registry.plugins.broken:
        err.print(f"left out: {broken.reason}", markup=False)
        if verbose:
            err.print(broken.details, markup=False)


def main() -> None:
    """Run the command line and turn what users can cause into one message and an exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("decoderbench").setLevel(logging.INFO)
    try:
        app()
    except DecoderBenchError as error:
        err.print(f"{error}", markup=False)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        err.print(f"{error.filename or 'a file'}: {error.strerror or error}; what was finished is kept", markup=False)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(__version__, markup=False)
        raise typer.Exit


def _changes(assignments: list[str] | None, seeds: str | None, allow: list[str] | None) -> dict[str, Any]:
    changes = parse_assignments(assignments or [])
    if seeds is not None:
        try:
            changes = merge(changes, {"grid": {"seeds": [int(seed) for seed in seeds.split(",")]}})
        except ValueError:
            raise ConfigError([f"--seeds {seeds}: must be whole numbers parted by commas, as in 0,1,2"]) from None
    return merge(changes, {"allow": allow}) if allow else changes


def _load(
    path: Path, changes: dict[str, Any], plugin: list[str] | None, folders: list[Path] | None
) -> tuple[Experiment, Registry]:
    """Check an experiment in two looks: its own keys at once, then, with torch, what it says of components.

    Both looks are taken whatever the first finds, so that one reading reports every mistake.
    """
    data, text = read_toml(path)
    data = merge(data, changes)
    experiment, mistakes = None, 0
    try:
        experiment = parse_experiment(data, source=str(path), text=text)
    except ConfigError as error:
        err.print(f"{error}", markup=False)
        mistakes = len(error.problems)
    registry = _registry(plugin, folders)
    if problems := [describe(str(path), text, *problem) for problem in registry.problems(data)]:
        err.print("\n".join(problems), markup=False)
    mistakes += len(problems)
    if mistakes or experiment is None:
        err.print(f"{mistakes} mistake{'s' * (mistakes != 1)} in {path}; nothing was trained", markup=False)
        raise typer.Exit(ConfigError.exit_code)
    return experiment, registry


def _plugins(names: list[str] | None, folders: list[Path] | None, *, installed: bool = True) -> Plugins:
    from decoderbench.plugin_manager import build_plugin_manager

    return build_plugin_manager(names or [], list(folders or []), installed=installed)


def _registry(names: list[str] | None, folders: list[Path] | None) -> Registry:
    loaded = _plugins(names, folders)
    from decoderbench.registry import Registry

    return Registry(loaded)


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
    from decoderbench.progress import progress_for
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
                command=_command(),
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


def _command() -> str:
    """Return the command line as somebody would type it again."""
    return shlex.join(["decoderbench", *sys.argv[1:]])
