"""Results whose cells have made-up histories of their validations."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from decoderbench.analysis import Analysis, load_report
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from helpers.readings import make_predictions, make_row, read, write_result

UNIFORM = ["ab", "ba"] * 20
"""Labels with a unigram entropy of log 2."""


def publish_histories(
    path: Path, rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], *, val: Sequence[pd.DataFrame]
) -> Analysis:
    """Publish rows of cells, each with the lines of its history, and per seed the validation images."""
    directory = ResultsDirectory(path)
    planned = [(make_row(label, seed=seed), lines) for label, of in rows.items() for seed, lines in enumerate(of)]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, _ in planned)))
    for cell, lines in planned:
        folder = directory.cell_directory(cell)
        folder.mkdir(parents=True)
        val[cell.seed].to_parquet(folder / "val_predictions.parquet", index=False)
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_result(directory, cell, read("1101"))
    return load_report(path)


def images(labels: Sequence[str] = UNIFORM, **more: Any) -> pd.DataFrame:
    return make_predictions(labels, labels, **more)
