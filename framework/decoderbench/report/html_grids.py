"""The tables of the page that are longer than in other files of a report: of pairs and of cells. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.conditions import CONDITIONS
from decoderbench.records.schema import RunRecord
from decoderbench.report.html_tables import (
    Grid,
    Row,
    Value,
    difference,
    frame_grid,
    label,
    number,
    p_value,
    position,
)
from decoderbench.report.metric_texts import PERCENT, metric_name
from decoderbench.report.tables import MISSING

MANY = 200
"""The most rows of tables with a line per row of the report or per cell."""

Columns = dict[str, Callable[[Row], Value]]


def contrast_grids(analysis: Analysis, labels: Sequence[str]) -> list[Grid]:
    """Return a table of paired differences per metric, pairs that differ in one stage first."""
    grids = []
    for metric in analysis.samples.metrics:
        own = analysis.contrasts[analysis.contrasts["metric"] == metric]
        own = own.sort_values("axis", key=lambda axes: axes == "", kind="stable")
        grid = frame_grid(
            f"contrasts-{metric}",
            f"{metric_name(metric)}: paired differences between rows",
            own.assign(a=[labels[row] for row in own["index_a"]], b=[labels[row] for row in own["index_b"]]),
            {
                "A": position("index_a"),
                "Row A": label("a"),
                "B": position("index_b"),
                "Row B": label("b"),
                "Differ in": lambda row: Value(str(row["axis"] or "several")),
                f"A - B{' (points)' if metric in PERCENT else ''}": difference(metric),
                "p": p_value("p"),
                "p (Holm)": p_value("p_holm", bold=True),
                "Seeds": number("num_seeds", decimals=0),
                "Images": number("num_images", decimals=0),
                "About": label("scope"),
            },
            num_labels=5,
            file="tables/contrasts.csv",
        )
        grids += [grid] if grid else []
    return grids


def ledger_grid(cells: pd.DataFrame, labels: Sequence[str]) -> Grid | None:
    """Return the table of cells without a result; `cells` have the column `index`, the position of their row."""
    return frame_grid(
        "ledger",
        "Cells without a result, and why",
        cells[cells["status"] != "done"],
        {
            "#": position("index"),
            "Row": lambda row: Value(labels[row["index"]]),
            "Seed": lambda row: Value(str(row["seed"]), float(row["seed"])),
            **_fold_column(cells),
            "Status": label("status"),
            "Reason": label("reason"),
            "Folder in cells/": label("cell_id"),
        },
        num_labels=6 + len(_fold_column(cells)),
        file="tables/cells.csv",
    )


def _fold_column(cells: pd.DataFrame) -> Columns:
    """Return the column of folds; none if no cell has one."""
    return {"Fold": number("fold", decimals=0)} if cells["fold"].notna().any() else {}


def provenance_grid(
    cells: pd.DataFrame, records: Mapping[str, RunRecord], labels: Sequence[str], metrics: Sequence[str]
) -> Grid | None:
    """Return the table of all cells with a record: their numbers, and the conditions in which they differ."""
    known = cells[cells["status"] != "pending"]
    stating = {name: known[name][known[name] != ""] for name in CONDITIONS if name in known and name != "commit"}
    differing = [name for name, values in stating.items() if values.nunique() > 1]

    def stated(read: Callable[[RunRecord], Any]) -> Callable[[Row], Value]:
        return lambda row: Value(str(read(records[row["cell_id"]]) or MISSING))

    columns: Columns = {
        "#": position("index"),
        "Row": lambda row: Value(labels[row["index"]]),
        "Seed": lambda row: Value(str(row["seed"]), float(row["seed"])),
        **_fold_column(cells),
        "Status": label("status"),
        "Folder in cells/": label("cell_id"),
        "Commit": label("commit"),
        "Date": stated(lambda record: record.environment.get("date")),
        **{f"{CONDITIONS[name][:1].upper()}{CONDITIONS[name][1:]}": label(name) for name in differing},
        **{
            metric_name(metric): number(
                metric, decimals=2 if metric in PERCENT else 4, factor=100 if metric in PERCENT else 1
            )
            for metric in metrics
        },
        "Images": number("num_test", decimals=0),
        "Step of the weights": stated(lambda record: record.kept_step),
    }
    return frame_grid(
        "cells",
        "Every cell: its folder, its origin, and its numbers",
        known,
        columns,
        num_labels=7 + len(differing) + len(_fold_column(cells)),
        file="tables/cells.csv",
        shown=MANY,
    )
