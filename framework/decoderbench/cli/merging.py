"""The command `merge`: the results of machines that share nothing in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import PluginFolders, PluginNames, command, err, out
from decoderbench.cli.running import load_records


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Results folders of one experiment.", show_default=False)],
    into: Annotated[
        Path, typer.Option("--into", help="The folder to write. Results that it has stay.", show_default=False)
    ],
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Accept a difference between the folders by its code. Repeatable."),
    ] = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
) -> None:
    """Bring the results of several folders of one experiment together, and report. The folders are only read.

    Differences in data, settings, source code and versions are named and refused, and so are different results of one
    cell, unless --allow accepts them.
    """
    from decoderbench.housekeeping.merging.merge import merge as merge_folders
    from decoderbench.report import markdown_table, write_files

    merged = merge_folders(sources, into, allow=allow or (), command=command())
    for note in merged.notes:
        err.print(f"note       {note}", markup=False)
    for source, count in merged.copied.items():
        err.print(f"copied     {count:,} result{'s' * (count != 1)} of {source}", markup=False)
    if merged.twice:
        err.print(f"twice      {merged.twice:,} results are in several folders and equal", markup=False)
    analysis = load_records(into, plugin, plugins_dir)
    out.print(markdown_table(analysis), markup=False)
    out.print(f"{merged.results:,} of {merged.cells:,} cells have results", markup=False)
    page = write_files(analysis, command=command())
    out.print(f"report: {page} and report.html", markup=False)
