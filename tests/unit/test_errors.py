"""Errors, agreement and calibration: frames of made-up texts against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from decoderbench.analysis.agreement import LISTED, find_agreement
from decoderbench.analysis.calibration import expected_calibration_error, find_calibration
from decoderbench.analysis.edits import DELETION, INSERTION, SUBSTITUTION, align
from decoderbench.analysis.errors import OUTCOMES, find_errors
from decoderbench.analysis.readings import COLUMNS
from decoderbench.statistics import Scores, row

TEXT = st.text("AB", max_size=6)


def make_readings(
    references: list[str],
    rows: list[list[list[str]]],
    *,
    log_prob: list[float] | None = None,
    image_sets: list[int] | None = None,
) -> pd.DataFrame:
    """Return readings of rows, each a list of seeds from 0, each the texts of all images; an empty seed is not done."""
    lines = [
        (index, seed, image_sets[index] if image_sets else 0, image, f"t/{image}", reference, text, score)
        for index, seeds in enumerate(rows)
        for seed, texts in enumerate(seeds)
        if texts
        for image, (reference, text, score) in enumerate(
            zip(references, texts, log_prob or [math.nan] * len(texts), strict=True)
        )
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS)


def edits_of(reference: str, hypothesis: str) -> list[tuple[int, int, str, str]]:
    edits = align([(reference, hypothesis)])
    parts = edits.kind.tolist(), edits.position.tolist(), edits.reference, edits.hypothesis
    return list(zip(*parts, strict=True))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("ABCCD", "ABCD", [(DELETION, 3, "C", "")]),
        ("AAB", "AB", [(DELETION, 1, "A", "")]),
        ("ABC", "XBC", [(SUBSTITUTION, 0, "A", "X")]),
        ("AB", "ABC", [(INSERTION, 2, "", "C")]),
        ("AB", "BA", [(INSERTION, 0, "", "B"), (DELETION, 1, "B", "")]),
        ("AB", "CDE", [(INSERTION, 0, "", "C"), (SUBSTITUTION, 0, "A", "D"), (SUBSTITUTION, 1, "B", "E")]),
        ("", "A", [(INSERTION, 0, "", "A")]),
    ],
)
def test_align_breaks_ties_as_stated(
    reference: str, hypothesis: str, expected: list[tuple[int, int, str, str]]
) -> None:
    assert edits_of(reference, hypothesis) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "dropped"),
    [
        ("ABCCD", "ABCD", 1),
        ("AABB", "AB", 2),
        ("CCC", "C", 2),
        ("ABCCD", "ABD", 0),  # nothing is left of the run
        ("ABCCD", "ABXD", 0),  # nothing of the run is read
        ("ABCD", "ABD", 0),  # no run
        ("ABAB", "BAB", 0),
        ("ABC", "ABCC", 0),  # an insertion
    ],
)
def test_repeat_is_dropped_only_if_another_one_of_its_run_is_read(
    reference: str, hypothesis: str, dropped: int
) -> None:
    assert int(align([(reference, hypothesis)]).repeat.sum()) == dropped


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_edits_of_each_pair_add_up_to_its_edit_distance(pairs: list[tuple[str, str]]) -> None:
    edits = align(pairs)
    everything = np.ones(len(edits.pair), bool)
    assert edits.count(everything).tolist() == [Levenshtein.distance(*pair) for pair in pairs]
    assert (edits.kind[edits.repeat] == DELETION).all()


REFERENCES = ["ABCCD", "AB", "AB", "ABC", "A"]
READ = [
    [["ABCD", "AB", "", "AXC", "AA"], ["ABCCD", "AB", "A", "AXC", "A"]],
    [["ABCCD", "AB", "AB", "ABC", "A"]],
    [[]],
]
TITLES = ["first", "second", "third"]


def test_anatomy_counts_edits_per_100_characters_and_one_outcome_per_text() -> None:
    anatomy = find_errors(make_readings(REFERENCES, READ), TITLES).anatomy
    first, second, third = anatomy.to_dict("records")
    counts = ["num_seeds", "num_texts", "num_characters"]
    assert [[row[name] for name in counts] for row in (first, second, third)] == [[2, 10, 26], [1, 5, 13], [0, 0, 0]]
    # ABCCD lost a C, AB both and B, ABC got an X twice, A a second one.
    assert first["substitutions"] == pytest.approx(100 * 2 / 26)
    assert first["insertions"] == pytest.approx(100 * 1 / 26)
    assert first["deletions"] == pytest.approx(100 * 4 / 26)
    assert first["repeats_dropped"] == pytest.approx(100 * 1 / 26)
    outcomes = {"right": 4, "same_length": 2, "too_long": 1, "too_short": 1, "truncated": 1, "empty": 1}
    assert {name: first[name] * 10 for name in OUTCOMES} == pytest.approx(outcomes)
    assert [second["right"], second["deletions"]] == [1, 0]
    assert math.isnan(third["right"])
    assert math.isnan(third["substitutions"])
    assert anatomy["title"].tolist() == TITLES


def test_intervals_of_errors_are_those_of_the_statistics_over_groups() -> None:
    readings = make_readings(REFERENCES, READ)
    groups = np.array([0, 1, 1, 2, 3])
    anatomy = find_errors(readings, TITLES, lambda image_set: groups).anatomy.to_dict("records")
    # Of the first row, by seed and image; ABC lost no character and has one substitution.
    substitutions = np.array([[[0, 0, 0, 1, 0], [0, 0, 0, 1, 0]]], float)
    empty = np.array([[[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]], float)
    lengths = np.array([5, 2, 2, 3, 1]) / 100
    for name, estimate in (
        ("substitutions", row(Scores(substitutions, lengths, groups=groups), 0, proportion=False)),
        ("empty", row(Scores(empty, np.ones(5), groups=groups), 0, proportion=True)),
    ):
        assert [anatomy[0][f"{name}{end}"] for end in ("", "_low", "_high")] == pytest.approx(
            [estimate.value, estimate.low, estimate.high]
        )
    alone = find_errors(readings, TITLES).anatomy.to_dict("records")
    assert alone[0]["substitutions_high"] != anatomy[0]["substitutions_high"]
    assert math.isnan(anatomy[2]["empty_low"])


def test_accuracy_by_length_and_by_position_match_counting_by_hand() -> None:
    errors = find_errors(make_readings(REFERENCES, READ), TITLES)
    length = errors.by_length[errors.by_length["index"] == 0]
    assert length["length"].tolist() == [1, 2, 3, 5]
    assert length["num_texts"].tolist() == [2, 4, 2, 2]
    assert length["exact_match"].tolist() == [0.5, 0.5, 0.0, 0.5]
    known = length.dropna(subset="exact_match_low")
    assert known["length"].tolist() == [2]  # one image says nothing about others
    of_two = [
        [float(read == text) for text, read in zip(REFERENCES, texts, strict=True) if len(text) == 2]
        for texts in READ[0]
    ]
    expected = row(Scores(np.array([of_two]), np.ones(2)), 0, proportion=True)
    assert known[["exact_match_low", "exact_match_high"]].values.tolist() == [
        pytest.approx([expected.low, expected.high])
    ]
    position = errors.by_position[errors.by_position["index"] == 0]
    assert position["position"].tolist() == [1, 2, 3, 4, 5]
    assert position["num_characters"].tolist() == [10, 8, 4, 2, 2]
    # Lost: A of the empty text; its B, that of "A" and of both AXC; the second C of ABCD.
    assert position["accuracy"].tolist() == pytest.approx([9 / 10, 4 / 8, 1, 1 / 2, 1])


def test_confusions_are_sorted_by_count_with_their_share_of_the_character() -> None:
    confusions = find_errors(make_readings(REFERENCES, READ), TITLES).confusions
    own = confusions[confusions["index"] == 0]
    found = list(own[["reference", "hypothesis", "count"]].itertuples(index=False, name=None))
    assert found == [("B", "", 2), ("B", "X", 2), ("", "A", 1), ("A", "", 1), ("C", "", 1)]
    assert own["share"].tolist() == pytest.approx([2 / 8, 2 / 8, math.nan, 1 / 10, 1 / 6], nan_ok=True)


@settings(max_examples=15)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=8))
def test_errors_agree_with_each_other(texts: list[tuple[str, str, str]]) -> None:
    references, one, other = map(list, zip(*texts, strict=True))
    errors = find_errors(make_readings(references, [[one, other]]), ["row"])
    row = errors.anatomy.to_dict("records")[0]
    right = sum(a == b for a, b, _ in texts) + sum(a == b for a, _, b in texts)
    assert row["right"] == pytest.approx(right / (2 * len(texts)))
    assert sum(row[name] for name in OUTCOMES) == pytest.approx(1)
    length = errors.by_length
    assert (length["exact_match"] * length["num_texts"]).sum() == pytest.approx(right)
    if characters := sum(map(len, references)):
        edits = sum(Levenshtein.distance(a, b) + Levenshtein.distance(a, c) for a, b, c in texts)
        kinds = row["substitutions"] + row["insertions"] + row["deletions"]
        assert kinds == pytest.approx(100 * edits / (2 * characters))
        lost = ((1 - errors.by_position["accuracy"]) * errors.by_position["num_characters"]).sum()
        assert lost == pytest.approx((row["substitutions"] + row["deletions"]) / 100 * 2 * characters)


def test_no_readings_give_empty_frames() -> None:
    readings = make_readings([], [[[]], [[]]])
    errors = find_errors(readings, ["a", "b"])
    assert errors.anatomy["num_texts"].tolist() == [0, 0]
    assert [len(frame) for frame in (errors.by_length, errors.by_position, errors.confusions)] == [0, 0, 0]
    agreement = find_agreement(readings, ["a", "b"])
    assert all(vars(agreement)[name].empty for name in vars(agreement))
    calibration = find_calibration(readings, ["a", "b"])
    assert calibration.rows["ece"].isna().tolist() == [True, True]
    assert calibration.risk_coverage.empty


def test_agreement_compares_the_seeds_that_both_rows_have() -> None:
    rows = [
        [["A", "B", "x", "x"], ["A", "x", "x", "x"]],
        [["A", "x", "C", "x"], ["A", "x", "C", "y"]],
        [["x", "x", "x", "x"], []],
    ]
    agreement = find_agreement(make_readings(list("ABCD"), rows), ["a", "b", "c"])
    pairs = {(row["row_a"], row["row_b"]): row for row in agreement.pairs.to_dict("records")}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    cases = ["both", "only_a", "only_b", "neither", "num_seeds", "num_images"]
    assert [pairs["a", "b"][case] for case in cases] == [2 / 8, 1 / 8, 2 / 8, 3 / 8, 2, 4]
    assert [pairs["a", "c"][case] for case in cases] == [0, 2 / 4, 0, 2 / 4, 1, 4]
    # With seed 0, the only one that all have: B is read by a alone, C by b alone, A by all but c.
    alone = agreement.alone[["only_right", "only_wrong", "num_seeds"]].values.tolist()
    assert alone == [[0.25, 0, 1], [0.25, 0, 1], [0, 0.25, 1]]


def test_rows_without_a_common_seed_have_no_agreement() -> None:
    agreement = find_agreement(make_readings(["A"], [[["A"], []], [[], ["A"]]]), ["a", "b"])
    assert agreement.pairs["num_seeds"].tolist() == [0]
    assert agreement.pairs["both"].isna().all()
    assert agreement.alone["only_right"].isna().all()


def test_rows_of_different_image_sets_are_not_compared() -> None:
    readings = make_readings(["A"], [[["A"]], [["x"]], [["x"]]], image_sets=[0, 1, 1])
    agreement = find_agreement(readings, ["a", "b", "c"])
    assert agreement.pairs[["row_a", "row_b"]].values.tolist() == [["b", "c"]]
    assert agreement.all_wrong[["image_set", "sample"]].values.tolist() == [[1, "t/0"]]


def test_images_that_all_read_wrong_are_sorted_by_how_many_agree() -> None:
    rows = [[["A", "z", "q", "D"], ["A", "y", "q", "x"]], [["x", "y", "q", "x"]]]
    agreement = find_agreement(make_readings(list("ABCD"), rows), ["a", "b"])
    columns = ["sample", "reference", "reading", "share", "num_readings", "num_cells"]
    assert agreement.all_wrong[columns].values.tolist() == [
        ["t/2", "C", "q", 1.0, 1, 3],
        ["t/1", "B", "y", pytest.approx(2 / 3), 2, 3],
    ]
    listed = agreement.readings[["sample", "title", "seed", "hypothesis"]].values.tolist()
    assert listed[3:] == [["t/1", "a", 0, "z"], ["t/1", "a", 1, "y"], ["t/1", "b", 0, "y"]]


def test_readings_are_listed_of_a_limited_number_of_images() -> None:
    texts = ["x"] * (LISTED + 5)
    agreement = find_agreement(make_readings(["A"] * len(texts), [[texts], [texts]]), ["a", "b"])
    assert len(agreement.all_wrong) == LISTED + 5
    assert agreement.readings["sample"].nunique() == LISTED


def test_calibration_matches_values_by_hand() -> None:
    # Confidences .9 right, .6 wrong, .5 right, .1 wrong: as many bins as images.
    scores = [math.log(value) for value in (0.5, 0.9, 0.1, 0.6)]
    found = find_calibration(make_readings(list("ABCD"), [[["A", "B", "x", "x"]]], log_prob=scores), ["row"])
    row = found.rows.to_dict("records")[0]
    assert row["ece"] == pytest.approx((0.1 + 0.6 + 0.5 + 0.1) / 4)
    assert row["mean_confidence"] == pytest.approx(0.525)
    assert row["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    curve = dict(zip(found.risk_coverage["coverage"], found.risk_coverage["risk"], strict=True))
    assert [curve[coverage] for coverage in (0.25, 0.5, 0.51, 1.0)] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_texts_of_equal_confidence_have_no_order() -> None:
    texts = ["A", "x", "x", "x"]
    orders = [texts, texts[::-1]]
    found = find_calibration(
        make_readings(list("AAAA"), [[order] for order in orders], log_prob=[-1.0] * 4), ["a", "b"]
    )
    assert found.rows["aurc"].tolist() == pytest.approx([0.75, 0.75])
    assert found.risk_coverage["risk"].tolist() == pytest.approx([0.75] * 200)


def test_calibration_error_groups_images_of_like_confidence() -> None:
    # 30 images make 15 bins of two: one right and one wrong at .5 in each.
    assert expected_calibration_error(np.full(30, 0.5), np.tile([1.0, 0.0], 15)) == 0
    assert expected_calibration_error(np.full(30, 0.75), np.tile([1.0, 0.0], 15)) == pytest.approx(0.25)


def test_row_with_a_text_without_score_has_no_calibration() -> None:
    rows = [[["A", "x"]], [["A", "x"]]]
    readings = make_readings(["A", "B"], rows, log_prob=[-0.5, -1.0])
    readings.loc[3, "text_log_prob"] = math.nan
    found = find_calibration(readings, ["a", "b"])
    assert found.rows["num_unscored"].tolist() == [0, 1]
    assert found.rows["ece"].notna().tolist() == [True, False]
    assert found.risk_coverage["index"].unique().tolist() == [0]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 0)), min_size=1, max_size=40))
def test_risk_at_full_coverage_is_one_minus_exact_match(images: list[tuple[bool, float]]) -> None:
    texts = ["A" if right else "x" for right, _ in images]
    readings = make_readings(["A"] * len(texts), [[texts]], log_prob=[score for _, score in images])
    found = find_calibration(readings, ["row"])
    accuracy = sum(right for right, _ in images) / len(images)
    assert found.risk_coverage["risk"].iloc[-1] == pytest.approx(1 - accuracy)
    assert found.rows["exact_match"].tolist() == [pytest.approx(accuracy)]
    assert 0 <= found.rows["ece"].iloc[0] <= 1
