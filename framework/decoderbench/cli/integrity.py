"""The command `verify`: every file of a results folder against its recorded size and sha256."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import err, out


def verify(
    results: Annotated[Path, typer.Argument(help="The results folder of a run.", show_default=False)],
    fix: Annotated[
        bool, typer.Option("--fix", help="Rename damaged files to .damaged, so that their cells run again.")
    ] = False,
) -> None:
    """Compare every file of the results with its recorded size and sha256. Exit status 1 if one is damaged."""
    from decoderbench.housekeeping.verification import verify as verify_folder
    from decoderbench.records.results_directory import ResultsDirectory

    found = verify_folder(ResultsDirectory(results), fix=fix, report=lambda line: out.print(line, markup=False))
    out.print(found.summary(), markup=False)
    if found.damaged:
        move = "give the run command again" if fix else "--fix renames them, so that their cells run again"
        err.print(f"{len(found.damaged)} damaged; {move}", markup=False)
    if found.damaged or found.unread:
        raise typer.Exit(3 if found.unread else 1)
