"""Holm's adjustment, and the rows of a table that are not shown to be worse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoderbench.statistics import Scores, all_pairs, holm, mark_bold, not_shown_to_be_worse


def rejected(p: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as it was published: from the smallest p, stop at the first that is not small enough."""
    answer = [False] * len(p)
    for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] > alpha / (len(p) - step):
            break
        answer[index] = True
    return answer


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_adjusts_to_the_level_at_which_each_is_rejected(p: list[float], alpha: float) -> None:
    adjusted = holm(p)
    for value, index in zip(adjusted, range(len(p)), strict=True):
        assert 0 <= value <= 1
        assert p[index] <= value
        if abs(value - alpha) > 1e-12:
            assert (value <= alpha) == rejected(p, alpha)[index]


def test_holm_of_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])


def test_holm_ignores_what_was_not_tested() -> None:
    assert holm([0.02, math.nan, 0.04]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    assert holm([]).shape == (0,)


def table(*accuracies: float, seeds: int = 3, images: int = 400) -> Scores:
    rng = np.random.default_rng(0)
    draws = rng.random((seeds, images))  # the same difficulty of an image for all rows
    y = np.stack([draws + rng.normal(0, 0.02, draws.shape) < accuracy for accuracy in accuracies])
    return Scores(y.astype(float), np.ones(images))


def test_rows_that_any_row_beats_are_not_bold() -> None:
    scores = table(0.9, 0.5, 0.9, 0.7)
    assert not_shown_to_be_worse(scores, higher_is_better=True).tolist() == [True, False, True, False]
    assert not_shown_to_be_worse(scores, higher_is_better=False).tolist() == [False, True, False, False]


def test_bold_rests_on_the_adjusted_p_values() -> None:
    scores = table(*[0.9] * 12)
    pairs = all_pairs(scores)
    has_result = np.ones(12, dtype=bool)
    unadjusted = mark_bold([pair._replace(p_holm=pair.p) for pair in pairs], has_result, higher_is_better=True)
    assert len(pairs) == 66
    assert not unadjusted.all()
    assert mark_bold(pairs, has_result, higher_is_better=True).all()
    assert max(pair.p_holm / pair.p for pair in pairs) > 30


def test_rows_without_results_are_not_bold_and_do_not_count() -> None:
    scores = table(0.9, 0.5, 0.9)
    y = np.concatenate([scores.numerator, np.full((2, 3, 400), np.nan)])
    bold = not_shown_to_be_worse(Scores(y, np.ones(400)), higher_is_better=True)
    assert bold.tolist() == [True, False, True, False, False]
    p_of = {(pair.a, pair.b): pair.p_holm for pair in all_pairs(Scores(y, np.ones(400)))}
    assert p_of == {(pair.a, pair.b): pair.p_holm for pair in all_pairs(scores)}


def test_single_row_is_bold() -> None:
    assert not_shown_to_be_worse(table(0.5), higher_is_better=True).tolist() == [True]
