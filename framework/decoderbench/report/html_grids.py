"""The tables that the page has and the other files of a report do not: made of the frames of an analysis.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis
from decoderbench.conditions import CONDITIONS
from decoderbench.records import RunRecord
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


def error_grids(analysis: Analysis, labels: Sequence[str]) -> list[Grid]:
    """Return the tables of edits, confusions, agreement, and of images that no row reads right."""
    rates = {name: number(name, decimals=2) for name in ("substitutions", "insertions", "deletions", "repeats_dropped")}
    outcomes = ("right", "same_length", "too_long", "too_short", "truncated", "empty")
    shares = {f"{name} (%)": number(name, factor=100, decimals=1) for name in outcomes}
    row: Columns = {"#": position("index"), "Row": lambda line: Value(labels[line["index"]])}
    both: Columns = {
        "A": position("index_a"),
        "Row A": lambda line: Value(labels[line["index_a"]]),
        "B": position("index_b"),
        "Row B": lambda line: Value(labels[line["index_b"]]),
    }
    cases = {"Both right (%)": "both", "Only A (%)": "only_a", "Only B (%)": "only_b", "Neither (%)": "neither"}
    read = analysis.errors[analysis.errors["num_texts"] > 0]
    found = [
        frame_grid(
            "anatomy",
            "Edits per 100 characters of the labels, and what became of the texts",
            read,
            row | _titled(rates) | _titled(shares),
            num_labels=2,
            notes=(
                "repeats dropped count as deletions too: ABCCD read as ABCD",
                "each text is in one of the last six columns; truncated: the reading is a beginning of the label",
            ),
            shown=MANY,
        ),
        frame_grid(
            "confusions",
            "The most frequent errors on characters, by row",
            analysis.confusions.sort_values("count", ascending=False, kind="stable"),
            {
                **row,
                "Label": lambda line: Value(_character(line["reference"])),
                "Read as": lambda line: Value(_character(line["hypothesis"])),
                "Times": number("count", decimals=0),
                "Of its occurrences (%)": number("share", factor=100, decimals=2),
            },
            num_labels=4,
        ),
        frame_grid(
            "agreement",
            "Agreement of rows on the same images and seeds",
            analysis.agreement,
            both | {header: number(name, factor=100, decimals=1) for header, name in cases.items()},
            num_labels=4,
        ),
        frame_grid(
            "all-wrong",
            "Images that no row reads right, those first on which most agree: candidates for wrong labels",
            analysis.all_wrong,
            {
                "Image": label("sample"),
                "Label": label("reference"),
                "Most read": label("reading"),
                "By (% of cells)": number("share", factor=100, decimals=0),
                "Different readings": number("num_readings", decimals=0),
            },
            num_labels=3,
        ),
    ]
    return [grid for grid in found if grid]


def _titled(columns: Columns) -> Columns:
    return {name.replace("_", " ").capitalize(): read for name, read in columns.items()}


def _character(text: str) -> str:
    return {"": "(nothing)", " ": "(blank)"}.get(text, text)


def calibration_grid(analysis: Analysis, labels: Sequence[str]) -> Grid | None:
    """Return the table of whether decoders know when they are right."""
    frame = analysis.calibration[analysis.calibration["num_seeds"] > 0]
    columns: Columns = {
        "#": position("index"),
        "Row": lambda row: Value(labels[row["index"]]),
        "Exact match (%)": number("exact_match", factor=100, decimals=1),
        "Mean confidence (%)": number("mean_confidence", factor=100, decimals=1),
        "ECE (points)": number("ece", factor=100, decimals=2),
        "AURC (%)": number("aurc", factor=100, decimals=2),
        "Texts without a probability": number("num_unscored", decimals=0),
    }
    return frame_grid(
        "calibration",
        "Confidence is the probability that a decoder gives to the text that it returned",
        frame,
        columns,
        num_labels=2,
        notes=(
            "ECE, expected calibration error: how far confidence and share of right texts are apart on average, in "
            "bins of equally many images",
            "AURC: the area under the curve of risk against coverage; less is better",
        ),
        shown=MANY,
    )


def ledger_grid(cells: pd.DataFrame, labels: Sequence[str]) -> Grid | None:
    """Return the table of cells without a result; `cells` have the column `row`, the position of their row."""
    return frame_grid(
        "ledger",
        "Cells without a result, and why",
        cells[cells["status"] != "done"],
        {
            "#": position("row"),
            "Row": lambda row: Value(labels[row["row"]]),
            "Seed": lambda row: Value(str(row["seed"]), float(row["seed"])),
            "Status": label("status"),
            "Reason": label("reason"),
            "Folder in cells/": label("cell_id"),
        },
        num_labels=6,
        file="tables/cells.csv",
    )


def provenance_grid(
    cells: pd.DataFrame, records: Mapping[str, RunRecord], labels: Sequence[str], metrics: Sequence[str]
) -> Grid | None:
    """Return the table of all cells with a record: their numbers, and the conditions in which they differ."""
    known = cells[cells["status"] != "pending"]
    differing = [name for name in CONDITIONS if name in known and known[name].nunique() > 1 and name != "commit"]

    def stated(read: Callable[[RunRecord], Any]) -> Callable[[Row], Value]:
        return lambda row: Value(str(read(records[row["cell_id"]]) or MISSING))

    columns: Columns = {
        "#": position("row"),
        "Row": lambda row: Value(labels[row["row"]]),
        "Seed": lambda row: Value(str(row["seed"]), float(row["seed"])),
        "Status": label("status"),
        "Folder in cells/": label("cell_id"),
        "Commit": label("commit"),
        "Date": stated(lambda record: record.environment.get("date")),
        **{CONDITIONS[name].capitalize(): label(name) for name in differing},
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
        num_labels=7 + len(differing),
        file="tables/cells.csv",
        shown=MANY,
    )
