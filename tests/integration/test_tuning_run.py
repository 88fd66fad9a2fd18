"""Runs with tuning: trials first, on validation images alone, then the cells with the values that were chosen."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.experiments import micro_experiment
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import observe, train

from decoderbench import Experiment, PluginError, deadline, hookimpl
from decoderbench.analysis import load_report
from decoderbench.analysis.tuning import notes_on_tuning
from decoderbench.data.image_store import ImageStore
from decoderbench.errors import ConfigError, PendingCellsError
from decoderbench.housekeeping.cleaning import find_in_results
from decoderbench.housekeeping.status import StatusReader
from decoderbench.planning.prepare import prepare
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.registry import Registry

DIVERGES = 1e30
TRAIN, VAL, STEPS = 24, 8, 4


@pytest.fixture
def tuned() -> dict[str, Any]:
    """Two rows with two values each to choose of, on a few images."""
    experiment = micro_experiment(train=TRAIN, val=VAL, steps=STEPS)
    experiment["tuning"] = {"over": {"training.learning_rate": [1e-3, 1e-2]}, "seeds": [7], "steps": 2}
    return experiment


@pytest.fixture(autouse=True)
def _without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the files of reports, which take longer than the runs."""
    monkeypatch.setattr("decoderbench.runs.runner.write_files", lambda analysis, command: None)


class ReadRows:
    """Records the rows of images that are read: before the first cell, by trials, and by cells that are tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, set[int]] = {"": set(), "tuning": set(), "test": set()}
        self.purpose = ""
        verify = ImageStore.verify

        def noting(store: ImageStore, rows: Any) -> None:
            self.rows[self.purpose].update(np.asarray(rows).tolist())
            verify(store, rows)

        monkeypatch.setattr(ImageStore, "verify", noting)

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        self.purpose = cell.purpose


def test_trials_read_no_test_image_and_precede_the_cells(
    tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, observer = ReadRows(monkeypatch), observe(tiny_registry)
    tiny_registry.plugins.add(read, "reads")
    frame = train(tuned, tiny_registry, tmp_path)
    train_rows, val_rows, test_rows = np.split(np.arange(TRAIN + 2 * VAL), [TRAIN, TRAIN + VAL])
    assert read.rows["tuning"] <= {*train_rows, *val_rows}
    assert read.rows["tuning"] >= {*val_rows}
    assert read.rows["test"] >= {*test_rows}  # so that reading is noticed
    assert observer.started == ["ctc", "ctc", "loop", "loop", "ctc", "loop"]
    report = load_report(tmp_path)
    trials = report.results.trials
    assert trials["seed"].tolist() == [7] * 4
    assert trials["steps"].tolist() == [2] * 4
    for cell_id in trials["cell_id"]:
        files = {path.name for path in (tmp_path / "cells" / cell_id).iterdir()}
        assert files == {"cell.json", "history.jsonl", "lock", "result.json", "val_predictions.parquet"}
        record = json.loads((tmp_path / "cells" / cell_id / "result.json").read_text())
        assert record["num_test"] == VAL
        predictions = pd.read_parquet(tmp_path / "cells" / cell_id / "val_predictions.parquet")
        right = (predictions["reference"] == predictions["hypothesis"]).mean()
        assert record["metrics"]["exact_match"] == pytest.approx(right)
    for decoder, row in trials.groupby("decoder"):
        ranks = [(one.exact_match, -one.nats_per_char) for one in row.itertuples()]
        assert row["chosen"].tolist() == [rank == max(ranks) for rank in ranks]
        (tested,) = [cell for cell in report.results.plan.cells if cell.decoder.label == decoder]
        assert tested.training.learning_rate == [1e-3, 1e-2][ranks.index(max(ranks))]
        assert tested.training.steps == STEPS
        line = frame[frame["decoder"] == decoder].iloc[0]
        assert line["tuned"] == f"learning_rate {tested.training.learning_rate}"
        assert line["tuning_seconds"] == pytest.approx(row["train_seconds"].sum())
    assert list(notes_on_tuning(report.results.plan, trials)) == [
        "tuned for every row alike, by exact match on validation images: training.learning_rate of 0.001, 0.01; "
        "2 trials per row of 2 steps, seed 7"
    ]
    observer.started.clear()
    train(tuned, tiny_registry, tmp_path)
    assert observer.started == []
    assert [one.kind for one in find_in_results(ResultsDirectory(tmp_path))] == []
    assert StatusReader(tmp_path).read().is_complete


def test_trial_that_asks_for_test_images_fails(
    tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peeks:
        @hookimpl(wrapper=True)
        def run_cell(self, cell: Any, context: Any) -> Any:
            if cell.decoder.label == "ctc":
                with pytest.raises(PluginError, match="asked for test images"):
                    context.dataset.gather(np.array([TRAIN + VAL]))
                context.dataset.rows("test")
            return (yield)

    tiny_registry.plugins.add(Peeks(), "peeks")
    frame = train(tuned, tiny_registry, tmp_path).set_index("decoder")
    assert frame["status"].tolist() == ["failed", "done"]
    reason = "PluginError: a trial of tuning asked for test images, which choose no options; use the split val"
    assert frame.loc["ctc", "reason"].startswith(f"tuning gave no value a score: failed: {reason}")
    assert pd.isna(frame.loc["ctc", "exact_match"])


class Clock:
    """A clock that stands still, and leaps at the start of the second trial."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.started = 0.0, 0
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: self.now))

    @hookimpl
    def cell_started(self) -> None:
        self.started += 1
        self.now += 1000.0 * (self.started == 2)


