"""Why rows did not learn, and what to try, from made-up curves."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.histories import images, publish_histories
from helpers.readings import make_row

from decoderbench.analysis import Analysis
from decoderbench.report.row_notes import notes_on_rows

STEPS = make_row("CTC").training.steps
ENTROPY = math.log(2)
"""Of the labels of `images`, in nats per character."""


def curve(nats: Callable[[float], float], train_loss: float | None = 0.7) -> list[dict[str, Any]]:
    """Return ten validations, whose nll per character is a function of the share of the steps."""
    return [
        {
            "step": STEPS * tenth // 10,
            "val_exact_match": 0.0,
            "val_nats_per_char": nats(tenth / 10),
            "train_loss": train_loss,
        }
        for tenth in range(1, 11)
    ]


def publish(path: Path, *curves: list[dict[str, Any]]) -> Analysis:
    return publish_histories(path, {"CTC": curves}, val=[images()] * len(curves))


def notes_about(analysis: Analysis) -> list[str]:
    return [note for note in notes_on_rows(analysis, ["exact_match"]) if "CTC" in note]


def test_flat_curve_suggests_twice_the_steps(tmp_path: Path) -> None:
    wobble = {0.6: 0.02, 0.7: -0.02, 0.8: 0.01, 0.9: -0.01}
    analysis = publish(tmp_path, curve(lambda share: 1.01 * ENTROPY + wobble.get(share, 0.0)))
    found = analysis.plateaus.iloc[0]
    assert (found["by_heart"], found["falling"], found["suggested_steps"]) == (False, False, 2 * STEPS)
    (note,) = notes_about(analysis)
    assert "still on its plateau after 2,000 steps (0.70 nats per character on validation" in note
    assert "how frequent each character is gives 0.69" in note
    assert note.endswith(f"its curve is flat and does not say when it leaves it; try training.steps = {2 * STEPS}")


def test_falling_curve_suggests_twice_the_step_where_it_leaves_the_plateau(tmp_path: Path) -> None:
    # It leaves 0.8 of the entropy after 1.6 times the steps.
    analysis = publish(tmp_path, curve(lambda share: ENTROPY * (0.8 + 0.2 * (1.6 - share))))
    found = analysis.plateaus.iloc[0]
    assert (found["falling"], found["suggested_steps"]) == (True, math.ceil(3.2 * STEPS / 500) * 500)
    assert "its curve falls; try" in notes_about(analysis)[0]


@pytest.mark.parametrize(
    "nats",
    [
        pytest.param(lambda share: ENTROPY * (1.2 - 0.01 * share), id="too slowly"),
        pytest.param(lambda share: ENTROPY * (0.9 + 0.1 * share), id="rises"),
        pytest.param(lambda share: ENTROPY * (1.5 - share if share < 0.5 else 1.0), id="fell before"),
    ],
)
def test_curve_that_does_not_leave_soon_counts_as_flat(tmp_path: Path, nats: Callable[[float], float]) -> None:
    found = publish(tmp_path, curve(nats)).plateaus.iloc[0]
    assert (found["falling"], found["suggested_steps"]) == (False, 2 * STEPS)


@pytest.mark.parametrize(
    ("nats", "train_loss", "by_heart"),
    [
        pytest.param(lambda share: 2.0, 0.01, True, id="training images are read"),
        pytest.param(lambda share: 1.1 + share, 0.3, True, id="training images begin to be read, others less and less"),
        pytest.param(lambda share: ENTROPY * (1.6 - 0.7 * share), 0.3, False, id="all begin to be read"),
        pytest.param(lambda share: ENTROPY, 0.9 * ENTROPY, False, id="neither is read"),
    ],
)
def test_training_images_learned_by_heart_are_no_plateau(
    tmp_path: Path, nats: Callable[[float], float], train_loss: float, by_heart: bool
) -> None:
    analysis = publish(tmp_path, curve(nats, train_loss))
    assert analysis.plateaus["by_heart"].tolist() == [by_heart]
    assert analysis.plateaus["suggested_steps"].isna().tolist() == [by_heart]
    (note,) = notes_about(analysis)
    assert ("learns its training images by heart, and no others" in note) == by_heart
    assert ("training.steps" in note) != by_heart


@pytest.mark.parametrize(("cer", "lost"), [(0.5, 0), (0.51, 1), (None, 1)])
def test_model_that_reads_but_is_too_sure_of_its_errors_has_learned(
    tmp_path: Path, cer: float | None, lost: int
) -> None:
    lines = [line | {"val_cer": cer} for line in curve(lambda share: 2.0, train_loss=0.01)]
    analysis = publish(tmp_path, lines)
    assert len(analysis.plateaus) == analysis.rows["not_learned"].item() == lost


def test_models_of_a_row_share_a_note_and_those_that_learned_have_none(tmp_path: Path) -> None:
    lost, fine = curve(lambda share: 1.1 * ENTROPY), curve(lambda share: 0.1)
    analysis = publish(tmp_path, lost, fine, curve(lambda share: ENTROPY))
    assert analysis.plateaus["seed"].tolist() == [0, 2]
    (note,) = notes_about(analysis)
    assert "CTC, seed 2: still on its plateau" in note
    assert ", as 1 more of its models;" in note


@pytest.mark.parametrize("lost", ["val_nats_per_char", "train_loss"])
def test_unknown_losses_are_no_reason_to_say_more(tmp_path: Path, lost: str) -> None:
    lines = curve(lambda share: ENTROPY)
    for line in lines[:-1]:
        line[lost] = None
    lines[-1] |= {"train_loss": None}
    found = publish(tmp_path, lines).plateaus.iloc[0]
    assert (found["by_heart"], found["falling"]) == (False, False)
