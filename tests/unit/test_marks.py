"""Marks of rows, from made-up histories: still rising, and seeds that did not learn."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.histories import images, publish_histories
from helpers.readings import make_row, read, write_result
from scipy import stats

from decoderbench.analysis import Analysis, load_report
from decoderbench.records.predictions import COLUMNS
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, pack_flags, unpack_flags
from decoderbench.report.row_notes import remarks_on
from decoderbench.statistics import Scores, contrast


def history(before: Sequence[int], after: Sequence[int], nats: float | None = 0.1) -> list[dict[str, Any]]:
    steps = make_row("CTC").training
    flags = {100: [0] * len(before), steps.nine_tenths: before, steps.steps: after}
    return [
        {
            "step": step,
            "val_exact_match": float(np.mean(own)),
            "val_nats_per_char": nats,
            "val_correct": pack_flags(own),
        }
        for step, own in flags.items()
    ]


def test_row_that_gains_on_many_images_is_still_rising(tmp_path: Path) -> None:
    level = [1] * 20 + [0] * 20
    gained = [1] * 32 + [0] * 8
    noisy = [1] * 19 + [0] + [1] + [0] * 19
    marks = publish_histories(
        tmp_path,
        {"gains": [history(level, gained), history(level, gained)], "wavers": [history(level, noisy)] * 2},
        val=[images()] * 2,
    ).rows[["rise", "rise_low", "rise_high", "still_rising"]]
    assert marks["rise"].tolist() == pytest.approx([0.3, 0.0])
    assert marks["still_rising"].tolist() == [True, False]
    assert (marks["rise_low"] < marks["rise"]).all()
    assert (marks["rise"] < marks["rise_high"]).all()


def test_rise_of_one_seed_is_paired_by_image(tmp_path: Path) -> None:
    before, after = [1] * 10 + [0] * 30, [1] * 14 + [0] * 26
    analysis = publish_histories(tmp_path, {"CTC": [history(before, after)]}, val=[images()])
    differences = np.subtract(after, before)
    half = stats.t.ppf(0.975, 39) * differences.std(ddof=1) / math.sqrt(40)
    row = analysis.marks.iloc[0]
    assert (row["rise"], row["rise_low"], row["rise_high"]) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert row["still_rising"]


def test_images_of_one_group_count_once(tmp_path: Path) -> None:
    before, after = [1] * 10 + [0] * 30, [1] * 14 + [0] * 26
    of_one_page = images(group=["page"] * 14 + [f"page {number}" for number in range(26)])
    analysis = publish_histories(tmp_path, {"CTC": [history(before, after)]}, val=[of_one_page])
    assert not analysis.marks.loc[0, "still_rising"]  # one page of 27 gained


def test_rise_over_seeds_with_images_of_their_own_is_that_of_their_means(tmp_path: Path) -> None:
    level, gained = [1] * 10 + [0] * 30, ([1] * 12 + [0] * 28, [1] * 14 + [0] * 26, [1] * 18 + [0] * 22)
    own = [images(sample=[f"val/{seed}/{number}" for number in range(40)]) for seed in range(3)]
    analysis = publish_histories(tmp_path, {"CTC": [history(level, after) for after in gained]}, val=own)
    means = np.array([2, 4, 8]) / 40
    half = stats.t.ppf(0.975, 2) * means.std(ddof=1) / math.sqrt(3)
    row = analysis.marks.iloc[0]
    assert (row["rise"], row["rise_low"]) == pytest.approx((means.mean(), means.mean() - half))


@pytest.mark.parametrize(
    ("change", "rise"),
    [
        pytest.param({"val_correct": None}, math.nan, id="no flags"),
        pytest.param({"val_correct": "!"}, math.nan, id="no base64"),
        pytest.param({"val_correct": pack_flags([True] * 3)}, math.nan, id="flags of other images"),
        pytest.param({"step": 1799}, math.nan, id="no validation at nine tenths"),
        pytest.param({}, 0.1, id="as it should be"),
    ],
)
def test_unknown_rise_is_missing_and_no_mark(tmp_path: Path, change: dict[str, Any], rise: float) -> None:
    lines = history([1] * 10 + [0] * 30, [1] * 14 + [0] * 26)
    lines[1] |= change
    row = publish_histories(tmp_path, {"CTC": [lines]}, val=[images()]).marks.iloc[0]
    assert row["rise"] == pytest.approx(rise, nan_ok=True)
    assert row["still_rising"] == (rise > 0)


def test_line_that_an_interrupted_cell_wrote_again_counts(tmp_path: Path) -> None:
    lines = history([1] * 10 + [0] * 30, [1] * 14 + [0] * 26)
    lines = [lines[0], lines[1] | {"val_correct": pack_flags([0] * 40)}, lines[1], lines[2]]
    analysis = publish_histories(tmp_path, {"CTC": [lines]}, val=[images()])
    assert analysis.marks.loc[0, "rise"] == pytest.approx(0.1)


def test_seeds_whose_nll_is_near_the_unigram_entropy_did_not_learn(tmp_path: Path) -> None:
    flags = [1] * 40
    nats = [0.81 * math.log(2), 0.79 * math.log(2), None]
    analysis = publish_histories(
        tmp_path, {"CTC": [history(flags, flags, value) for value in nats]}, val=[images()] * 3
    )
    learning = analysis.learning
    assert learning["unigram_entropy"].tolist() == pytest.approx([math.log(2)] * 3)
    assert learning["learned"].astype(object).where(learning["learned"].notna(), None).tolist() == [False, True, None]
    assert analysis.rows["not_learned"].tolist() == [1]


def test_entropy_counts_only_labels_that_can_be_spelled(tmp_path: Path) -> None:
    labels = ["aa", "bb", "cccccc"]
    analysis = publish_histories(
        tmp_path, {"CTC": [history([1] * 3, [1] * 3)]}, val=[images(labels, nll=[0.5, 0.5, None])]
    )
    assert analysis.learning.loc[0, "unigram_entropy"] == pytest.approx(math.log(2))


def test_labels_of_one_character_tell_nothing_about_learning(tmp_path: Path) -> None:
    analysis = publish_histories(tmp_path, {"CTC": [history([1] * 3, [1] * 3, 5.0)]}, val=[images(["aa"] * 3)])
    assert analysis.learning["learned"].isna().all()
    assert analysis.marks["not_learned"].tolist() == [0]


def test_results_of_an_earlier_version_have_no_marks(tmp_path: Path) -> None:
    cell, directory = make_row("CTC"), ResultsDirectory(tmp_path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=(cell,)))
    write_result(directory, cell, read("1101"))
    analysis = load_report(tmp_path)
    assert analysis.marks["rise"].isna().all()
    assert analysis.marks[["still_rising", "not_learned"]].to_numpy().tolist() == [[False, 0]]
    assert set(COLUMNS) > set(read("1101").columns)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 250])
def test_flags_are_read_as_they_were_packed(count: int) -> None:
    flags = np.random.default_rng(count).random(count) < 0.5
    assert unpack_flags(pack_flags(flags.tolist()), count).tolist() == flags.tolist()


def test_flags_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="8 truth values instead of 9"):
        unpack_flags(pack_flags([True] * 8), 9)


def publish_folds(path: Path, of_seeds: Sequence[Sequence[tuple[pd.DataFrame, list[dict[str, Any]]]]]) -> Analysis:
    """Publish a row with the validation images and the history of each fold of each seed."""
    directory = ResultsDirectory(path)
    planned = [
        (make_row("CTC", seed=seed, fold=fold, folds=len(folds)), *of_fold)
        for seed, folds in enumerate(of_seeds)
        for fold, of_fold in enumerate(folds)
    ]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, *_ in planned)))
    for cell, val, lines in planned:
        folder = directory.cell_directory(cell)
        folder.mkdir(parents=True)
        val.to_parquet(folder / "val_predictions.parquet", index=False)
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_result(directory, cell, read("1101").assign(sample=[f"{cell.fold} {place}" for place in range(4)]))
    return load_report(path)


def test_rise_of_folds_is_paired_by_validation_image_within_folds(tmp_path: Path) -> None:
    before, after = [1] * 10 + [0] * 10, [[1] * 14 + [0] * 6, [1] * 12 + [0] * 8]
    folds = [images(["ab", "ba"] * 10, sample=[f"{fold} {place}" for place in range(20)]) for fold in range(2)]
    analysis = publish_folds(
        tmp_path, [[(folds[fold], history(before, after[fold])) for fold in range(2)] for _ in range(2)]
    )
    table = np.array([[before * 2] * 2, [after[0] + after[1]] * 2])[::-1].astype(float)
    expected = contrast(Scores(table, np.ones(1), folds=np.repeat([0, 1], 20)), (1, -1))
    rise = analysis.rows.loc[0, ["rise", "rise_low", "rise_high"]].tolist()
    assert rise == pytest.approx([expected.value, expected.low, expected.high])
    assert expected.value == pytest.approx(0.15)


def test_models_of_folds_that_did_not_learn_are_counted_and_named(tmp_path: Path) -> None:
    level = [1, 0] * 20
    lost = history(level, level, nats=0.99 * math.log(2))
    fine = history(level, level)
    analysis = publish_folds(tmp_path, [[(images(), fine), (images(), lost)], [(images(), lost), (images(), fine)]])
    assert analysis.learning[["seed", "fold"]].values.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert analysis.learning["learned"].tolist() == [True, False, False, True]
    assert remarks_on(analysis) == ["2 models did not learn (seed 0, fold 1 and seed 1, fold 0)"]
