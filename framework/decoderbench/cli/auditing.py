"""The command audit: all that is wrong with data, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import (
    Allow,
    Overrides,
    PluginFolders,
    PluginNames,
    StopAfter,
    deadline_of,
    err,
    load,
    load_registry,
    merge_overrides,
    out,
)
from decoderbench.cli.running import showing_progress
from decoderbench.errors import DataError


def audit(
    data: Annotated[
        Path,
        typer.Argument(
            help="An experiment's .toml file, a folder of images, an LMDB, or a Hugging Face dataset on disk."
        ),
    ],
    overrides: Overrides = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    allow: Allow = None,
    stop_after: StopAfter = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Print all that is wrong with data, with counts and examples. Train nothing.

    Exit status 0 if a run would accept the data, 3 if not. Options of the data and the images: --set dataset.KEY=VALUE,
    --set image.height=32.
    """
    deadline, changes = deadline_of(stop_after), merge_overrides(overrides, None, allow)
    is_experiment = data.suffix.lower() == ".toml"
    if is_experiment:
        experiment, registry = load(data, changes, None, plugin, plugins_dir)
    else:
        registry = load_registry(plugin, plugins_dir)
    from decoderbench.planning.data_report import audit_experiment, audit_path

    with showing_progress(registry, "images decoded so far are kept", console=err):
        if is_experiment:
            found = audit_experiment(experiment, registry, base_dir=data.parent, deadline=deadline)
        else:
            found = audit_path(data, registry, changes=changes, deadline=deadline)
    if as_json:
        out.write(json.dumps(found.as_json(), indent=1) + "\n")
    else:
        for line in found.lines():
            out.print(line, markup=False)
    if not found.accepted:
        raise typer.Exit(DataError.exit_code)
