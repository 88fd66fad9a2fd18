"""Metrics: properties that hold for any texts, and examples computed by hand."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoderbench.metrics import (
    BUILT_IN,
    Definition,
    Transcriptions,
    built_in_definitions,
    character_error_rate,
    edit_distances,
    exact_match,
    nats_per_character,
    one_minus_ned,
    sources_of,
)
from decoderbench.registry.metric_definitions import definitions_of
from decoderbench.registry.plugin_loading import import_file
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.sources import function_digest

no_deadline = settings(deadline=None)
texts = st.text("abé", max_size=5)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)
Pair = tuple[list[str], list[str]]
Rate = Callable[[list[str], list[str]], float | None]


@no_deadline
@given(pairs)
def test_exact_match_and_one_minus_ned_are_bounded_and_symmetric(pair: Pair) -> None:
    for rate in (exact_match, one_minus_ned):
        forward, backward = rate(*pair), rate(*reversed(pair))
        assert forward is not None
        assert forward == backward
        assert 0 <= forward <= 1


@no_deadline
@given(pairs)
def test_exact_match_and_one_minus_ned_are_one_only_for_equal_texts(pair: Pair) -> None:
    equal = pair[0] == pair[1]
    assert (exact_match(*pair) == 1) == equal
    assert (one_minus_ned(*pair) == 1) == equal
    assert (sum(edit_distances(*pair)) == 0) == equal


@no_deadline
@given(pairs)
def test_exact_match_never_exceeds_one_minus_ned(pair: Pair) -> None:
    exact, similar = exact_match(*pair), one_minus_ned(*pair)
    assert exact is not None
    assert similar is not None
    assert exact <= similar + 1e-12


@no_deadline
@given(pairs)
def test_cer_is_total_edits_over_total_characters(pair: Pair) -> None:
    characters = len("".join(pair[0]))
    rate = character_error_rate(*pair)
    if not characters:
        assert rate is None
    else:
        assert rate is not None
        assert rate * characters == pytest.approx(sum(edit_distances(*pair)))
        assert abs(characters - len("".join(pair[1]))) / characters <= rate + 1e-12


@no_deadline
@given(st.lists(texts, min_size=1))
def test_cer_is_zero_for_equal_texts_and_one_for_empty_hypotheses(references: list[str]) -> None:
    rates = character_error_rate(references, references), character_error_rate(references, [""] * len(references))
    assert rates == ((0, 1) if any(references) else (None, None))


@no_deadline
@given(texts, texts, texts)
def test_edit_distance_satisfies_the_metric_axioms(first: str, second: str, third: str) -> None:
    (forward,), (backward,) = edit_distances([first], [second]), edit_distances([second], [first])
    (first_leg,) = edit_distances([first], [third])
    (second_leg,) = edit_distances([third], [second])
    assert forward == backward
    assert forward <= first_leg + second_leg
    assert abs(len(first) - len(second)) <= forward <= max(len(first), len(second))


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
def test_edit_distances_match_examples(reference: str, hypothesis: str, distance: int) -> None:
    assert edit_distances([reference], [hypothesis]) == [distance]


def test_rates_match_examples() -> None:
    references, hypotheses = ["abcd", "ab", ""], ["abxd", "ab", "a"]
    assert exact_match(references, hypotheses) == pytest.approx(1 / 3)
    assert character_error_rate(references, hypotheses) == pytest.approx(2 / 6)
    assert one_minus_ned(references, hypotheses) == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_exact_match_does_not_fold_case_strip_or_compose() -> None:
    assert exact_match(["A", "a ", "é"], ["a", "a", "e\u0301"]) == 0


def test_cer_exceeds_one_for_long_hypotheses() -> None:
    assert character_error_rate(["a"], ["bbb"]) == 3


def test_cer_is_not_the_mean_over_texts() -> None:
    assert character_error_rate(["a", "aaaaaaaaa"], ["b", "aaaaaaaaa"]) == pytest.approx(0.1)


def test_rates_of_empty_texts() -> None:
    assert one_minus_ned([""], [""]) == exact_match([""], [""]) == 1
    assert one_minus_ned([""], ["a"]) == one_minus_ned(["a"], [""]) == 0
    assert character_error_rate(["", ""], ["", "a"]) is None
    assert character_error_rate(["", "ab"], ["a", "ab"]) == 0.5


@pytest.mark.parametrize("rate", [exact_match, character_error_rate, one_minus_ned])
def test_rate_of_no_texts_is_none(rate: Rate) -> None:
    assert rate([], []) is None


@pytest.mark.parametrize("rate", [exact_match, one_minus_ned, edit_distances])
def test_rates_refuse_sequences_of_unequal_length(rate: Rate) -> None:
    with pytest.raises(ValueError, match="zip"):
        rate(["a", "b"], ["a"])


def test_nats_per_character_matches_examples() -> None:
    assert nats_per_character([1.0, 2.0, 3.0], ["ab", "", "a"]) == 2
    assert nats_per_character([1.0], [""]) is None
    assert nats_per_character([], []) is None
    assert nats_per_character([math.inf, 1.0], ["a", "b"]) == math.inf


def scores(references: list[str], hypotheses: list[str], nll: list[float | None]) -> dict[str, float | None]:
    texts = Transcriptions(references, hypotheses, nll)
    return {name: definition.score(texts) for name, definition in built_in_definitions().items()}


def test_built_in_definitions_compute_every_built_in_metric() -> None:
    assert scores(["ab", "é", "a"], ["ab", "b", ""], [1.0, None, 0.5]) == {
        "exact_match": pytest.approx(1 / 3),
        "cer": 0.5,
        "one_minus_ned": pytest.approx(1 / 3),
        "nats_per_char": 0.5,  # over the texts that the charset spells
    }
    assert scores([], [], []) == dict.fromkeys(BUILT_IN)


@no_deadline
@given(pairs, st.data())
def test_terms_of_images_sum_to_the_score_of_each_built_in_metric(pair: Pair, data: st.DataObject) -> None:
    numbers = st.lists(st.none() | st.floats(0, 1e6), min_size=len(pair[0]), max_size=len(pair[0]))
    split = Transcriptions(*pair, data.draw(numbers))
    for definition in built_in_definitions().values():
        terms, score = definition.per_sample(split), definition.score(split)
        assert terms is not None
        numerators, denominators = terms
        assert numerators.shape == denominators.shape == (len(pair[0]),)
        if score is None:
            assert denominators.sum() == 0
        else:
            assert numerators.sum() / denominators.sum() == pytest.approx(score, rel=1e-12, abs=1e-12)


def test_terms_of_images_match_examples() -> None:
    split = Transcriptions(["abcd", "ab", "é"], ["abxd", "ab", ""], [1.5, None, 0.5])
    found = {name: definition.per_sample(split) for name, definition in built_in_definitions().items()}
    listed = {name: [part.tolist() for part in terms] for name, terms in found.items() if terms is not None}
    assert listed == {
        "exact_match": [[0, 1, 0], [1, 1, 1]],
        "cer": [[1, 0, 1], [4, 2, 1]],
        "one_minus_ned": [[0.75, 1, 0], [1, 1, 1]],
        "nats_per_char": [[1.5, 0, 0.5], [4, 0, 1]],  # nothing of a text that the charset does not spell
    }


def test_only_rates_of_errors_are_better_when_lower() -> None:
    better = {name: definition.higher_is_better for name, definition in built_in_definitions().items()}
    assert better == {"exact_match": True, "cer": False, "one_minus_ned": True, "nats_per_char": False}


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ([1.0, 1.0], "it returned no pair"),
        (([1.0], [1.0]), r"numbers of shape \(1,\) for 2 images"),
        (([[1.0], [1.0]], [1.0, 1.0]), r"numbers of shape \(2, 1\) for 2 images"),
        (([1.0, math.nan], [1.0, 1.0]), "nan is not a finite number"),
        ((["1", "2"], [1.0, 1.0]), "of type str"),
        (([1.0, 1.0], [1.0, -2.0]), "a denominator of -2"),
        (([1.0, None], [1.0, 1.0]), "None of type NoneType is not a number"),
    ],
)
def test_terms_that_are_no_numbers_of_images_are_reported_and_missing(
    terms: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    definition = Definition("broken", "", lambda texts: 1.0, terms=lambda texts: terms)
    assert definition.per_sample(Transcriptions(["a", "b"], ["a", "b"], [1.0, 1.0])) is None
    assert re.search(f"per_sample of metric broken failed: no intervals: ValueError: .*{reason}", caplog.text)


def test_a_metric_that_exits_has_no_terms(caplog: pytest.LogCaptureFixture) -> None:
    def leave(texts: Transcriptions) -> Any:
        raise SystemExit(3)

    definition = Definition("leaves", "", lambda texts: 1.0, terms=leave)
    assert definition.per_sample(Transcriptions(["a"], ["a"], [1.0])) is None
    assert "per_sample of metric leaves failed" in caplog.text


def test_each_built_in_metric_has_a_source_of_its_own() -> None:
    sources = sources_of(built_in_definitions().values())
    assert list(sources) == list(BUILT_IN)
    assert len(set(sources.values())) == len(BUILT_IN)


SOURCE = """
UNRELATED = {unrelated}

