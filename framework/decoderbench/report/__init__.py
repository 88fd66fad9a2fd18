"""The report: turn records into a tidy frame, tables and figures. No torch here.

Reading the records and building the table take a fraction of a second. Figures take longer, so a caller that prints
the table calls `markdown_table` first and `write_files` afterwards.
"""

from __future__ import annotations

from pathlib import Path

from decoderbench.analysis.frame import ExtraColumns, Results, load_frame, load_results, summarize
from decoderbench.report.factors import factor_effects, factor_tables
from decoderbench.report.figures import CAPTIONS, draw_figures
from decoderbench.report.page import markdown_report
from decoderbench.report.tables import cells_csv, main_table, to_single_line
from decoderbench.storage import delete, write_atomically

__all__ = [
    "ExtraColumns",
    "Results",
    "factor_effects",
    "load_frame",
    "load_results",
    "markdown_table",
    "summarize",
    "write_files",
    "write_report",
]


def write_report(path: str | Path, *, command: str, extra_columns: ExtraColumns | None = None) -> Path:
    """Write the report of a results directory into that directory and return the path of `report.md`.

    `command` is the command line that creates this report; the files quote it. Numbers are those of the records:
    metrics that changed are computed again by a run, and by the command `decoderbench report`.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    return write_files(load_results(path, extra_columns=extra_columns), command=command)


def markdown_table(results: Results) -> str:
    """Return the main table and its notes: meaning of the spread, cells without a result, pending cells."""
    return main_table(results).markdown()


def write_files(results: Results, *, command: str) -> Path:
    """Write tables and figures into the results directory and return the path of `report.md`.

    Files without data are not written: figures without points, and the factors of a grid in which only one stage
    varies. If an earlier report left such a file, it is deleted.
    """
    folder, name = results.directory.path, results.plan.experiment
    comment = f"% {to_single_line(command)}"
    table, factors, figures = main_table(results), factor_tables(results), draw_figures(results)
    factor_parts = [table.latex(name, part=f"-factors-{number}") for number, table in enumerate(factors, start=1)]
    captions = {figure: CAPTIONS[figure] for figure in figures}
    files = {
        "cells.csv": cells_csv(results.recorded),
        "table.tex": "\n".join([comment, table.latex(name)]),
        "factors.csv": cells_csv(factor_effects(results.cells)) if factors else None,
        "factors.tex": "\n".join([comment, *factor_parts]) if factors else None,
        **{figure: figures.get(figure) for figure in CAPTIONS},
        "report.md": markdown_report(results, table, command=command, factors=factors, figures=captions),
    }
    for file, content in files.items():
        if content is None:
            delete(folder / file)
        else:
            write_atomically(folder / file, content.encode())
    return folder / "report.md"
