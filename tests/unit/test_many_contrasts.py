"""Holm's adjustment, and the rows of a table that are not shown to be worse."""

import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoderbench.statistics import Scores, all_pairs, contrast, family, holm, mark_bold, not_shown_to_be_worse


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


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(3, 5), st.integers(1, 4), st.integers(4, 12)), seed=st.integers(0, 10**6))
def test_family_gives_each_contrast_its_own_value_and_never_less_variance(
    shape: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, shape).astype(float)
    y[rng.integers(shape[0]), rng.integers(shape[1])] = np.nan
    y[0] = y[1]  # equal rows
    scores = Scores(y, np.arange(1.0, shape[2] + 1), groups=np.arange(shape[2]) // 2)
    pairs = {(pair.a, pair.b): pair.estimate for pair in all_pairs(scores)}
    for a, b in combinations(range(shape[0]), 2):
        weights = np.zeros(shape[0])
        weights[a], weights[b] = 1, -1
        if not (scores.present[a] & scores.present[b]).any():
            assert (a, b) not in pairs
            continue
        alone, found = contrast(scores, weights), pairs[a, b]
        assert found.value == pytest.approx(alone.value, abs=1e-11)
        own, other = dataclasses.astuple(found.components), dataclasses.astuple(alone.components)
        assert own[:3] == pytest.approx(other[:3], rel=1e-7, abs=1e-11, nan_ok=True)
        assert own[3:] == other[3:]
        assert (found.seeds, found.images, found.units, found.scope) == (
            alone.seeds,
            alone.images,
            alone.units,
            alone.scope,
        )
        if alone.variance > 1e-9 and alone.components.seed + alone.components.unit > 0:
            assert found.variance >= alone.variance * (1 - 1e-7)


def test_two_rows_have_nothing_to_learn_from_others() -> None:
    scores = table(0.9, 0.8)
    (pair,) = all_pairs(scores)
    alone = contrast(scores, [1, -1])
    for name in ("value", "low", "high", "p", "df"):
        assert getattr(pair.estimate, name) == pytest.approx(getattr(alone, name))
    assert pair.p_holm == pair.p


def test_rows_that_vary_alike_share_their_degrees_of_freedom() -> None:
    """12 rows and 3 seeds: a pair that seems to vary less than the others gets their mean square and 22 df."""
    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, (12, 3, 1)) + np.zeros(50)  # only seeds vary, equally in all rows
    y += rng.normal(0, 1e-3, y.shape)
    scores = Scores(y, np.ones(50))
    pairs = all_pairs(scores)
    own = np.array([pair.estimate.components.seed / (3 * 50) for pair in pairs])
    used = np.array([pair.estimate.variance for pair in pairs])
    assert own.min() < 0.01 < 0.3 < used.min()  # 2 / 3 is true
    assert used.max() == pytest.approx(own.max())
    assert {round(pair.estimate.df) for pair in pairs} == {2, 22}


def test_row_that_varies_more_than_the_others_keeps_its_variance() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(0, 1, (12, 3, 1)) * np.r_[[10.0], [0.01] * 11][:, None, None] + rng.normal(0, 1e-3, (12, 3, 50))
    for pair in all_pairs(Scores(y, np.ones(50))):
        alone = pair.estimate.components.seed / (3 * 50)
        if pair.a == 0:
            assert pair.estimate.df == 2
            assert pair.estimate.variance == pytest.approx(alone, rel=1e-3)
        else:
            assert pair.estimate.variance < 0.01


def test_contrasts_with_one_baseline_are_those_of_all_pairs_but_for_the_family() -> None:
    scores = table(0.9, 0.5, 0.88, 0.7)
    weights = np.array([[-1, 1, 0, 0], [-1, 0, 1, 0], [-1, 0, 0, 1]])
    pairs = {pair.b: pair for pair in all_pairs(scores) if pair.a == 0}
    for row, found in enumerate(family(scores, weights), start=1):
        assert found.p == pytest.approx(pairs[row].p, rel=1e-9)
        assert found.p_holm <= pairs[row].p_holm
        assert found.estimate.low == pytest.approx(-pairs[row].estimate.high)


def test_interaction_is_a_contrast_of_four_rows() -> None:
    scores = table(0.9, 0.5, 0.8, 0.7)
    (found,) = family(scores, [[1, -1, -1, 1]])
    assert found.estimate.value == pytest.approx(contrast(scores, [1, -1, -1, 1]).value)
    assert found.estimate.variance >= contrast(scores, [1, -1, -1, 1]).variance * (1 - 1e-9)
    assert found.p == found.p_holm


@pytest.mark.parametrize("weights", [[1, -1], [[1, -1, 0]], [[0, 0]], [[1, np.inf]]])
def test_weights_of_a_family_that_make_no_sense_are_refused(weights: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="weights"):
        family(table(0.5, 0.6), weights)


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
