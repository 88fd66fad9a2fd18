"""Trials of tuning as frames: scores, choices, seconds, and what a table says of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers.recording import make_cell, make_record, publish

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.tuning import notes_on_tuning
from decoderbench.config.cell import Cell
from decoderbench.options import TrainingOptions
from decoderbench.records.schema import Cost, RunRecord
from decoderbench.report.main_table import main_table
from decoderbench.report.settings import settings_of

KEY = "training.learning_rate"


def make_trial(decoder: str, rate: float, seed: int) -> Cell:
    cell = make_cell(decoder, seed, purpose="tuning", tuned={KEY: rate})
    training = cell.training.model_copy(update={"learning_rate": rate, "steps": 300})
    return cell.model_copy(update={"training": training})


def done(trial: Cell, exact_match: float, seconds: float | None = 2.0) -> RunRecord:
    return make_record(trial, exact_match, cost=Cost(train_seconds=seconds))


def failed(trial: Cell) -> RunRecord:
    return make_record(trial, status="diverged", reason="loss was nan", metrics={}, cost=Cost())


@pytest.fixture
def report(tmp_path: Path) -> Analysis:
    """CTC has chosen 0.002; Attention has one trial left; no trial of Wide has a score."""
    ctc, attention, wide = (
        [make_trial(decoder, rate, seed) for rate in (1e-3, 2e-3) for seed in (7, 8)]
        for decoder in ("CTC", "Attention", "Wide")
    )
    cells = [
        make_cell("CTC", tuned={KEY: 2e-3}, training=TrainingOptions(learning_rate=2e-3)),
        make_cell("Attention", purpose="undecided"),
        make_cell("Wide", purpose="undecided", infeasible="tuning gave no value a score: diverged: loss was nan"),
    ]
    records = [
        done(ctc[0], 0.9),
        failed(ctc[1]),
        done(ctc[2], 0.5, seconds=None),
        done(ctc[3], 0.75),
        *(done(trial, 1.0) for trial in attention[:3]),
        *map(failed, wide),
        make_record(cells[0]),
        make_record(cells[2], status="failed", reason=str(cells[2].infeasible)),
    ]
    return load_report(publish(tmp_path, cells, records, tuning=(*ctc, *attention, *wide)).path)


def test_trials_are_lines_in_the_order_of_the_plan(report: Analysis) -> None:
    trials = report.results.trials
    assert trials["decoder"].tolist() == ["CTC"] * 4 + ["Attention"] * 4 + ["Wide"] * 4
    assert trials["values"].tolist()[:4] == ["learning_rate 0.001"] * 2 + ["learning_rate 0.002"] * 2
    assert trials["seed"].tolist()[:4] == [7, 8, 7, 8]
    statuses = ["done", "diverged", "done", "done", *["done"] * 3, "pending", *["diverged"] * 4]
    assert trials["status"].tolist() == statuses
    assert trials["chosen"].tolist() == [False, False, True, True] + [False] * 8
    assert trials["exact_match"].tolist() == pytest.approx(
        [0.9, float("nan"), 0.5, 0.75, 1.0, 1.0, 1.0, *[float("nan")] * 5], nan_ok=True
    )
    assert set(trials["steps"]) == {300}


def test_values_have_a_mean_only_if_all_of_their_trials_have_a_score(report: Analysis) -> None:
    tuning = report.tuning
    assert tuning[["decoder", "values"]].values.tolist() == [
        [decoder, f"learning_rate {rate}"] for decoder in ("CTC", "Attention", "Wide") for rate in (0.001, 0.002)
    ]
    assert tuning["exact_match"].tolist() == pytest.approx([float("nan"), 0.625, 1.0, *[float("nan")] * 3], nan_ok=True)
    assert tuning["exact_match_by_seed"].tolist()[:3] == [
        "7: 90.0 %, 8: none",
        "7: 50.0 %, 8: 75.0 %",
        "7: 100.0 %, 8: 100.0 %",
    ]
    nan = "diverged: loss was nan"
    assert tuning["reasons"].tolist() == [nan, "", "", "pending", nan, nan]
    assert tuning["chosen"].tolist() == [False, True, False, False, False, False]


def test_cells_state_what_was_chosen_and_what_it_took(report: Analysis) -> None:
    cells = report.results.cells
    assert cells["tuned"].tolist() == ["learning_rate 0.002", "", ""]
    assert cells["tuning_seconds"].tolist()[:2] == [4.0, 6.0]  # those of trials that state them
    assert pd.isna(cells["tuning_seconds"][2])
    assert cells["status"].tolist() == ["done", "pending", "failed"]
    assert cells["reason"].tolist() == [
        "",
        "tuning: 3 of 4 trials of this row done",
        "tuning gave no value a score: diverged: loss was nan",
    ]


def test_notes_say_what_was_tried_how_far_it_is_and_what_failed(report: Analysis) -> None:
    assert list(notes_on_tuning(report.results.plan, report.results.trials)) == [
        "tuned for every row alike, by exact match on validation images: training.learning_rate of 0.001, 0.002; "
        "4 trials per row of 300 steps, seeds 7, 8",
        "tuning: 11 of 12 trials done; rows that have not chosen are not tested",
        "tuning: 5 of 12 trials have no score, so a row did not choose their values: 5 diverged; their time is not "
        "counted",
    ]


@pytest.mark.parametrize(
    ("setting", "note"),
    [
        ("", "tuned for none: one setting for all rows"),
        ("no noise", "tuned for none: each row has the values of its setting"),
    ],
)
def test_without_tuning_a_note_says_so_and_frames_are_empty(tmp_path: Path, setting: str, note: str) -> None:
    cell = make_cell(setting=setting)
    report = load_report(publish(tmp_path, [cell], [make_record(cell)]).path)
    assert list(notes_on_tuning(report.results.plan, report.results.trials)) == [note]
    assert report.tuning.empty
    assert report.results.cells[["tuned"]].values.tolist() == [[""]]
    assert report.results.cells["tuning_seconds"].isna().all()


def test_the_main_table_has_the_cost_of_tuning_as_a_column(report: Analysis) -> None:
    table = main_table(report)
    column = list(table.headers).index("Tuning (s)")
    assert [row[column] for row in table.rows] == ["4.00", "6.00", "n/a"]


def test_settings_are_those_that_rows_have_chosen(report: Analysis) -> None:
    assert "learning rate: 0.002 at its peak" in settings_of(report.results.plan)
    undecided = report.results.plan.model_copy(update={"cells": report.results.plan.cells[1:]})
    assert settings_of(undecided) == ["no row has chosen its values yet"]
