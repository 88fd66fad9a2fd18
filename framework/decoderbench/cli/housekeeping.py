"""The command `clean`: lists and removes files that a results folder and the image cache do not need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decoderbench.cli.common import out


def clean(
    results: Annotated[Path, typer.Argument(help="The results folder of a run.", show_default=False)],
    cache: Annotated[
        bool, typer.Option("--cache", help="Also list decoded images that nobody has used for 30 days.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
) -> None:
    """List the cells of earlier settings, damaged and temporary files of a results folder; --yes removes them.

    The cells of the last run and whatever a process is using stay.
    """
    from decoderbench.data.image_cache import default_cache_dir
    from decoderbench.housekeeping.cleaning import find_in_cache, find_in_results
    from decoderbench.records.results_directory import ResultsDirectory

    directory = ResultsDirectory(results)
    used = {cell.data_hash for cell in directory.read_plan().cells}
    found = [*find_in_results(directory), *(find_in_cache(default_cache_dir(), used) if cache else ())]
    sizes = {one.path: one.size for one in found}
    for one in found:
        out.print(f"{one.path}: {one.kind}, {sizes[one.path] / 1e6:.1f} MB", markup=False)
    if not found:
        out.print(f"{results}: nothing to remove", markup=False)
    elif not yes:
        out.print(f"{sum(sizes.values()) / 1e6:.1f} MB in all; give --yes to remove them", markup=False)
    else:
        for one in found:
            if not one.remove():
                sizes[one.path] = 0
                out.print(f"{one.path}: kept, a process is using it", markup=False)
        out.print(f"{sum(sizes.values()) / 1e6:.1f} MB removed", markup=False)
