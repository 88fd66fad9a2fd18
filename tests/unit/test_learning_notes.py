"""Notes on settings with which a cell cannot learn, and the settings that every report states."""

from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.recording import make_cell
from helpers.running import TINY_PLUGIN, to_toml

from decoderbench.config.learning_notes import learning_notes
from decoderbench.data.dataset import Split
from decoderbench.options import TrainingOptions
from decoderbench.records.schema import Plan
from decoderbench.report.settings import notes_on_learning, settings_of
from decoderbench.training.optimizer import learning_rate

ENOUGH: dict[Split, int] = {"train": 1000, "val": 100, "test": 100}


def notes(sizes: dict[Split, int] | None = None, **options: Any) -> list[str]:
    return learning_notes(TrainingOptions(**options), ENOUGH | (sizes or {}))


def test_usual_settings_need_no_note() -> None:
    assert notes() == []


@pytest.mark.parametrize(
    ("options", "beginning"),
    [
        (
            {"steps": 20},
            "all 20 steps are in the warm-up of 100 steps, so the learning rate ends at 0.000396 instead of ",
        ),
        ({"steps": 100}, "all 100 steps are in the warm-up of 100 steps"),
        ({"steps": 200}, "100 of 200 steps are warm-up"),
        ({"learning_rate": 1e-6}, "no weight can change by more than about 0.001 in 2,000 steps of AdamW"),
        (
            {"learning_rate": 0.5, "weight_decay": 2},
            "weight decay erases the weights: learning_rate x weight_decay is 1",
        ),
        ({"sizes": {"train": 16}}, "a batch of 64 images holds each of the 16 training images 4.0 times on average"),
        (
            {"sizes": {"val": 4}},
            "val has 4 samples, so one of them is 25 points of exact match, and weights are chosen",
        ),
        ({"sizes": {"test": 19}}, "test has 19 samples, so one of them is 5 points of exact match, and all scores"),
    ],
)
def test_settings_that_prevent_learning_are_noted(options: dict[str, Any], beginning: str) -> None:
    (note,) = notes(**options)
    assert note.startswith(beginning)


@pytest.mark.parametrize("options", [{"steps": 201}, {"sizes": {"val": 20, "test": 20, "train": 64}}])
def test_settings_that_allow_learning_are_not_noted(options: dict[str, Any]) -> None:
    assert notes(**options) == []


@pytest.mark.parametrize("steps", [150, 1000])
def test_largest_move_is_the_sum_of_the_learning_rates(steps: int) -> None:
    options = TrainingOptions(steps=steps, learning_rate=1e-6)
    total = sum(learning_rate(step, options) for step in range(1, steps + 1))
    (*_, note) = notes(steps=steps, learning_rate=1e-6)
    assert f"about {total:.2g} in" in note


def plan(*cells: Any) -> Plan:
    return Plan(experiment="demo", command="", cells=cells, split_sizes=ENOUGH)


def test_settings_state_all_that_decides_learning() -> None:
    training = TrainingOptions(steps=500, batch_size=20, learning_rate=1e-3, warmup_steps=50, keep="last")
    cell = make_cell().model_copy(update={"training": training})
    assert {
        "optimizer: AdamW",
        "learning rate: 0.001 at its peak",
        "warm-up: linear, 50 steps",
        "decay of the learning rate: to zero along a cosine, 450 steps",
        "weight decay: 0.01, decoupled, not of biases and norms",
        "clip norm: 5",
        "steps: 500",
        "batch size: 20 images",
        "epochs: 10 of 1,000 training images",
        "precision: auto",
        "weights tested: the last",
        "augmentation: none",
    } <= set(settings_of(plan(cell)))
    assert notes_on_learning(plan(cell)) == []


def test_settings_name_the_rows_that_differ() -> None:
    one = make_cell("first")
    other = make_cell("second").model_copy(update={"training": TrainingOptions(steps=7)})
    (line,) = [line for line in settings_of(plan(one, other)) if line.startswith("steps: ")]
    assert line == f"steps: {one.training.steps:,} ({one.variant_title}); 7 ({other.variant_title})"


def test_notes_do_not_judge_plugins_that_train() -> None:
    cell = make_cell().model_copy(update={"training": TrainingOptions(steps=7), "trainers": {"mine": "0" * 16}})
    assert notes_on_learning(plan(cell)) == []
    assert settings_of(plan(cell))[-1] == "plugins that may train otherwise: mine"


def test_run_notes_a_warm_up_that_never_ends(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tiny: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(to_toml(tiny))
    results = tmp_path / "out"
    arguments = [str(tmp_path / "tiny.toml"), "-p", str(TINY_PLUGIN), "--results", str(results), "--device", "cpu"]
    status, out, err = call(capfd, "run", *arguments, "-k", "ctc", "--set", "training.steps=2")
    assert status == 0, err
    note = "all 2 steps are in the warm-up of 100 steps"
    assert note in caplog.text
    assert f"- {note}" in out
    page = (results / "report.md").read_text()
    assert page.count(note) == 1
    assert "## Settings\n\n- optimizer: AdamW\n" in page
    assert "- decay of the learning rate: none, because the warm-up does not end\n" in page
    assert "- epochs: 0.25 of 64 training images\n" in page
