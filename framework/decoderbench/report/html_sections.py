"""What the page shows, section by section: the context of its template. No torch here."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.analysis.curves import validation_curves
from decoderbench.analysis.frame import VARIANT, Results
from decoderbench.analysis.gallery import KINDS
from decoderbench.analysis.kept_images import read_images
from decoderbench.analysis.tuning import notes_on_tuning
from decoderbench.records.results_directory import LOGS
from decoderbench.report.comparison_tables import effect_tables
from decoderbench.report.error_tables import calibration_tables, error_tables
from decoderbench.report.html_answer import answer_of
from decoderbench.report.html_gallery import alignments_of, gallery_of
from decoderbench.report.html_grids import (
    contrast_grids,
    ledger_grid,
    provenance_grid,
)
from decoderbench.report.html_methods import methods_of, sizes_of
from decoderbench.report.html_plots import (
    Figure,
    cost_plots,
    curve_plots,
    label_plot,
    latency_plot,
    line_plot,
    row_plot,
)
from decoderbench.report.html_tables import grid_of_table
from decoderbench.report.main_table import main_table, row_labels
from decoderbench.report.settings import settings_of
from decoderbench.report.tables import join_distinct
from decoderbench.report.training_tables import health_tables, tuning_tables


def build_sections(analysis: Analysis, *, command: str) -> dict[str, Any]:
    """Return the context of the template.

    Args:
        analysis: all that is known.
        command: the command that recreates the report.
    """
    results, rows, samples = analysis.results, analysis.rows, analysis.samples
    labels = row_labels(analysis)
    positions = {variant: row for row, variant in enumerate(rows[VARIANT].itertuples(index=False, name=None))}
    cells = results.cells.assign(
        index=[positions[variant] for variant in results.cells[VARIANT].itertuples(index=False, name=None)]
    )
    images = read_images(results.directory.path)
    records = {record.cell.cell_id: record for record in results.records}
    return {
        "name": results.plan.experiment,
        "question": results.plan.question,
        "answer": answer_of(analysis, labels),
        "facts": _facts(results, rows),
        "legend": labels,
        "main": grid_of_table(main_table(analysis), numbered=True),
        "row_plot": row_plot(rows, cells.merge(analysis.learning, on=["index", "seed", "fold"], how="left"), labels),
        "contrasts": contrast_grids(analysis, labels),
        "effects": [grid_of_table(table) for table in effect_tables(analysis)],
        "curves": curve_plots(validation_curves(results), positions),
        "costs": [*_known(label_plot(analysis)), *cost_plots(analysis), *_known(latency_plot(analysis))],
        "kinds": KINDS,
        "gallery": gallery_of(samples, analysis.pictures, images),
        "looks": alignments_of(samples, images, analysis.alignments, labels),
        "errors": [grid_of_table(table) for table in error_tables(analysis)],
        "error_plots": _error_plots(analysis),
        "calibration": [grid_of_table(table) for table in calibration_tables(analysis)],
        "risk": _risk_plot(analysis),
        "health": [grid_of_table(table) for table in health_tables(analysis)],
        "tuning": [grid_of_table(table) for table in tuning_tables(analysis)],
        "tuning_notes": list(notes_on_tuning(results.plan, results.trials)),
        "ledger": ledger_grid(cells, labels),
        "data_summary": results.plan.data_summary,
        "data_notes": results.plan.data_notes,
        "sheet": [image for image in images.values() if image.split == "train"],
        "settings": settings_of(results.plan),
        "methods": methods_of(results, rows),
        "commands": {"Command of the last run": results.plan.command, "Command of this report": command},
        "environment": _environment(results),
        "logs": {name: f"{LOGS}/{quote(name)}" for name in results.directory.list_logs()},
        "provenance": provenance_grid(cells, records, labels, samples.metrics),
    }


def _known(figure: Figure | None) -> list[Figure]:
    return [] if figure is None else [figure]


def _facts(results: Results, rows: pd.DataFrame) -> dict[str, str]:
    plan = results.plan
    sizes = sizes_of(plan)
    done = int((results.cells["status"] == "done").sum())
    tested = rows["num_images"].dropna()
    return {
        "Data": join_distinct(cell.dataset for cell in plan.cells) + (f": {'; '.join(sizes)} images" if sizes else ""),
        "Rows": f"{len(rows)}, with {_seeds(results.cells['seed'])}{_in_folds(rows)}",
        "Results": f"{done} of {len(results.cells)} cells"
        + (f", tested on {join_distinct(f'{int(number):,}' for number in tested)} images" if len(tested) else ""),
        "Command": plan.command,
    }


def _seeds(seeds: pd.Series[int]) -> str:
    return f"seed{'s' * (seeds.nunique() != 1)} {join_distinct(seeds)}"


def _in_folds(rows: pd.DataFrame) -> str:
    folded = rows["num_folds"].dropna()
    which = "each" if len(folded) == len(rows) else f"{len(folded)} of them"
    return f", {which} in {join_distinct(map(int, folded))} folds" if len(folded) else ""


def _error_plots(analysis: Analysis) -> list[Figure]:
    by_length = line_plot(
        analysis.by_length,
        ("length", "exact_match"),
        identity="plot-by-length",
        labels=("Characters of the label", "Exact match (%)"),
        caption="Exact match by length of the label; bands are 95 % intervals.",
        band=True,
    )
    by_position = line_plot(
        analysis.by_position,
        ("position", "accuracy"),
        identity="plot-by-position",
        labels=("Position in the label", "Characters read right (%)"),
        caption="Characters of the labels that are neither substituted nor deleted, by their position.",
    )
    return [*_known(by_length), *_known(by_position)]


def _risk_plot(analysis: Analysis) -> list[Figure]:
    plot = line_plot(
        analysis.risk_coverage.assign(coverage=100 * analysis.risk_coverage["coverage"].astype("float64")),
        ("coverage", "risk"),
        identity="plot-risk",
        labels=("Images answered, the most confident first (%)", "Wrong among them (%)"),
        caption="Risk against coverage: the share of wrong texts if only the most confident ones are given.",
        points=False,
    )
    return _known(plot)


def _environment(results: Results) -> dict[str, str]:
    """Return what the records state about their origin: each value that occurs, or the range of dates."""
    found: dict[str, list[str]] = {}
    for record in results.records:
        device = {"device": record.device} if record.device else {}
        for key, value in (record.environment | device).items():
            found.setdefault(key, []).append(value)
    return {
        key: " to ".join(dict.fromkeys((min(values), max(values)))) if key == "date" else join_distinct(values)
        for key, values in found.items()
    }
