"""Rows whose models were tested fold by fold: one row over the images of all folds, and what lacks a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.readings import make_predictions, make_row, write_result
from helpers.recording import COMMAND, make_record

from decoderbench.analysis import Analysis, load_report
from decoderbench.analysis.baselines import compare, find_pairs
from decoderbench.analysis.frame import load_frame, summarize
from decoderbench.analysis.models import models_text
from decoderbench.analysis.pilots import plan_pairs
from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, sizes_key
from decoderbench.report import markdown_table
from decoderbench.report.html_sections import build_sections
from decoderbench.statistics import Scores, contrast, half_width, row

LABELS = ("ab", "cde", "f", "ghij", "kl", "mno", "p")
"""Those of the images of a fold, as many as it has."""

Flags = Sequence[Sequence[str | None]]
"""By seed and fold: which images are read right, as in "1101"; None: failed; "-": pending."""


def read_in_fold(fold: int, flags: str, group: Sequence[str] = ()) -> pd.DataFrame:
    labels = [LABELS[place] for place in range(len(flags))]
    texts = [label if flag == "1" else f"{label}x" for label, flag in zip(labels, flags, strict=True)]
    more = {"sample": [f"fold {fold} image {place}" for place in range(len(flags))]}
    return make_predictions(labels, texts, **more, **({"group": list(group)} if group else {}))


def publish(path: Path, rows: Mapping[str, Flags], groups: Mapping[int, Sequence[str]] | None = None) -> Analysis:
    cells: list[tuple[Cell, int, str | None]] = [
        (make_row(name, seed=seed, fold=fold, folds=len(folds)), fold, flags)
        for name, seeds in rows.items()
        for seed, folds in enumerate(seeds)
        for fold, flags in enumerate(folds)
    ]
    directory = ResultsDirectory(path)
    sizes = {
        sizes_key(cell.data_key, fold): {"train": 30, "val": 5, "test": len(flags or "")} for cell, fold, flags in cells
    }
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, *_ in cells), sizes=sizes))
    for cell, fold, flags in cells:
        if flags is None:
            directory.publish(make_record(cell, status="failed", reason="out of luck"))
        elif flags != "-":
            write_result(directory, cell, read_in_fold(fold, flags, (groups or {}).get(fold, ())))
    return load_report(path)


TWO = {
    "a": [["1101", "011", "10"], ["1111", "010", "11"]],
    "b": [["0100", "011", "00"], ["1001", "000", "01"]],
}
FOLDS = np.array([0] * 4 + [1] * 3 + [2] * 2)


def exact_matches(rows: Mapping[str, Flags]) -> np.ndarray:
    return np.array([[[int(c) for flags in folds for c in str(flags)] for folds in seeds] for seeds in rows.values()])


def test_row_is_the_estimate_over_the_images_of_all_folds(tmp_path: Path) -> None:
    rows = publish(tmp_path, TWO).rows
    scores = Scores(exact_matches(TWO).astype(float), np.ones(1), folds=FOLDS)
    for place in range(2):
        expected = row(scores, place, proportion=True)
        found = rows.loc[place, ["exact_match", "exact_match_low", "exact_match_high", "exact_match_df"]].tolist()
        assert found == pytest.approx([expected.value, expected.low, expected.high, expected.df])
    without = row(Scores(exact_matches(TWO).astype(float), np.ones(1)), 0, proportion=True)
    assert rows["exact_match_df"][0] != pytest.approx(without.df)
    assert rows["exact_match"].tolist() == pytest.approx([13 / 18, 6 / 18])
    edits, characters = 1 - exact_matches(TWO)[0], [len(LABELS[place]) for place in (*range(4), *range(3), *range(2))]
    assert rows["cer"][0] == pytest.approx(edits.sum() / (2 * sum(characters)))  # not the mean over folds
    assert len(rows) == 2
    columns = ["num_images", "num_units", "num_seeds", "num_planned_seeds", "num_cells", "num_folds", "scope"]
    assert rows.loc[0, columns].tolist() == [9, 9, 2, 2, 6, 3, "architecture"]


def test_contrast_pairs_images_within_folds(tmp_path: Path) -> None:
    analysis = publish(tmp_path, TWO)
    expected = contrast(Scores(exact_matches(TWO).astype(float), np.ones(1), folds=FOLDS), [1, -1])
    line = analysis.contrasts[analysis.contrasts["metric"] == "exact_match"].iloc[0]
    assert line[["difference", "low", "high", "p"]].tolist() == pytest.approx(
        [expected.value, expected.low, expected.high, expected.p]
    )
    assert line[["num_seeds", "num_images"]].tolist() == [2, 9]
    (plan,) = plan_pairs(analysis.samples, 0.1)
    assert plan.folds == 3
    assert plan.plans[9].half_width == pytest.approx(half_width(expected.components, seeds=2, units=9))


def test_groups_of_folds_are_units(tmp_path: Path) -> None:
    groups = {0: ["p", "p", "q", ""], 1: ["r", "r", "r"], 2: ["s", ""]}
    rows = publish(tmp_path, TWO, groups).rows
    codes = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5])
    expected = row(Scores(exact_matches(TWO).astype(float), np.ones(1), codes, FOLDS), 0, proportion=True)
    assert rows["num_units"][0] == 6
    assert rows[["exact_match_low", "exact_match_high"]].loc[0].tolist() == pytest.approx([expected.low, expected.high])


def test_errors_have_the_intervals_of_folds(tmp_path: Path) -> None:
    analysis = publish(tmp_path, TWO)
    wrong = 1.0 - exact_matches(TWO)
    expected = row(Scores(wrong, np.ones(1), folds=FOLDS), 0, proportion=True)
    line = analysis.errors.iloc[0]
    assert line[["too_long", "too_long_low", "too_long_high"]].tolist() == pytest.approx(
        [expected.value, expected.low, expected.high]
    )
    assert line["num_texts"] == 18
    by_length = analysis.by_length.query("title == 'ResNet / columns / a'").set_index("length")
    places = [place for size in (4, 3, 2) for place in range(size)]
    for length in (1, 2, 3, 4):
        own = [place for place, label in enumerate(places) if len(LABELS[label]) == length]
        scores = Scores(exact_matches(TWO)[:1, :, own].astype(float), np.ones(1), folds=FOLDS[own])
        expected = row(scores, 0, proportion=True)
        found = by_length.loc[length, ["exact_match", "exact_match_low", "exact_match_high"]].tolist()
        assert found == pytest.approx([expected.value, expected.low, expected.high], nan_ok=True)


def test_seed_that_lacks_a_fold_is_no_seed_and_the_fold_is_named(tmp_path: Path) -> None:
    rows = {**TWO, "c": [["1101", "011", "11"], ["1111", None, "11"], ["1010", "-", "-"]]}
    analysis = publish(tmp_path, rows)
    only = Scores(exact_matches({"c": rows["c"][:1]}).astype(float), np.ones(1), folds=FOLDS)
    expected = row(only, 0, proportion=True)
    line = analysis.rows.iloc[2]
    assert line[["num_seeds", "num_planned_seeds", "num_cells", "num_failed", "scope"]].tolist() == [
        1, 3, 9, 1, "this trained model",
    ]  # fmt: skip
    assert line[["exact_match", "exact_match_low"]].tolist() == pytest.approx([expected.value, expected.low])
    assert analysis.samples.notes == [
        "a seed counts once all of its folds have a result; these lack one: ResNet / columns / c, seed 1, fold 1 and "
        "seed 2, folds 1, 2"
    ]
    table = markdown_table(analysis)
    assert "1 of 3 (note 1)" in table
    assert "note 1, failed: out of luck (ResNet / columns / c, seed 1, fold 1)" in table
    assert "pending: 2 of 21 cells" in table
    assert "1 model failed" in table
    seeds = analysis.contrasts.query("metric == 'exact_match'")["num_seeds"].tolist()
    assert seeds == [2, 1, 1]
    summary = summarize(load_frame(tmp_path)).iloc[2]
    assert summary[["exact_match_mean", "num_seeds"]].tolist() == pytest.approx([7 / 9, 1])


def test_rows_with_other_folds_are_other_image_sets(tmp_path: Path) -> None:
    analysis = publish(tmp_path, {**TWO, "c": [["1101", "011"], ["1111", "010"]]})
    assert analysis.rows["image_set"].tolist() == [0, 0, 1]
    assert analysis.rows["num_folds"].tolist() == [3, 3, 2]
    with pytest.raises(ConfigError, match="tested in other folds than ResNet / columns / a"):
        compare(analysis.samples, "exact_match", [(2, 0)])
    table = markdown_table(analysis)
    assert "rows were tested on images or labels of different data or folds; compare only within each of: (1)" in table
    assert len(compare(analysis.samples, "exact_match", find_pairs(analysis.samples, "ResNet / columns / a"))[0]) == 1


def test_same_images_in_other_folds_are_another_image_set(tmp_path: Path) -> None:
    directory = ResultsDirectory(tmp_path)
    cells = [make_row(name, fold=fold, folds=2) for name in ("a", "b") for fold in range(2)]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cells)))
    frames = {"a": (read_in_fold(0, "11"), read_in_fold(1, "10")), "b": (read_in_fold(1, "11"), read_in_fold(0, "10"))}
    for cell in cells:
        write_result(directory, cell, frames[cell.decoder.label][cell.fold or 0])
    assert load_report(tmp_path).samples.image_sets == [0, 1]


def test_report_says_what_folds_mean(tmp_path: Path) -> None:
    analysis = publish(tmp_path, TWO)
    table = markdown_table(analysis)
    assert (
        "each of 9 images was tested once by one model per seed; 3 folds; values are over the images of all folds, "
        "costs are means over models; models of different folds share training images, which the interval does not see"
    ) in table
    assert "from 2 seeds in 3 folds and 9 images" in table
    sections = build_sections(analysis, command=COMMAND)
    assert "trained with the same 2 seeds in each of 3 folds" in sections["methods"]
    assert "captcha (in 3 folds, each of 30 training, 5 validation, 2 to 4 test images)" in sections["methods"]
    assert sections["facts"]["Rows"] == "2, with seeds 0, 1, each in 3 folds"
    assert [value.text for line in sections["provenance"].rows for value in line[3:4]] == ["0", "1", "2"] * 4
    assert sections["row_plot"].drawing.count('class="seed') == 12
    assert analysis.results.recorded["fold"].tolist() == [0, 1, 2] * 4


def test_commands_say_what_folds_mean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path, TWO)
    status, printed, _ = call(capfd, "contrast", str(tmp_path), "--baseline", "b")
    assert status == 0
    assert "Each image was tested once per seed, in one of 3 folds; models of different folds share training" in printed
    status, printed, _ = call(capfd, "power", str(tmp_path), "--effect", "20")
    assert status == 0
    assert "points with 2 seeds in 3 folds and 9 images in the pilot" in printed
    assert "Seeds and images are those of 3 folds, as in the pilot: a seed is a model per fold." in printed


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([(0, None)], "seed 0"),
        ([(0, None), (1, None)], "seeds 0, 1"),
        ([(0, 2), (1, 2)], "seeds 0, 1, fold 2"),
        ([(0, 0), (0, 1), (0, 2), (1, 4)], "seed 0, folds 0 to 2 and seed 1, fold 4"),
    ],
)
def test_models_are_named_by_seed_and_fold(models: list[tuple[int, int | None]], text: str) -> None:
    assert models_text(models) == text
