"""The command `pack`: a trained model as one file, one file per row, or one that is trained on all images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from decoderbench.cli.reading import Best, CellId, Row, refuse_two_choices
from decoderbench.cli.running import showing_progress
from decoderbench.errors import ConfigError

if TYPE_CHECKING:
    from decoderbench.registry.registry import Registry


def pack(
    source: Annotated[Path, typer.Argument(help="A folder that a run has written.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(help="The pack to write, as in reader.zip; with --every-row a folder.", show_default=False),
    ],
    best: Best = False,
    row: Row = None,
    cell: CellId = None,
    every_row: Annotated[
        bool, typer.Option("--every-row", help="Write the best model of each row, as in packs/ROW.zip.")
    ] = False,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="Of an experiment with folds: train the row once more, on all images, and pack that model. Its card "
            "gives the accuracy of the folds.",
        ),
    ] = False,
    base_dir: BaseDir = None,
    device: Device = None,
    threads: Threads = None,
    executor: ExecutorName = None,
    stop_after: StopAfter = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Write a trained recognizer as one file, which `predict` reads wherever decoderbench is installed."""
    refuse_two_choices(best, row, cell)
    if every_row and (best or row is not None or cell is not None):
        raise ConfigError(["--every-row: packs all rows; omit --best, --row and --cell"])
    if refit and (every_row or cell is not None):
        raise ConfigError(["--refit: trains one row on all images; omit --every-row and --cell"])
    training = {
        "--base-dir": base_dir, "--device": device, "--threads": threads, "--executor": executor,
        "--stop-after": stop_after,
    }  # fmt: skip
    if not refit and (given := [name for name, value in training.items() if value is not None]):
        raise ConfigError([f"{given[0]}: only --refit trains; omit it"])
    registry = load_registry(plugin, plugins_dir)
    if refit:
        _pack_refit(source, file, registry, row, base_dir, device, threads, executor, stop_after)
    elif every_row:
        _pack_every_row(source, file, registry)
    else:
        from decoderbench.inference.loading import pack as write

        _print_pack(file, write(source, file, registry, row=row, cell=cell))


def _pack_every_row(source: Path, folder: Path, registry: Registry) -> None:
    from decoderbench.inference.loading import pack_every_row

    for file, origin in pack_every_row(source, folder, registry):
        _print_pack(file, origin)


def _pack_refit(
    source: Path,
    file: Path,
    registry: Registry,
    row: str | None,
    base_dir: Path | None,
    device: str | None,
    threads: int | None,
    executor: str | None,
    stop_after: str | None,
) -> None:
    from decoderbench.runs.refit import refit
    from decoderbench.training.devices import choose_device

    where, deadline = choose_device(device), deadline_of(stop_after)
    with showing_progress(registry, "what was trained is kept"):
        found = refit(
            source,
            registry,
            device=where,
            row=row,
            base_dir=base_dir,
            threads=threads,
            executor=executor,
            command=command(),
            deadline=deadline,
        )
    found.pack(file, registry)
    _print_pack(file, found.lines())


def _print_pack(file: Path, origin: tuple[str, ...]) -> None:
    for line in origin:
        err.print(line, markup=False)
    size = file.stat().st_size / 1e6
    out.print(f"pack: {file}, {size:.1f} MB; decoderbench predict {file} IMAGES reads with it", markup=False)