def test_interrupted_tuning_leaves_cells_pending_and_goes_on_to_the_same_choice(
    tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(tuned, tiny_registry, tmp_path / "uninterrupted")
    tiny_registry.plugins.add(Clock(monkeypatch), "clock")
    observer, results = observe(tiny_registry), tmp_path / "results"
    with pytest.raises(PendingCellsError, match="1 of 4 trials of tuning have results") as caught:
        train(tuned, tiny_registry, results, stop_after=60)
    assert caught.value.exit_code == 4
    report = load_report(results)
    assert report.results.cells["status"].tolist() == ["pending", "pending"]
    assert report.results.cells["reason"].tolist() == [
        "tuning: 1 of 2 trials of this row done",
        "tuning: 0 of 2 trials of this row done",
    ]
    assert report.tuning["chosen"].tolist() == [False] * 4
    notes = list(notes_on_tuning(report.results.plan, report.results.trials))
    assert notes[1] == "tuning: 1 of 4 trials done; rows that have not chosen are not tested"
    grid = StatusReader(results).read()
    assert [cell.state for cell in grid.tested] == ["waiting", "waiting"]
    assert [one.kind for one in find_in_results(ResultsDirectory(results))] == []
    observer.started.clear()
    frame = train(tuned, tiny_registry, results)
    assert len(observer.started) == 3 + 2
    same = ["cell_id", "tuned", "exact_match", "nats_per_char"]
    pd.testing.assert_frame_equal(frame[same], expected[same])


@pytest.mark.slow
def test_results_of_earlier_options_are_not_those_of_a_row_that_has_not_chosen(
    tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tuned["grid"]["decoder"]["loop"]
    tuning = tuned.pop("tuning")
    tuned["training"]["learning_rate"] = 1e-3
    train(tuned, tiny_registry, tmp_path)
    tuned["tuning"] = tuning
    tiny_registry.plugins.add(Clock(monkeypatch), "clock")
    with pytest.raises(PendingCellsError):
        train(tuned, tiny_registry, tmp_path, stop_after=60)
    assert load_report(tmp_path).results.cells["status"].tolist() == ["pending"]


def test_values_that_diverge_are_not_chosen_and_are_no_failure(
    tuned: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tuned["tuning"]["over"]["training.learning_rate"] = [DIVERGES, 1e-3]
    (file := tmp_path / "x.toml").write_text(to_toml(tuned))
    run = ["run", str(file), "-p", str(TINY_PLUGIN), "--device", "cpu", "--results", str(tmp_path / "r")]
    code, printed, errors = call(capfd, *run)
    assert code == 0, errors
    report = load_report(tmp_path / "r")
    assert report.results.cells["tuned"].tolist() == ["learning_rate 0.001"] * 2
    assert report.tuning["reasons"].str.contains("diverged: ").tolist() == [True, False] * 2
    assert report.tuning["exact_match"].isna().tolist() == [True, False] * 2
    assert "tuning: 2 of 4 trials have no score, so a row did not choose their values: 2 diverged" in printed

    tuned["tuning"]["over"]["training.learning_rate"] = [DIVERGES, 2 * DIVERGES]
    file.write_text(to_toml(tuned))
    code, printed, errors = call(capfd, *run, "-k", "ctc")
    assert code == 1
    assert "1 of 1 cells failed" in errors
    assert "tuning gave no value a score: diverged: " in printed
    assert load_report(tmp_path / "r").results.cells["status"].tolist() == ["failed", "pending"]


def test_selected_rows_are_tuned_alone(tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    observer = observe(tiny_registry)
    train(tuned, tiny_registry, tmp_path, select="loop and seed 0")
    assert observer.started == ["loop"] * 3
    assert load_report(tmp_path).results.cells["status"].tolist() == ["pending", "done"]


@pytest.mark.slow
def test_limited_training_images_are_those_of_the_trial_too(
    tuned: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned["dataset"]["train_limit"] = 8
    del tuned["grid"]["decoder"]["loop"]
    train(tuned, tiny_registry, tmp_path)
    report = load_report(tmp_path)
    sizes = {json.loads(path.read_text())["num_test"] for path in tmp_path.glob("cells/*seed-7*/result.json")}
    assert sizes == {2}  # 8 images by the fractions 24 : 8
    assert report.results.recorded["num_test"].tolist() == [VAL]


def test_candidates_are_planned_for_every_setting(tuned: dict[str, Any], tiny_registry: Registry) -> None:
    tuned["grid"]["settings"] = {"as is": {}, "noise": {"augmentation": {"noise": 0.1}}}
    tuned["tuning"]["over"] = {"training.learning_rate": [1e-3, 1e-2], "training.batch_size": [4, 8]}
    prepared = prepare(Experiment(**tuned), registry=tiny_registry)
    assert len(prepared.cells) == 4
    assert {cell.purpose for cell in prepared.cells} == {"undecided"}
    found = [(trial.setting, trial.augmentation.noise, trial.tuned_text) for trial in prepared.trials[:8]]
    values = [f"learning_rate {rate}, batch_size {size}" for rate in (0.001, 0.01) for size in (4, 8)]
    assert found == [(label, noise, text) for label, noise in (("as is", 0), ("noise", 0.1)) for text in values]
    assert all(trial.tuned["training.batch_size"] == trial.training.batch_size for trial in prepared.trials)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ('tuning.over={"training.learning_rat" = [1, 2]}', "did you mean 'training.learning_rate'?"),
        ("tuning.seeds=[0, 5]", "0 is a seed of the grid too"),
        ("tuning.steps=0", "greater than or equal to 1"),
        ("tuning.over={}", "leaves nothing to choose"),
    ],
)
def test_mistakes_end_with_2_and_one_clear_line_and_nothing_is_written(
    tuned: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str, mistake: str
) -> None:
    if "over" in change:
        tuned["tuning"]["over"] = {}
    (file := tmp_path / "x.toml").write_text(to_toml(tuned))
    arguments = ["run", str(file), "-p", str(TINY_PLUGIN), "--results", str(tmp_path / "r"), "--set", change]
    code, _, errors = call(capfd, *arguments)
    assert code == ConfigError.exit_code
    (line,) = [line for line in errors.splitlines() if "tuning." in line]
    assert mistake in line
    assert not (tmp_path / "r").exists()


def test_plan_counts_trials_and_set_changes_their_steps(
    tuned: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "x.toml").write_text(to_toml(tuned))
    code, printed, errors = call(capfd, "plan", str(file), "-p", str(TINY_PLUGIN), "--set", "tuning.steps=3")
    assert code == 0, errors
    assert (
        "4 trials of tuning, 2 per row, 3 steps, seed 7: each row chooses learning_rate 0.001 | learning_rate 0.01"
        in " ".join(printed.split())
    )
    for selection, rows in (("", 2), ("loop", 1)):
        command = ("plan", str(file), "-p", str(TINY_PLUGIN), "-k", selection)
        assert f"{2 * rows} trials of tuning, 2 per row" in " ".join(call(capfd, *command)[1].split())
        cells = json.loads(call(capfd, *command, "--json")[1])
        assert [cell["purpose"] for cell in cells] == ["tuning"] * 2 * rows + ["undecided"] * rows


def test_example_of_the_readme_plans(tuned: dict[str, Any], tiny_registry: Registry) -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[tuning]" in block]
    prepared = prepare(Experiment(**tuned | tomllib.loads(example)), registry=tiny_registry)
    assert [trial.training.learning_rate for trial in prepared.trials] == [5e-4, 1e-3, 2e-3, 4e-3] * 2
    assert {(trial.seed, trial.training.steps) for trial in prepared.trials} == {(1000, 300)}
