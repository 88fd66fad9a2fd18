"""The metrics: laws that hold for any texts, and examples worked out by hand."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoderbench.metrics import (
    character_error_rate,
    edit_distances,
    exact_match,
    nats_per_character,
    one_minus_ned,
)

unhurried = settings(deadline=None)
texts = st.text("abé", max_size=5)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)
Pair = tuple[list[str], list[str]]
Rate = Callable[[list[str], list[str]], float | None]


@unhurried
@given(pairs)
def test_shares_are_bounded_and_symmetric(pair: Pair) -> None:
    for rate in (exact_match, one_minus_ned):
        forth, back = rate(*pair), rate(*reversed(pair))
        assert forth is not None
        assert forth == back
        assert 0 <= forth <= 1


@unhurried
@given(pairs)
def test_shares_are_one_just_where_all_texts_are_equal(pair: Pair) -> None:
    equal = pair[0] == pair[1]
    assert (exact_match(*pair) == 1) == equal
    assert (one_minus_ned(*pair) == 1) == equal
    assert (sum(edit_distances(*pair)) == 0) == equal


@unhurried
@given(pairs)
def test_exact_match_is_never_more_than_one_minus_ned(pair: Pair) -> None:
    exact, similar = exact_match(*pair), one_minus_ned(*pair)
    assert exact is not None
    assert similar is not None
    assert exact <= similar + 1e-12


@unhurried
@given(pairs)
def test_cer_is_edits_over_characters_of_the_whole_split(pair: Pair) -> None:
    characters = len("".join(pair[0]))
    rate = character_error_rate(*pair)
    if not characters:
        assert rate is None
    else:
        assert rate is not None
        assert rate * characters == pytest.approx(sum(edit_distances(*pair)))
        assert abs(characters - len("".join(pair[1]))) / characters <= rate + 1e-12


@unhurried
@given(st.lists(texts, min_size=1))
def test_cer_is_zero_for_what_is_right_and_one_for_silence(references: list[str]) -> None:
    rates = character_error_rate(references, references), character_error_rate(references, [""] * len(references))
    assert rates == ((0, 1) if any(references) else (None, None))


@unhurried
@given(texts, texts, texts)
def test_edit_distance_is_a_metric(first: str, second: str, third: str) -> None:
    (there,), (back,) = edit_distances([first], [second]), edit_distances([second], [first])
    (detour,) = edit_distances([first], [third])
    (rest,) = edit_distances([third], [second])
    assert there == back
    assert there <= detour + rest
    assert abs(len(first) - len(second)) <= there <= max(len(first), len(second))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),
        ("straße", "strasse", 2),
        ("e\u0301", "é", 2),  # code points, not glyphs
    ],
)
def test_edit_distances_by_hand(reference: str, hypothesis: str, distance: int) -> None:
    assert edit_distances([reference], [hypothesis]) == [distance]


def test_rates_by_hand() -> None:
    references, hypotheses = ["abcd", "ab", ""], ["abxd", "ab", "a"]
    assert exact_match(references, hypotheses) == pytest.approx(1 / 3)
    assert character_error_rate(references, hypotheses) == pytest.approx(2 / 6)
    assert one_minus_ned(references, hypotheses) == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_nothing_is_folded_or_stripped() -> None:
    assert exact_match(["A", "a ", "é"], ["a", "a", "e\u0301"]) == 0


def test_cer_exceeds_one_where_too_much_is_read() -> None:
    assert character_error_rate(["a"], ["bbb"]) == 3


def test_cer_weighs_by_length_and_is_no_mean_over_texts() -> None:
    assert character_error_rate(["a", "aaaaaaaaa"], ["b", "aaaaaaaaa"]) == pytest.approx(0.1)


def test_empty_texts() -> None:
    assert one_minus_ned([""], [""]) == exact_match([""], [""]) == 1
    assert one_minus_ned([""], ["a"]) == one_minus_ned(["a"], [""]) == 0
    assert character_error_rate(["", ""], ["", "a"]) is None
    assert character_error_rate(["", "ab"], ["a", "ab"]) == 0.5


@pytest.mark.parametrize("rate", [exact_match, character_error_rate, one_minus_ned])
def test_nothing_has_no_rate(rate: Rate) -> None:
    assert rate([], []) is None


@pytest.mark.parametrize("rate", [exact_match, one_minus_ned, edit_distances])
def test_texts_come_in_pairs(rate: Rate) -> None:
    with pytest.raises(ValueError, match="zip"):
        rate(["a", "b"], ["a"])


def test_nats_per_character() -> None:
    assert nats_per_character([1.0, 2.0, 3.0], ["ab", "", "a"]) == 2
    assert nats_per_character([1.0], [""]) is None
    assert nats_per_character([], []) is None
    assert nats_per_character([math.inf, 1.0], ["a", "b"]) == math.inf
