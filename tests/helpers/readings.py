"""Records with made-up predictions: which texts each cell has read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from decoderbench.config.cell import Cell, ResolvedComponent
from decoderbench.metrics import Transcriptions, built_in_definitions, edit_distances, sources_of
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from helpers.recording import make_cell, make_record

COLUMNS = ("rectifier", "encoder", "bridge", "decoder")


def make_predictions(
    references: Sequence[str], hypotheses: Sequence[str], *, nll: Sequence[float | None] | None = None, **more: Any
) -> pd.DataFrame:
    """Return the columns of `predictions.parquet`; `more` are further ones, or others in place of these."""
    columns: dict[str, Any] = {
        "sample": [f"test/{number:04}" for number in range(len(references))],
        "reference": list(references),
        "hypothesis": list(hypotheses),
        "log_prob": 0.0,
        "nll": list(nll or [0.5] * len(references)),
        "edit_distance": edit_distances(references, hypotheses),
    }
    return pd.DataFrame(columns | more)


def write_result(directory: ResultsDirectory, cell: Cell, predictions: pd.DataFrame, **changes: Any) -> None:
    """Publish a done cell with these predictions and the metrics that they give."""
    nll = [None if pd.isna(value) else value for value in predictions["nll"]]
    texts = Transcriptions(predictions["reference"].tolist(), predictions["hypothesis"].tolist(), nll)
    definitions = built_in_definitions()
    scores = {name: definition.score(texts) for name, definition in definitions.items()}
    folder = directory.cell_directory(cell)
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    record = make_record(
        cell, metrics=scores, metric_sources=sources_of(definitions.values()), num_test=len(predictions)
    )
    directory.publish(record.model_copy(update=changes))


def make_row(*labels: str, seed: int = 0, **changes: Any) -> Cell:
    """Return a cell whose last stages have these labels, up to rectifier, encoder, bridge, decoder."""
    stages = {
        axis: ResolvedComponent(label=label, use="x", options={"label": label}, decisive={"label": label}, source="s")
        for axis, label in zip(COLUMNS[-len(labels) :], labels, strict=True)
    }
    return make_cell(seed=seed, **changes).model_copy(update=stages)


def publish_rows(
    path: Path, rows: Mapping[tuple[str, ...] | str, Sequence[str | None]], **changes: Any
) -> ResultsDirectory:
    """Publish a plan of rows, each with a text per seed such as "1101": which images it reads right; None: failed.

    The images have labels of one to three characters. A wrong text lacks the last character, or is "x" for one.
    """
    planned = [
        (make_row(*((labels,) if isinstance(labels, str) else labels), seed=seed, **changes), flags)
        for labels, seeds in rows.items()
        for seed, flags in enumerate(seeds)
    ]
    directory = ResultsDirectory(path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, _ in planned)))
    for cell, flags in planned:
        if flags is None:
            directory.publish(make_record(cell, status="failed", reason="out of luck"))
        else:
            write_result(directory, cell, read(flags))
    return directory


def read(flags: str) -> pd.DataFrame:
    """Return predictions of images that were read right (1) or wrong (0)."""
    references = ["abc"[: 1 + number % 3] for number in range(len(flags))]
    wrong = [reference[:-1] or "x" for reference in references]
    texts = [good if flag == "1" else bad for flag, good, bad in zip(flags, references, wrong, strict=True)]
    return make_predictions(references, texts)
