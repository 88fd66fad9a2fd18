"""Samples: predictions of all rows, aligned between rows that were tested on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers.readings import make_predictions, make_row, publish_rows, read, write_result

from decoderbench.analysis import load_report
from decoderbench.analysis.samples import ENDINGS, ROW_COLUMNS, Samples
from decoderbench.config.cell import Cell
from decoderbench.metrics import Definition, built_in_definitions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord


def samples_of(directory: ResultsDirectory, **options: object) -> Samples:
    return load_report(directory.path, **options).samples  # type: ignore[arg-type]


def publish_files(path: Path, files: list[tuple[Cell, pd.DataFrame]]) -> ResultsDirectory:
    directory = ResultsDirectory(path)
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, _ in files)))
    for cell, frame in files:
        write_result(directory, cell, frame)
    return directory


def test_scores_have_rows_by_seeds_by_images_with_nan_where_a_cell_has_no_result(tmp_path: Path) -> None:
    samples = samples_of(publish_rows(tmp_path, {"a": ["110", None], "b": ["011", "111"]}))
    scores = samples.scores("exact_match", [0, 1])
    assert scores is not None
    assert scores.numerator.tolist()[0][0] == [1, 1, 0]
    assert np.isnan(scores.numerator[0, 1]).all()
    assert scores.numerator[1].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert (scores.denominator == 1).all()
    assert (samples.titles, samples.seeds, samples.image_sets) == (
        ["ResNet / columns / a", "ResNet / columns / b"],
        [0, 1],
        [0, 0],
    )


def test_numerators_of_cer_are_edits_and_denominators_characters(tmp_path: Path) -> None:
    scores = samples_of(publish_rows(tmp_path, {"a": ["0110"]})).scores("cer", [0])
    assert scores is not None
    assert scores.numerator.tolist() == [[[1, 0, 0, 1]]]
    assert scores.denominator.tolist() == [[[1, 2, 3, 1]]]


def test_rows_in_another_order_are_aligned_by_sample(tmp_path: Path) -> None:
    frame = read("1100")
    shuffled = frame.iloc[[2, 0, 3, 1]].reset_index(drop=True)
    samples = samples_of(publish_files(tmp_path, [(make_row("a"), frame), (make_row("b"), shuffled)]))
    scores = samples.scores("exact_match", [0, 1])
    assert scores is not None
    assert scores.numerator[:, 0].tolist() == [[1, 1, 0, 0]] * 2
    frames = samples.frame(0, 0), samples.frame(1, 0)
    assert frames[0] is not None
    assert frames[1] is not None
    assert frames[1]["sample"].tolist() == frames[0]["sample"].tolist() == frame["sample"].tolist()


@pytest.mark.parametrize("difference", ["sample", "reference", "number", "data"])
def test_rows_tested_on_other_images_or_labels_are_other_image_sets(tmp_path: Path, difference: str) -> None:
    other = {
        "sample": make_predictions(["a", "bc"], ["a", "b"], sample=["other", "test/0001"]),
        "reference": make_predictions(["a", "bd"], ["a", "b"]),
        "number": make_predictions(["a"], ["a"]),
        "data": make_predictions(["a", "bc"], ["a", "b"]),
    }[difference]
    row = make_row("b", data_hash="1" if difference == "data" else "0")
    files = [(make_row("a"), make_predictions(["a", "bc"], ["a", "b"])), (row, other)]
    samples = samples_of(publish_files(tmp_path, files))
    assert samples.image_sets == [0, 1]
    assert [samples.rows_of(number) for number in (0, 1)] == [[0], [1]]
    with pytest.raises(ValueError, match="tested on the same images only"):
        samples.scores("exact_match", [0, 1])
    assert load_report(tmp_path).contrasts.empty


def test_seed_tested_on_other_images_than_its_row_has_no_samples_and_a_note(tmp_path: Path) -> None:
    files = [(make_row("a", seed=seed), read(flags)) for seed, flags in enumerate(("110", "11", "110"))]
    samples = samples_of(publish_files(tmp_path, files))
    assert samples.image_sets == [0]
    assert samples.frame(0, 1) is None
    assert samples.notes == [
        "tested on other images or labels than the other seeds of the row (ResNet / columns / a, seed 1)"
    ]
    rows = load_report(tmp_path).rows
    assert rows["exact_match"][0] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert rows["exact_match_low"].isna().all()


@pytest.mark.parametrize("done", ["deleted", "replaced"])
def test_missing_predictions_leave_the_value_without_interval_and_contrast(tmp_path: Path, done: str) -> None:
    directory = publish_rows(tmp_path, {"a": ["110", "110"], "b": ["011", "111"]})
    file = directory.cell_directory(directory.read_plan().cells[0]) / "predictions.parquet"
    file.unlink()
    if done == "replaced":
        report = load_report(tmp_path)  # the file goes between the check of the record and this reading
        file.write_bytes(b"other")
    else:
        report = load_report(tmp_path)
    (note,) = report.samples.notes
    reason = "it is missing" if done == "deleted" else "it is not the file that the record was made with"
    assert note == (
        f"predictions.parquet: {reason}, so these cells have no interval and no contrast (ResNet / columns / a, seed 0)"
    )
    assert report.rows["exact_match"].tolist() == pytest.approx([2 / 3, 5 / 6])
    assert report.rows["exact_match_low"].isna().tolist() == [True, False]
    assert report.contrasts["num_seeds"].unique().tolist() == [1]


def test_number_that_is_not_the_sum_over_its_images_has_no_interval(tmp_path: Path) -> None:
    directory = publish_rows(tmp_path, {"a": ["110", "111"]})
    record = directory.read(directory.read_plan().cells[0])
    assert record is not None
    directory.update(record.model_copy(update={"metrics": record.metrics | {"cer": 0.26}}))
    report = load_report(tmp_path)
    assert report.samples.notes == [
        "cer: no interval, its numbers per image do not add up to its value (ResNet / columns / a, seed 0)"
    ]
    assert report.rows["cer_low"].isna().all()
    assert report.rows["cer"].tolist() == [0.13]
    assert report.rows["exact_match_low"].notna().all()


class Halves:
    """A metric of a plugin, with and without numbers per image."""

    sums: ClassVar = Definition("halves", "s", lambda texts: 0.5, True, lambda texts: ([0.5] * 3, [1.0] * 3))
    no_sums: ClassVar = Definition("halves", "s", lambda texts: 0.5)


@pytest.mark.parametrize(
    ("definition", "note"),
    [
        (Halves.sums, None),
        (Halves.no_sums, "halves: no interval, the metric gives no numbers per image"),
        (None, "halves: no interval, the plugin of this metric is not loaded"),
    ],
)
def test_metric_of_a_plugin_has_an_interval_if_it_gives_numbers_per_image(
    tmp_path: Path, definition: Definition | None, note: str | None
) -> None:
    directory = publish_rows(tmp_path, {"a": ["110", "111"]})
    for cell in directory.read_plan().cells:
        record = directory.read(cell)
        assert record is not None
        directory.update(record.model_copy(update={"metrics": record.metrics | {"halves": 0.5}}))
    known = dict(built_in_definitions()) | ({"halves": definition} if definition else {})
    report = load_report(tmp_path, metrics=known)
    assert report.samples.metrics[-1] == "halves"
    assert report.rows["halves"].tolist() == [0.5]
    assert report.rows["halves_low"].notna().tolist() == [note is None]
    assert report.samples.notes == ([note] if note else [])


def test_images_of_a_group_are_one_unit_and_others_units_of_their_own(tmp_path: Path) -> None:
    frame = read("110110").assign(group=["page 1", "page 1", "", "", "page 2", "page 1"])
    report = load_report(publish_files(tmp_path, [(make_row("a", seed=seed), frame) for seed in (0, 1)]).path)
    assert report.rows[["num_images", "num_units"]].values.tolist() == [[6, 4]]
    groups = report.samples.groups(0)
    assert groups is not None
    assert groups.tolist() == [0, 0, 1, 2, 3, 0]


def test_group_named_like_the_number_of_an_image_is_not_mixed_with_it(tmp_path: Path) -> None:
    frame = read("1101").assign(group=["", "0", "0", ""])
    report = load_report(publish_files(tmp_path, [(make_row("a"), frame)]).path)
    groups = report.samples.groups(0)
    assert groups is not None
    assert groups.tolist() == [0, 1, 1, 2]


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from decoderbench.analysis import samples

    directory = publish_rows(tmp_path, {"a": ["110", "111"], "b": ["110", "111"]})
    calls = []
    original = samples.read_predictions

    def reading(directory: ResultsDirectory, record: RunRecord, name: str) -> object:
        calls.append(record.cell.cell_id)
        return original(directory, record, name)

    monkeypatch.setattr(samples, "read_predictions", reading)
    report = load_report(directory.path)
    _ = report.rows, report.contrasts, report.effects, report.interactions, report.samples.notes
    assert sorted(calls) == sorted(cell.cell_id for cell in directory.read_plan().cells)


def test_terms_of_images_that_cannot_be_spelled_are_zero(tmp_path: Path) -> None:
    frame = make_predictions(["a", "é"], ["a", "x"], nll=[0.25, None])
    scores = samples_of(publish_files(tmp_path, [(make_row("a"), frame)])).scores("nats_per_char", [0])
    assert scores is not None
    assert scores.numerator.tolist() == [[[0.25, 0]]]
    assert scores.denominator.tolist() == [[[1, 0]]]


@pytest.mark.parametrize("name", ["seed", "title", "exact_match_low", "scope", "latency_ms", "seeds"])
def test_metric_named_like_another_column_is_in_no_table_and_a_warning_says_so(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = publish_rows(tmp_path, {"a": ["110"], "b": ["111"]})
    for cell in directory.read_plan().cells:
        record = directory.read(cell)
        assert record is not None
        directory.update(record.model_copy(update={"metrics": record.metrics | {name: 7.0, "words": 0.25}}))
    report = load_report(tmp_path)
    assert report.samples.metrics[4:] == ["words"]
    assert f"metric {name!r} is in no table: it has the name of another column; rename it" in caplog.messages
    assert report.rows["words"].tolist() == [0.25, 0.25]
    assert report.rows["exact_match_low"].max() < 1
    assert report.rows["title"].tolist() == report.samples.titles


def test_known_names_of_columns_are_those_of_the_rows(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": ["110"]}).path)
    own = {f"{metric}{end}" for metric in report.samples.metrics for end in ENDINGS}
    assert set(report.rows.columns) - own <= ROW_COLUMNS
