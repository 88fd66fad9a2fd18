"""The report: what an analysis says, as tables, figures and pages. No torch here.

Reading the records and building the table take about a second. Figures and pages take longer, so a caller that prints
the table calls `markdown_table` first and `write_files` afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.frame import ExtraColumns, Results, load_frame, load_results, summarize
from decoderbench.files.storage import delete, write_atomically
from decoderbench.records.results_directory import REPORT_FOLDERS
from decoderbench.report.figures import draw_figures
from decoderbench.report.main_table import check_columns, main_table, paper_table
from decoderbench.report.page import markdown_report
from decoderbench.report.sections import frames_of, sections_of
from decoderbench.report.tables import Table, to_csv, to_single_line

__all__ = [
    "ExtraColumns",
    "Results",
    "check_columns",
    "load_frame",
    "load_report",
    "load_results",
    "markdown_table",
    "summarize",
    "write_files",
    "write_report",
]

_EARLIER = (
    *("cells.csv", "table.tex", "factors.csv", "factors.tex"),
    *("accuracy_vs_steps.svg", "accuracy_vs_latency.svg"),
)
"""Files of reports of earlier versions, in the results folder itself."""


def write_report(path: str | Path, *, command: str, extra_columns: ExtraColumns | None = None) -> Path:
    """Write the report of a results directory into that directory and return the path of `report.md`.

    `command` is the command line that creates this report; the files quote it. Numbers are those of the records:
    metrics that changed are computed again by a run, and by the command `decoderbench report`.

    Raises:
        DataError: the directory has no plan, or its plan is corrupt.
    """
    return write_files(load_report(path, extra_columns=extra_columns), command=command)


def markdown_table(analysis: Analysis, columns: Sequence[str] = ()) -> str:
    """Return the main table and its notes; `columns` are those of `main_table`, by default what is usually shown."""
    return _main(analysis, columns).markdown()


def write_files(analysis: Analysis, *, command: str, columns: Sequence[str] = ()) -> Path:
    """Write tables, figures and pages into the results directory and return the path of `report.md`.

    `columns` are those of the main table; by default the page shows most, and the LaTeX table those that a paper has
    room for. Files of an earlier report that this one does not have are deleted.
    """
    from decoderbench.report.html import html_report  # for the table alone, its templates need not be loaded

    folder, experiment = analysis.results.directory.path, analysis.results.plan.experiment
    main, sections, figures = _main(analysis, columns), sections_of(analysis), draw_figures(analysis)
    paper = paper_table(analysis, columns) if columns else paper_table(analysis)
    tables = [paper, *(table for section in sections for table in section.tables)]
    files: dict[str, bytes] = {}
    for name, frame in frames_of(analysis).items():
        files[f"tables/{name}.csv"] = to_csv(frame).encode()
    for table in tables:
        files[f"tables/{table.name}.tex"] = f"% {to_single_line(command)}\n{table.latex(experiment)}".encode()
    for name, drawing in figures.items():
        files |= {f"figures/{name}.svg": drawing.svg, f"figures/{name}.pdf": drawing.pdf}
    captions = {f"figures/{name}.svg": drawing.caption for name, drawing in figures.items()}
    page = markdown_report(analysis.results, main, command=command, sections=sections, figures=captions)
    files["report.md"] = page.encode()
    files["report.html"] = html_report(analysis, command=command).encode()
    for name, content in files.items():
        write_atomically(folder / name, content)
    for place, endings in zip(REPORT_FOLDERS, ((".csv", ".tex"), (".svg", ".pdf")), strict=True):
        left = (path for path in (folder / place).glob("[!.]*") if path.suffix in endings)
        delete(*(path for path in left if f"{place}/{path.name}" not in files))
    delete(*(folder / name for name in _EARLIER))
    return folder / "report.md"


def _main(analysis: Analysis, columns: Sequence[str]) -> Table:
    return main_table(analysis, columns) if columns else main_table(analysis)
