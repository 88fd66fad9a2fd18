"""Records made by hand, and the tables of a report as its reader sees them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from decoderbench.config.cell import Cell, ResolvedComponent, ResolvedLabels
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, TrainingOptions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Cost, Plan, RunRecord

COMMAND = "decoderbench report results/demo"
HOSTILE = [
    r"50%_a & b {x} ~ ^ \ ",
    "a|b `c` <script>alert(1)</script> --> ]]>",
    "_x_ *y* [z](http://a) $\\frac{1}{0}$ &lt; 50% <!--",
    "\"q\", 'r'; a\rb\nc",
    r"=1+1 \| \*",
    "[t] * ~~u~~ ＃漢字",
]


def make_cell(decoder: str = "CTC", seed: int = 0, *, encoder: str = "ResNet", **changes: Any) -> Cell:
    def component(label: str) -> ResolvedComponent:
        return ResolvedComponent(label=label, use="x", options={"label": label}, decisive={"label": label}, source="s")

    fields: dict[str, Any] = {
        "experiment": "demo",
        "dataset": "captcha",
        "rectifier": ResolvedComponent(label="none", use="none", options={}, decisive={}, source="s"),
        "encoder": component(encoder),
        "bridge": component("columns"),
        "decoder": component(decoder),
        "seed": seed,
        "image": ImageOptions(),
        "labels": ResolvedLabels(charset="ab", max_length=5, frames_needed=9),
        "augmentation": AugmentationOptions(),
        "training": TrainingOptions(),
        "evaluation": EvaluationOptions(),
        "data_hash": "0",
        "frames": 16,
        "num_parameters": 11_200_000,
        "gmacs": 0.0456,
    }
    return Cell(**fields | changes)


def make_record(cell: Cell, exact_match: float = 0.5, **changes: Any) -> RunRecord:
    metrics = {
        "exact_match": exact_match,
        "cer": 1 - exact_match,
        "one_minus_ned": 0.75,
        "nats_per_char": 0.125,
    }
    fields: dict[str, Any] = {
        "cell": cell,
        "status": "done",
        "metrics": metrics,
        "num_test": 1000,
        "cost": Cost(latency_ms=2.0, train_samples_per_sec=5000.0),
        "device": "cpu",
        "environment": {"date": f"2026-01-0{1 + cell.seed}", "machine": "box", "torch": "2.10"},
    }
    return RunRecord(**fields | changes)


def publish(path: Path, cells: list[Cell], records: list[RunRecord], **plan: Any) -> ResultsDirectory:
    directory = ResultsDirectory(path)
    fields = {"experiment": "demo", "command": "decoderbench run demo.toml", "cells": tuple(cells)} | plan
    directory.write_plan(Plan(**fields))
    for record in records:
        directory.publish(record)
    return directory


def table_rows(markdown: str) -> list[list[str]]:
    """Return the rendered text of each table cell, row by row without the header; fail if a cell has markup."""
    rows: list[list[str]] = []
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    for before, token in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if before.type == "td_open":
            assert {child.type for child in token.children or ()} <= {"text"}
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows[1:]


def header(markdown: str) -> list[str]:
    return [name.strip() for name in markdown.splitlines()[0].strip("|").split("|")]