def helper(x):
    return x + {number}

def rate(x):
    {comment}
    return helper(x)
"""


def digest_of(tmp_path: Path, **parts: object) -> str:
    file = tmp_path / f"rates_{len(list(tmp_path.iterdir()))}.py"
    file.write_text(SOURCE.format(**{"unrelated": 0, "number": 1, "comment": "pass"} | parts))
    return function_digest(import_file(file.stem, file).rate)


def test_function_digest_counts_code_and_helpers_but_no_comment_or_other_line(tmp_path: Path) -> None:
    first = digest_of(tmp_path)
    assert digest_of(tmp_path, unrelated=1) == first
    assert digest_of(tmp_path, comment="pass  # because") == first
    assert digest_of(tmp_path, number=2) != first
    assert digest_of(tmp_path, comment="x = -x") != first


PLUGIN = """
import numpy as np
from decoderbench import Metric, hookimpl

class WrongLength(Metric):
    name = "wrong_length"
    higher_is_better = False

    def score(self, references, hypotheses):
        return 0.5

    def per_sample(self, references, hypotheses):
        references.sort()
        return np.array([len(a) != len(b) for a, b in zip(references, hypotheses)]), [1] * len(references)

class Silent(Metric):
    name = "silent"

    def score(self, references, hypotheses):
        return 0.5

@hookimpl
def register_metrics():
    return [WrongLength, Silent]
"""


def test_metrics_of_plugins_have_terms_and_a_direction_and_change_no_texts(tmp_path: Path) -> None:
    file = tmp_path / "lengths.py"
    file.write_text(PLUGIN)
    definitions = definitions_of(build_plugin_manager([str(file)], installed=False, builtin=False))
    split = Transcriptions(["bb", "a"], ["b", "a"], [1.0, 1.0])
    terms = definitions["wrong_length"].per_sample(split)
    assert terms is not None
    assert [part.tolist() for part in terms] == [[0, 1], [1, 1]]  # of the order that the plugin sorted, its own list
    assert split.references == ["bb", "a"]
    assert not definitions["wrong_length"].higher_is_better
    assert definitions["silent"].higher_is_better
    assert definitions["silent"].per_sample(split) is None
