"""What the commands share: consoles, options, and the loading of plugins and experiments."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoderbench.cli.terminal import SafeConsole
from decoderbench.command_line import shell_command
from decoderbench.config.experiment import Experiment, parse_experiment, read_toml
from decoderbench.config.merging import merge
from decoderbench.config.mistakes import describe_mistake
from decoderbench.config.overrides import add_variants, parse_overrides
from decoderbench.config.typed_values import text_of, value_of
from decoderbench.deadline import Deadline, parse_duration
from decoderbench.errors import ConfigError

if TYPE_CHECKING:
    from decoderbench.registry.plugin_manager import Plugins
    from decoderbench.registry.registry import Registry

STARTED = time.monotonic()
"""When the process began, nearly: this module is imported before torch."""

out = SafeConsole(soft_wrap=True, highlight=False, emoji=False)
err = SafeConsole(stderr=True, soft_wrap=True, highlight=False, emoji=False)

ExperimentFile = Annotated[Path, typer.Argument(help="An experiment's .toml file.", show_default=False)]
PluginNames = Annotated[
    list[str] | None,
    typer.Option("-p", "--plugin", help="Load a plugin: a module or a .py file; no:NAME disables one. Repeatable."),
]
PluginFolders = Annotated[
    list[Path] | None, typer.Option("--plugins-dir", help="Load every .py file of a folder as a plugin. Repeatable.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key, as in training.steps=500, or executor.time=2h. Repeatable."),
]
Additions = Annotated[
    list[str] | None, typer.Option("--add", help="Add a variant, as in decoder.mine=my_decoder. Repeatable.")
]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Seeds to train with, as in 0,1,2.")]
ResultsFolder = Annotated[Path | None, typer.Option("--results", help="Where results go.  [default: results/NAME]")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or cuda:N.  [default: CUDA if there is a device]")
]
Select = Annotated[
    str, typer.Option("-k", "--select", help="Only cells whose name matches, as in 'ctc and not seed 1'.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")]
RetrainChanged = Annotated[
    bool,
    typer.Option(
        "--retrain-changed", help="Train cells again whose results come from other versions, sources or machines."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads that train a cell.  [default: 1 on a CPU, the host's on CUDA]"),
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Where cells run: local, in processes of their own; inline, in this one; ray; slurm.  [default: local]",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="How many cells run at a time.  [default: as many as cores and memory allow; 1 on CUDA]"
    ),
]
CellTimeout = Annotated[
    str | None,
    typer.Option("--cell-timeout", help="End a cell after this time, as in 30m; its status is `timeout`."),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        "--checkpoint-every", help="Training time between two checkpoints of a cell, as in 5m; 0 for no checkpoints."
    ),
]
NoLocks = Annotated[
    bool,
    typer.Option("--no-locks", help="Do not hold cells by locks or heartbeats. No other run may use --results."),
]
StopAfter = Annotated[
    str | None,
    typer.Option(
        "--stop-after",
        help="Save and end after this time, as in 90s, 5m or 2h; exit status 4 if something is left to do.",
    ),
]
BaseDir = Annotated[
    Path | None,
    typer.Option("--base-dir", help="Where relative paths of the experiment start.  [default: where they did]"),
]
Allow = Annotated[list[str] | None, typer.Option("--allow", help="Accept a data problem by its code. Repeatable.")]


def override(changes: dict[str, Any], option: str, key: str, value: Any) -> dict[str, Any]:
    """Return overrides with a key that has an option of its own; raise `ConfigError` if `--set` gives it too."""
    table, name = key.split(".")
    given = value_of(changes.get(table))
    if isinstance(given, Mapping) and name in given:
        raise ConfigError([f"{option} and --set {key} say the same thing; give one of them"])
    return merge(changes, {table: {name: value}})


def merge_overrides(overrides: list[str] | None, seeds: str | None, allow: list[str] | None) -> dict[str, Any]:
    """Return the keys that the options override in an experiment, as plain data."""
    changes = parse_overrides(overrides or [])
    if seeds is not None:
        try:
            numbers = [int(seed) for seed in seeds.split(",")]
        except ValueError:
            raise ConfigError([f"--seeds {seeds}: must be whole numbers separated by commas, as in 0,1,2"]) from None
        changes = override(changes, "--seeds", "grid.seeds", numbers)
    return merge(changes, {"allow": allow}) if allow else changes


def load(
    path: Path,
    changes: dict[str, Any],
    additions: list[str] | None,
    plugin: list[str] | None,
    folders: list[Path] | None,
) -> tuple[Experiment, Registry]:
    """Check an experiment in two passes: its own keys (no torch), then component names and options.

    Both passes are always made, so one run reports every mistake. Options that were typed are text or numbers only
    once their component is known.
    """
    data, text = read_toml(path)
    data = add_variants(merge(data, changes), additions or [])
    experiment, count = None, 0
    try:
        experiment = parse_experiment(data, source=str(path), text=text)
    except ConfigError as error:
        err.print(f"{error}", markup=False)
        count = len(error.mistakes)
    registry = load_registry(plugin, folders)
    data = registry.decide_options(data)
    if mistakes := [describe_mistake(str(path), text, *mistake) for mistake in registry.mistakes(data)]:
        err.print("\n".join(mistakes), markup=False)
    count += len(mistakes)
    if count or experiment is None:
        err.print(f"{count} mistake{'s' * (count != 1)} in {path}; nothing was trained", markup=False)
        raise typer.Exit(ConfigError.exit_code)
    return parse_experiment(data, source=str(path), text=text), registry


def load_plugins(names: list[str] | None, folders: list[Path] | None, *, builtin: bool = True) -> Plugins:
    """Load plugins; raise `PluginError` if one that was named cannot be loaded."""
    from decoderbench.registry.plugin_manager import build_plugin_manager

    return build_plugin_manager(names or [], list(folders or []), builtin=builtin)


def load_registry(names: list[str] | None, folders: list[Path] | None) -> Registry:
    """Load plugins and return the components that they register. Imports torch."""
    plugins = load_plugins(names, folders)
    from decoderbench.registry.registry import Registry

    return Registry(plugins)


def deadline_of(stop_after: str | None) -> Deadline:
    """Return the deadline that `--stop-after` sets, counted from the start of the process."""
    return Deadline(None if stop_after is None else parse_duration(stop_after), STARTED)


def execution_options(
    executor: str | None, jobs: int | None, cell_timeout: str | None, checkpoint_every: str, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of `execute` that say how cells run; those of the executor are taken out of `changes`.

    Raises:
        ConfigError: a duration is invalid, or `--set executor` gives no option.
    """
    checkpoints = checkpoint_every.strip() not in ("0", "0s")
    options = value_of(changes.pop("executor", {}))
    if not isinstance(options, Mapping):
        raise ConfigError([f"--set executor={text_of(options)}: give --executor NAME, and --set executor.OPTION=VALUE"])
    return {
        "executor": executor,
        "executor_options": options,
        "jobs": jobs,
        "cell_timeout": parse_duration(cell_timeout, "--cell-timeout") if cell_timeout is not None else None,
        "checkpoint_every": parse_duration(checkpoint_every, "--checkpoint-every") if checkpoints else None,
    }


def command() -> str:
    """Return the command line as somebody would type it again, in printable characters."""
    return shell_command("decoderbench", *sys.argv[1:])
