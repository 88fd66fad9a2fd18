"""Health of rows, from made-up predictions."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.readings import make_predictions, make_row, read, write_result

from decoderbench.alignments import MEASURES
from decoderbench.analysis import load_report
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan


def health(path: Path, *seeds: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    """Return the health of one row with these predictions per seed."""
    cells = [make_row("CTC", seed=seed).model_copy(update=changes) for seed in range(len(seeds))]
    directory = ResultsDirectory(path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cells)))
    for cell, predictions in zip(cells, seeds, strict=True):
        write_result(directory, cell, predictions)
    (line,) = load_report(path).health.to_dict("records")
    return line


def test_measures_are_medians_over_images_and_seeds_with_their_spread(tmp_path: Path) -> None:
    labels = ["ab", "ba", "aa"]
    found = health(
        tmp_path,
        make_predictions(labels, labels, frames_per_character=[1.0, 2.0, 3.0]),
        make_predictions(labels, labels, frames_per_character=[4.0, 5.0, math.nan]),
    )
    names = ["frames_per_character" + end for end in ("", "_q1", "_q3", "_seed_min", "_seed_max")]
    assert [found[name] for name in names] == [3.0, 2.0, 4.0, 2.0, 4.5]
    assert (found["num_seeds"], found["num_images"]) == (2, 6)


def test_row_without_alignment_and_ends_has_an_empty_panel(tmp_path: Path) -> None:
    nothing = dict.fromkeys(MEASURES, math.nan)
    found = health(tmp_path, make_predictions(["ab"], ["ab"], ended=pd.array([None], dtype="boolean"), **nothing))
    assert all(math.isnan(found[name]) for name in (*MEASURES, "ended"))


def test_predictions_of_an_earlier_version_have_an_empty_panel(tmp_path: Path) -> None:
    found = health(tmp_path, read("1101"), frames=6)
    assert {name for name, value in found.items() if not isinstance(value, str) and not math.isnan(value)} == {
        "index", "num_seeds", "num_images", "frames", "frames_ratio", "tight",
    }  # fmt: skip
    assert (found["frames"], found["frames_ratio"]) == (6.0, 2.0)


def test_row_without_results_has_an_empty_panel(tmp_path: Path) -> None:
    directory = ResultsDirectory(tmp_path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=(make_row("CTC"),)))
    (line,) = load_report(tmp_path).health.to_dict("records")
    assert line["num_seeds"] == 0
    assert math.isnan(line["unused_frames"])


def test_ended_is_the_share_of_texts_that_say_so(tmp_path: Path) -> None:
    ended = pd.array([True, False, True, True], dtype="boolean")
    assert health(tmp_path, make_predictions(["a"] * 4, ["a"] * 4, ended=ended))["ended"] == 0.75


def test_gap_is_between_the_nll_of_the_label_and_of_the_returned_text(tmp_path: Path) -> None:
    found = health(
        tmp_path,
        make_predictions(
            ["ab", "ba", "aa", "bb"],
            ["ab", "b", "ab", "b"],
            nll=[0.5, 3.0, 1.0, None],
            text_log_prob=[-0.5, -1.0, -1.5, -9.0],
        ),
    )
    assert found["nll_gap"] == pytest.approx((0 + 2.0 - 0.5) / 3)
    assert found["nll_gap_wrong"] == pytest.approx((2.0 - 0.5) / 2)
    assert found["search_errors"] == 0.5  # the label "aa" was more probable than what was returned for it


def test_room_of_frames_is_measured_by_what_ctc_needs_for_each_label(tmp_path: Path) -> None:
    labels = ["", "ab", "aa", "abab", "aaaa"]  # CTC needs 0, 2, 3, 4 and 7 frames
    found = health(tmp_path, make_predictions(labels, labels, frames=pd.array([8, 8, 8, 8, 8], dtype="Int64")))
    assert found["frames"] == 8
    assert found["frames_ratio"] == pytest.approx(8 / 7)
    assert found["tight"] == pytest.approx(1 / 4)  # "aaaa" alone; an empty label needs no frame
