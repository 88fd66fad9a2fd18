"""The confidence of a text: a temperature from validation images, and texts that are rejected."""

import numpy as np
import pytest
from helpers.readings import make_predictions

from decoderbench import DataError
from decoderbench.inference.confidence import Confidence


def draw(temperature: float, images: int = 4000) -> tuple[list[float], list[bool]]:
    """Return log p of texts that are right with probability exp(log p / temperature)."""
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.3, 1, images)
    right = generator.uniform(size=images) < probability
    return (temperature * np.log(probability)).tolist(), right.tolist()


@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_temperature_is_found_and_lowers_the_calibration_error(temperature: float) -> None:
    log_prob, right = draw(temperature)
    found = Confidence.of(log_prob, right)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    before = Confidence(found.log_prob, found.right).calibration_error
    assert found.calibration_error < 0.03 < before
    assert found(-1.0) == pytest.approx(np.exp(-1 / found.temperature))
    assert f"exp(log p / {found.temperature:.2f}), fitted on 4,000 validation images" in found.describe()
    assert f"{100 * before:.1f} % before" in found.describe()


def test_temperature_is_not_used_where_it_does_not_lower_the_error() -> None:
    right = [True] * 10 + [False] * 10
    found = Confidence.of([np.log(0.5)] * 20, right)  # calibrated as it is
    assert found.temperature == 1
    assert found.describe().startswith("the probability that the decoder gives to its text: calibration error 0.0 %")


@pytest.mark.parametrize("right", [True, False])
def test_confidence_stays_finite_where_all_texts_are_right_or_wrong(right: bool) -> None:
    found = Confidence.of([-0.01, -0.2, 0.0, -1e-12], [right] * 4)
    assert 0 < found(-0.01) < 1
    assert found(0.0) == 1


def test_texts_without_a_log_prob_are_left_out() -> None:
    table = make_predictions(["a", "b", "c"], ["a", "x", "c"], text_log_prob=[-0.1, -2.0, None])
    found = Confidence.of_predictions(table)
    assert found.log_prob.tolist() == [-0.1, -2.0]
    assert found.right.tolist() == [True, False]
    nothing = Confidence.of_predictions(make_predictions(["a"], ["a"]))
    assert nothing(-0.5) == pytest.approx(np.exp(-0.5))
    assert "no validation images" in nothing.describe()


def test_reject_refuses_what_the_validation_images_cannot_show() -> None:
    with pytest.raises(DataError, match=r"--reject 0.01: 200 validation images cannot show that.*takes 299"):
        Confidence.of([-0.1] * 200, [True] * 200).keep(0.01)
    with pytest.raises(DataError, match=r"too many of the 400 validation images are wrong"):
        Confidence.of([-0.1] * 400, [True, False] * 200).keep(0.01)
    assert Confidence.of([-0.1] * 400, [True] * 400).keep(0.01).images == 400
