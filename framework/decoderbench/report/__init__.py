"""The report: records to a tidy frame, tables and figures. The last stage of the flow; no torch here.

Reading and the table take a fraction of a second. Figures take longer, so `write_files` comes after
`markdown_table` for a caller that shows the table first.
"""

from __future__ import annotations

from pathlib import Path

from decoderbench.records import write_atomically
from decoderbench.report.factors import factor_effects, factor_tables
from decoderbench.report.figures import CAPTIONS, draw_figures
from decoderbench.report.frame import ExtraColumns, Results, load_frame, load_results, summarize
from decoderbench.report.page import markdown_report
from decoderbench.report.tables import cells_csv, main_table, one_line

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
    """Write the report of a results directory into it and return the path of `report.md`.

    `command` is the command line that makes this report; it is printed in the files.

    Raises:
        DataError: the directory has no plan, or a damaged one.
        PluginError: a further metric or column has the name of a column that exists already.
    """
    return write_files(load_results(path, extra_columns=extra_columns), command=command)


def markdown_table(results: Results) -> str:
    """Return the main table with what a reader of it must know: spread, cells without a result, pending cells."""
    return main_table(results).markdown()


def write_files(results: Results, *, command: str) -> Path:
    """Write tables and figures into the directory of the results and return the path of `report.md`.

    A file without data is not written, and one of an earlier report is taken away: a figure without points, and
    the factors of a grid in which a single stage varies.
    """
    folder, name = results.directory.path, results.plan.experiment
    comment = f"% {one_line(command)}"
    factors, figures = factor_tables(results), draw_figures(results)
    more = [table.latex(name, part=f"-factors-{number}") for number, table in enumerate(factors, start=1)]
    captions = {figure: CAPTIONS[figure] for figure in figures}
    files = {
        "cells.csv": cells_csv(results.recorded),
        "table.tex": "\n".join([comment, main_table(results).latex(name)]),
        "factors.csv": cells_csv(factor_effects(results.cells)) if factors else None,
        "factors.tex": "\n".join([comment, *more]) if factors else None,
        **{figure: figures.get(figure) for figure in CAPTIONS},
        "report.md": markdown_report(results, command=command, factors=factors, figures=captions),
    }
    for file, content in files.items():
        if content is None:
            (folder / file).unlink(missing_ok=True)
        else:
            write_atomically(folder / file, content.encode())
    return folder / "report.md"
