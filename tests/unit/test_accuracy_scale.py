"""The axis of accuracies: by errors where rows are nearly perfect, and never beyond 0 and 100."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoderbench.report.figures_scale import AccuracyScale

ACCURACIES = st.lists(st.one_of(st.floats(0, 100), st.sampled_from([0.0, 99.9, 100.0])), min_size=1, max_size=6)


def labels_on(axes: Axes, which: str) -> list[float]:
    return [float(text.get_text()) for text in getattr(axes, f"get_{which}ticklabels")()]


@pytest.mark.parametrize(
    ("values", "by_errors"),
    [
        ([99.1, 99.4], True),
        ([10.0, 99.1, 99.4], True),
        ([10.0, 50.0, 99.4], False),  # nothing to be told apart at the top
        ([99.4], True),
        ([95.0, 95.0], False),
        ([100.0, 100.0], True),
        ([float("nan"), 99.0], True),
        ([], False),
    ],
)
def test_scale_is_by_errors_where_two_rows_or_the_only_one_lie_above_95(values: list[float], by_errors: bool) -> None:
    assert (AccuracyScale.of(values).floor is not None) == by_errors


def test_error_scale_tells_99_1_and_99_4_as_far_apart_as_91_and_94() -> None:
    scale = AccuracyScale(floor=1e-9)
    top, below = np.diff(scale.place([99.1, 99.4])), np.diff(scale.place([91, 94]))
    assert top == pytest.approx(below)


@settings(max_examples=50)
@given(ACCURACIES)
def test_every_accuracy_has_its_own_finite_place(values: list[float]) -> None:
    scale = AccuracyScale.of(values)
    places = scale.place(np.unique(np.array([*values, 0, 100])))
    assert np.isfinite(places).all()
    assert (np.diff(places) >= 0).all()
    assert scale.place(100) > scale.place(99.9)
    assert scale.accuracy(scale.place(values)) == pytest.approx(values, abs=1e-6)


@settings(max_examples=25)
@given(ACCURACIES)
def test_axis_shows_all_values_and_labels_from_0_to_100_only(values: list[float]) -> None:
    axes = Figure().add_subplot()
    AccuracyScale.of(values).apply(axes, "y", values)
    low, high = axes.get_ylim()
    assert low < min(values) <= max(values) < high
    labels = labels_on(axes, "y")
    assert labels
    assert all(0 <= label <= 100 for label in labels)
    assert labels == pytest.approx(axes.get_yticks().tolist())


@pytest.mark.parametrize("values", [[100.0, 99.0], [100.0], [100.0, 100.0], [0.0, 97.0, 100.0]])
def test_axis_labels_100_where_a_row_is_perfect(values: list[float]) -> None:
    axes = Figure().add_subplot()
    AccuracyScale.of(values).apply(axes, "x", values)
    assert 100 in labels_on(axes, "x")
