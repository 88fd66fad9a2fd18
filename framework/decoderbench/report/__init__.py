"""The report: records to a tidy frame, tables and figures. The last stage of the flow; no torch here.

Reading and the table take a fraction of a second. Figures take longer, so `write_files` comes after
`markdown_table` for a caller that shows the table first.
"""

from __future__ import annotations

from pathlib import Path

from decoderbench.records import write_atomically
from decoderbench.report.figures import CAPTIONS, draw_figures
from decoderbench.report.frame import ExtraColumns, Results, load_frame, load_results, summarize
from decoderbench.report.tables import cells_csv, latex_table, markdown_report, markdown_table

__all__ = [
    "ExtraColumns",
    "Results",
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


def write_files(results: Results, *, command: str) -> Path:
    """Write tables and figures into the directory of the results and return the path of `report.md`.

    A figure without data is not written, and one of an earlier report is taken away.
    """
    folder = results.directory.path
    write_atomically(folder / "cells.csv", cells_csv(results.recorded).encode())
    write_atomically(folder / "table.tex", latex_table(results, command=command).encode())
    figures = draw_figures(results)
    for name in CAPTIONS:
        if name in figures:
            write_atomically(folder / name, figures[name])
        else:
            (folder / name).unlink(missing_ok=True)
    page = folder / "report.md"
    embedded = {name: CAPTIONS[name] for name in figures}
    write_atomically(page, markdown_report(results, command=command, figures=embedded).encode())
    return page
