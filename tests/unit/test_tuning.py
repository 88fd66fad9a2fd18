"""Tuning: axes that are refused, what a row chooses by its trials, and when it has chosen."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from helpers.recording import make_cell, make_record
from pydantic import ValidationError

from decoderbench.config.cell import Cell
from decoderbench.config.tuning import TuningOptions
from decoderbench.planning.tuning import Candidate, Tuning, candidate_of
from decoderbench.records.schema import RunRecord

RATES = (1e-3, 2e-3, 4e-3)
SEEDS = (1000, 1001)
OPTIONS = TuningOptions.model_validate({"over": {"training.learning_rate": RATES}, "seeds": SEEDS, "steps": 7})


def test_candidates_are_the_full_product_in_the_order_of_the_file() -> None:
    options = TuningOptions.model_validate(
        {"over": {"training.keep": ["last", "best"], "augmentation.noise": [0, 0.1]}}
    )
    assert options.candidates() == [
        {"training.keep": "last", "augmentation.noise": 0},
        {"training.keep": "last", "augmentation.noise": 0.1},
        {"training.keep": "best", "augmentation.noise": 0},
        {"training.keep": "best", "augmentation.noise": 0.1},
    ]
    assert options.seeds == (1000,)
    assert options.steps is None


def test_an_axis_may_be_written_without_quotes() -> None:
    nested = TuningOptions.model_validate({"over": {"training": {"learning_rate": [1, 2]}}})
    assert list(nested.over) == ["training.learning_rate"]
    with pytest.raises(ValidationError, match=r"training.learning_rate is given twice"):
        TuningOptions.model_validate({"over": {"training.learning_rate": [1, 2], "training": {"learning_rate": [3]}}})


@pytest.mark.parametrize(
    ("axes", "mistake"),
    [
        ({"training.learning_rat": [1, 2]}, "no option that can be tuned; did you mean 'training.learning_rate'?"),
        ({"learning_rate": [1, 2]}, "no option that can be tuned; did you mean 'training.learning_rate'?"),
        ({"training.steps": [1, 2]}, "the budget, which is the same for every row; tuning.steps shortens"),
        ({"dataset.train_limit": [10, 20]}, "decides what is read and scored"),
        ({"image.width": [1, 2]}, "decides what is read and scored"),
        ({"grid.decoder.CTC.hidden_dim": [1, 2]}, "belongs to some rows alone, and rows would not be tuned equally"),
        ({"training.keep": ["best", "best"]}, "lists a value twice"),
        ({"training.keep": ["best"]}, "leaves nothing to choose"),
        ({"training.keep": [], "training.clip_norm": [1, 2]}, "has no values"),
        ({}, "leaves nothing to choose"),
    ],
)
def test_axes_that_cannot_be_tuned_are_refused(axes: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(mistake)):
        TuningOptions.model_validate({"over": axes})


def with_rate(cell: Cell, rate: float) -> Cell:
    training = cell.training.model_copy(update={"learning_rate": rate})
    return cell.model_copy(update={"training": training, "tuned": {"training.learning_rate": rate}})


def make_row(label: str = "lstm + ctc", **changes: Any) -> tuple[Candidate, ...]:
    cells = [make_cell(label, seed, **changes) for seed in range(3)]
    return tuple(candidate_of([with_rate(cell, rate) for cell in cells], OPTIONS) for rate in RATES)


class Records(dict[str, RunRecord]):
    """Records by cell id, and the trials to add them by: rate -> exact match and nats of each seed."""

    def add(self, row: tuple[Candidate, ...], scores: dict[float, list[Any]]) -> None:
        for candidate in row:
            rate = candidate.cells[0].training.learning_rate
            for trial, score in zip(candidate.trials, scores.get(rate, []), strict=False):
                if isinstance(score, str):
                    self[trial.cell_id] = make_record(trial, status=score, reason="it is so")
                else:
                    exact, nats = score if isinstance(score, tuple) else (score, 1.0)
                    self[trial.cell_id] = RunRecord(
                        cell=trial, status="done", metrics={"exact_match": exact, "nats_per_char": nats}
                    )

    def read(self, cell: Cell) -> RunRecord | None:
        return self.get(cell.cell_id)


def chosen(scores: dict[float, list[Any]]) -> list[float]:
    """Return the learning rates of the cells that a row tests after such scores."""
    row, records = make_row(), Records()
    records.add(row, scores)
    cells = Tuning((row,)).decide(records.read)
    assert [cell.seed for cell in cells] == [0, 1, 2]
    assert {cell.purpose for cell in cells} == {"test"}
    assert all(cell.tuned == {"training.learning_rate": cell.training.learning_rate} for cell in cells)
    return sorted({cell.training.learning_rate for cell in cells})


def test_trials_have_the_seeds_and_steps_of_tuning_and_are_other_cells() -> None:
    row = make_row()
    trials = Tuning((row,)).trials
    assert [(trial.tuned["training.learning_rate"], trial.seed) for trial in trials] == [
        (rate, seed) for rate in RATES for seed in SEEDS
    ]
    assert {(trial.training.steps, trial.purpose, trial.scored_split) for trial in trials} == {(7, "tuning", "val")}
    tested = [cell for candidate in row for cell in candidate.cells]
    assert {cell.training.steps for cell in tested} == {make_cell().training.steps}
    same = trials[0].model_copy(update={"purpose": "test"})
    assert len({cell.cell_id for cell in (*trials, *tested, same)}) == len(trials) + len(tested) + 1
    assert trials[0].title == f"{trials[0].variant_title} / seed 1000 / tuning: learning_rate 0.001"


def test_the_highest_mean_exact_match_is_chosen() -> None:
    assert chosen({1e-3: [0.9, 0.1], 2e-3: [0.5, 0.6], 4e-3: [0.6, 0.4]}) == [2e-3]


def test_ties_are_decided_by_nats_then_by_the_order_of_the_file() -> None:
    assert chosen({1e-3: [(0.5, 2), (0.5, 2)], 2e-3: [(0.4, 1), (0.6, 1)], 4e-3: [(0.4, 9), (0.4, 9)]}) == [2e-3]
    # 0.1 + 0.2 is not 0.3 in floats.
    assert chosen({1e-3: [(0.3, 2), (0.0, 2)], 2e-3: [(0.1, 1), (0.2, 1)], 4e-3: [(0, 0), (0, 0)]}) == [2e-3]
    assert chosen({rate: [(0.5, 1), (0.5, 1)] for rate in RATES}) == [1e-3]
    assert chosen({1e-3: [(0.5, None), (0.5, 0)], 2e-3: [(0.5, 9), (0.5, 9)], 4e-3: [0, 0]}) == [2e-3]


@pytest.mark.parametrize("status", ["failed", "oom", "diverged", "timeout", "crashed", "infeasible"])
def test_a_candidate_with_a_trial_that_has_no_result_cannot_be_chosen(status: str) -> None:
    assert chosen({1e-3: [1.0, status], 2e-3: [0.1, 0.1], 4e-3: [status, status]}) == [2e-3]
    assert chosen({1e-3: [(None, 0.0), (None, 0.0)], 2e-3: [0.0, 0.0], 4e-3: [status, 1]}) == [2e-3]


@pytest.mark.parametrize("missing", range(6))
def test_a_row_chooses_only_when_all_of_its_trials_have_a_record(missing: int) -> None:
    row, other, records = make_row(), make_row("Attention"), Records()
    records.add(row, {rate: [0.5, 0.5] for rate in RATES})
    records.add(other, {rate: [0.5, 0.5] for rate in RATES})
    tuning = Tuning((row, other))
    del records[tuning.trials[missing].cell_id]
    cells = tuning.decide(records.read)
    assert [cell.purpose for cell in cells] == ["undecided"] * 3 + ["test"] * 3
    assert {json.dumps(cell.tuned) for cell in cells[:3]} == {"{}"}
    assert {cell.infeasible for cell in cells} == {None}
    with_a_result = {cell.cell_id for candidate in row for cell in candidate.cells}
    assert with_a_result.isdisjoint(cell.cell_id for cell in cells[:3])  # else an earlier result would be shown


def test_a_row_none_of_whose_trials_has_a_score_is_not_trained_and_says_why() -> None:
    row, records = make_row(), Records()
    records.add(row, {1e-3: ["diverged", "diverged"], 2e-3: ["oom", 0.5], 4e-3: ["diverged", "oom"]})
    cells = Tuning((row,)).decide(records.read)
    assert {cell.purpose for cell in cells} == {"undecided"}
    reasons = {cell.infeasible for cell in cells}
    assert reasons == {"tuning gave no value a score: diverged: it is so; oom: it is so"}


def test_a_row_that_is_infeasible_with_all_values_is_so_before_any_trial() -> None:
    tuning = Tuning((make_row(infeasible="needs 9 frames, has 4"),))
    assert tuning.trials == ()
    cells = tuning.decide(Records().read)
    assert {(cell.purpose, cell.infeasible, cell.tuned_text) for cell in cells} == {
        ("test", "needs 9 frames, has 4", "")
    }


def test_values_of_options_with_one_name_are_told_apart() -> None:
    cell = make_cell().model_copy(update={"tuned": {"training.batch_size": 8, "training.keep": "last"}})
    assert cell.tuned_text == "batch_size 8, keep last"
    cell = make_cell().model_copy(update={"tuned": {"training.batch_size": 8, "evaluation.batch_size": 9}})
    assert cell.tuned_text == "training.batch_size 8, evaluation.batch_size 9"
