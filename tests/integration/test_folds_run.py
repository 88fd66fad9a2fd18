"""Runs with folds: every image is tested once, the row of the report is that of all folds, and tuning stays within."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.experiments import micro_experiment
from helpers.training import train

from decoderbench import Experiment, hookimpl, prepare
from decoderbench.analysis import load_report
from decoderbench.data.image_store import ImageStore
from decoderbench.housekeeping.status import StatusReader
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord
from decoderbench.registry.registry import Registry

FOLDS, IMAGES = 2, 40


@pytest.fixture
def folded() -> dict[str, Any]:
    """One row, two seeds and two folds of 40 images, of which 15 train and 5 validate in each."""
    experiment = micro_experiment(train=24, val=8, steps=2)
    experiment["dataset"]["folds"] = FOLDS
    experiment["grid"]["seeds"] = [0, 1]
    del experiment["grid"]["decoder"]["loop"]
    return experiment


@pytest.fixture(autouse=True)
def _without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the files of reports, which take longer than the runs."""
    monkeypatch.setattr("decoderbench.runs.runner.write_files", lambda analysis, command: None)


class Reads:
    """Records the rows of images that each cell reads, before and after its test images are scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, set[int]] = {}
        self.cell = ""
        verify = ImageStore.verify

        def noting(store: ImageStore, rows: Any) -> None:
            if self.cell:
                self.rows.setdefault(self.cell, set()).update(np.asarray(rows).tolist())
            verify(store, rows)

        monkeypatch.setattr(ImageStore, "verify", noting)

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        self.cell = cell.cell_id

    @hookimpl
    def cell_finished(self, cell: Any, record: RunRecord) -> None:
        self.cell = ""


def predictions_of(folder: Path, name: str = "predictions.parquet") -> pd.DataFrame:
    return pd.read_parquet(folder / name)


def test_every_image_is_tested_once_per_seed_and_the_row_is_that_of_all_folds(
    folded: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    train(folded, tiny_registry, tmp_path, select="fold 0")
    assert {state.cell.fold for state in StatusReader(tmp_path).read().of("waiting")} == {1}
    assert load_report(tmp_path).rows["num_seeds"].tolist() == [0]
    frame = train(folded, tiny_registry, tmp_path)
    assert frame[["seed", "fold"]].values.tolist() == [[seed, fold] for fold in range(FOLDS) for seed in range(2)]
    keys = [sample.key for sample in prepare(Experiment(**folded), registry=tiny_registry).inputs.samples]
    tested: dict[int, list[pd.DataFrame]] = {0: [], 1: []}
    for cell in frame.itertuples():
        folder = tmp_path / "cells" / str(cell.cell_id)
        test, validation = predictions_of(folder), predictions_of(folder, "val_predictions.parquet")
        assert not set(test["sample"]) & set(validation["sample"])
        assert len(test) == cell.num_test
        tested[int(cell.seed)].append(test)
    for of_seed in tested.values():
        assert sorted(key for test in of_seed for key in test["sample"]) == sorted(keys)
        assert sorted(map(len, of_seed)) == [20, 20]
    together = [pd.concat(of_seed) for of_seed in tested.values()]
    rows = load_report(tmp_path).rows
    assert rows[["num_seeds", "num_images", "num_folds"]].values.tolist() == [[2, IMAGES, FOLDS]]
    right = [(own["reference"] == own["hypothesis"]).mean() for own in together]
    assert rows["exact_match"][0] == pytest.approx(np.mean(right))
    errors = [own["edit_distance"].sum() / own["reference"].str.len().sum() for own in together]
    assert rows["cer"][0] == pytest.approx(np.mean(errors))
    nats = [own["nll"].sum() / own["reference"].str.len().sum() for own in together]
    assert rows["nats_per_char"][0] == pytest.approx(np.mean(nats))


def test_tuning_chooses_within_a_fold_and_reads_no_image_that_the_fold_tests(
    folded: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded["grid"]["seeds"] = [0]
    folded["tuning"] = {"over": {"training.learning_rate": [1e-3, 1e-2]}, "seeds": [7], "steps": 1}
    reads = Reads(monkeypatch)
    tiny_registry.plugins.add(reads, "reads")
    scores = iter([0.1, 0.9, 0.9, 0.1])  # of the trials: the folds choose differently
    original = ResultsDirectory.publish

    def publish(directory: ResultsDirectory, record: RunRecord) -> Any:
        if record.cell.purpose == "tuning":
            record = record.model_copy(update={"metrics": record.metrics | {"exact_match": next(scores)}})
        return original(directory, record)

    monkeypatch.setattr(ResultsDirectory, "publish", publish)
    train(folded, tiny_registry, tmp_path)
    plan = ResultsDirectory(tmp_path).read_plan()
    (inputs,) = prepare(Experiment(**folded), registry=tiny_registry).data.values()
    assert Counter(trial.fold for trial in plan.tuning) == dict.fromkeys(range(FOLDS), 2)
    for trial in plan.tuning:
        splits = inputs.label_audit.of_fold(trial.fold).splits
        read = {splits[row] for row in reads.rows[trial.cell_id]}
        assert read == {"train", "val"}
    assert [cell.training.learning_rate for cell in plan.cells] == [1e-2, 1e-3]
    analysis = load_report(tmp_path)
    tuning = analysis.tuning
    assert tuning["fold"].tolist() == [0, 0, 1, 1]
    assert tuning["chosen"].tolist() == [False, True, True, False]
    assert analysis.rows["tuned"][0] == "learning_rate 0.01; learning_rate 0.001"
