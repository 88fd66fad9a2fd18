"""Rows, their differences and what is bold: against the estimator, and as the tables show them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.readings import make_row, publish_rows, read, write_result
from helpers.recording import header, make_record, table_rows

from decoderbench.analysis import load_report
from decoderbench.errors import ConfigError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from decoderbench.report import check_columns, markdown_table
from decoderbench.report.comparison_tables import MANY, contrast_tables
from decoderbench.report.main_table import main_table, paper_table
from decoderbench.report.sections import frames_of
from decoderbench.report.tables import to_csv
from decoderbench.statistics import Scores, all_pairs, row

GOOD = ["1" * 39 + "0", "0" + "1" * 39, "1" * 40]
FAIR = ["1" * 38 + "00", "1" * 40, "1" * 39 + "0"]
POOR = ["10" * 20, "01" * 20, "1001" * 10]


def flags(*rows: list[str]) -> Scores:
    return Scores(np.array([[list(map(float, seed)) for seed in seeds] for seeds in rows]), np.ones(40))


def test_value_and_interval_of_a_row_are_those_of_the_estimator(tmp_path: Path) -> None:
    rows = load_report(publish_rows(tmp_path, {"good": list(GOOD), "poor": list(POOR)}).path).rows
    for position, name in enumerate(("good", "poor")):
        expected = row(flags(GOOD, POOR), position, proportion=True)
        own = rows[rows["decoder"] == name].iloc[0]
        found = own[["exact_match", "exact_match_low", "exact_match_high", "exact_match_df"]].tolist()
        assert found == pytest.approx([expected.value, expected.low, expected.high, expected.df])
    assert rows[["num_images", "num_units", "num_seeds", "image_set"]].values.tolist() == [[40, 40, 3, 0]] * 2
    assert rows["cer_low"].tolist()[0] >= 0


def test_contrasts_are_all_pairs_of_rows_with_p_adjusted_over_them(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": list(GOOD), "b": list(FAIR), "c": list(POOR)}).path)
    own = report.contrasts[report.contrasts["metric"] == "exact_match"]
    expected = all_pairs(flags(GOOD, FAIR, POOR))
    assert own[["index_a", "index_b"]].values.tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_allclose(own["difference"], [pair.estimate.value for pair in expected])
    np.testing.assert_allclose(own["low"], [pair.estimate.low for pair in expected])
    np.testing.assert_allclose(own["p_holm"], [pair.p_holm for pair in expected])
    assert own["axis"].tolist() == ["decoder"] * 3
    assert own["row_b"].tolist()[0] == "ResNet / columns / b"


def test_axis_of_a_contrast_is_empty_if_rows_differ_in_several_stages(tmp_path: Path) -> None:
    rows = {("A", "p", "x"): ["10"], ("A", "q", "x"): ["11"], ("B", "p", "y"): ["10"]}
    contrasts = load_report(publish_rows(tmp_path, rows).path).contrasts  # type: ignore[arg-type]
    own = contrasts[contrasts["metric"] == "exact_match"]
    assert own["axis"].tolist() == ["bridge", "", ""]
    assert own["scope"].unique().tolist() == ["this trained model"]


def test_difference_of_proportions_has_no_interval_beyond_100_points(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": ["11", "11", "10"], "b": ["00", "00", "10"]}).path)
    own = report.contrasts[report.contrasts["metric"] == "exact_match"]
    assert own["high"].tolist() == [1.0]
    effects = report.effects[report.effects["metric"] == "exact_match"]
    assert effects["low"].tolist()[1] == -1.0


def test_bold_are_the_rows_that_no_row_is_shown_to_beat(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"good": list(GOOD), "fair": list(FAIR), "poor": list(POOR)}).path)
    assert report.rows["exact_match_bold"].tolist() == [True, True, False]
    assert report.rows["cer_bold"].tolist() == [True, True, False], "lower is better"
    table = main_table(report)
    column = table.headers.index("Exact match (%)")
    assert {place for place in table.bold if place[1] == column} == {(0, column), (1, column)}
    lines = table.markdown().splitlines()
    assert "| **98.3 [" in lines[2]
    assert "**" not in lines[4].split("|")[4]
    (note,) = [note for note in table.notes if note.startswith("bold")]
    assert note.startswith("bold: not shown to be worse; no other row beats it with p at most .05, adjusted by Holm")
    assert "over all 3 pairs of rows" in note
    latex = paper_table(report).latex("demo")
    assert r"good & \textbf{98.3 {[}" in latex
    assert latex.count(r"\textbf") == 4


@pytest.mark.parametrize(
    "rows",
    [
        {"only": GOOD},
        {"a": GOOD[:1], "b": POOR[:1]},
        {"a": GOOD, "b": POOR[:1]},
        {"a": GOOD, "b": [None, None]},
    ],
)
def test_nothing_is_bold_unless_two_rows_have_two_seeds_and_a_note_says_so(
    tmp_path: Path, rows: dict[str, list[str | None]]
) -> None:
    report = load_report(publish_rows(tmp_path, rows).path)  # type: ignore[arg-type]
    assert not report.rows[["exact_match_bold", "cer_bold", "nats_per_char_bold"]].any(axis=None)
    text = markdown_table(report)
    assert "**" not in text
    assert "- nothing is bold: that needs two rows with at least two seeds each, tested on the same images" in text


def test_row_with_one_seed_is_neither_bold_nor_makes_another_row_worse(tmp_path: Path) -> None:
    rows = {"a": list(FAIR), "b": list(FAIR), "one": ["1" * 40], "bad": ["0" * 40]}
    report = load_report(publish_rows(tmp_path, rows).path)  # type: ignore[arg-type]
    assert report.rows["exact_match_bold"].tolist() == [True, True, False, False]
    assert report.rows["scope"].tolist() == ["architecture", "architecture", *["this trained model"] * 2]
    notes = [note for note in main_table(report).notes if "interval" in note]
    assert notes[0].startswith(
        "in brackets the 95 % confidence interval of the mean over training runs and images of the same kind,"
    )
    assert notes[0].endswith("from 3 seeds and 40 images")
    assert notes[1].startswith("rows with one seed: in brackets the 95 % interval of this trained model")


def test_rows_of_other_images_are_bold_among_themselves_and_a_note_names_the_sets(tmp_path: Path) -> None:
    directory = ResultsDirectory(tmp_path)
    plan = [(make_row("a", seed=seed), flags) for seed, flags in enumerate(GOOD)]
    plan += [(make_row("b", seed=seed), flags) for seed, flags in enumerate(POOR)]
    plan += [(make_row("c", seed=seed, data_hash="1"), flags) for seed, flags in enumerate(POOR)]
    plan += [(make_row("d", seed=seed, data_hash="1"), flags) for seed, flags in enumerate(POOR)]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cell for cell, _ in plan)))
    for cell, correct in plan:
        write_result(directory, cell, read(correct))
    report = load_report(tmp_path)
    assert report.rows["image_set"].tolist() == [0, 0, 1, 1]
    assert report.rows["exact_match_bold"].tolist() == [True, False, True, True]
    assert set(report.contrasts[["index_a", "index_b"]].itertuples(index=False, name=None)) == {(0, 1), (2, 3)}
    notes = main_table(report).notes
    assert any("no other row that was tested on the same images beats it" in note for note in notes)
    (note,) = [note for note in notes if note.startswith("rows were tested on images or labels of different data")]
    assert note.endswith(
        ": (1) ResNet / columns / a, ResNet / columns / b; (2) ResNet / columns / c, ResNet / columns / d"
    )
    assert [table.name for table in contrast_tables(report)] == ["contrasts-1", "contrasts-2"]


def test_same_images_at_another_size_are_compared(tmp_path: Path) -> None:
    directory = ResultsDirectory(tmp_path)
    cells = [make_row(name, data_hash=name, dataset_hash="same") for name in "ab"]
    directory.write_plan(Plan(experiment="demo", command="run", cells=tuple(cells)))
    for cell in cells:
        write_result(directory, cell, read("1011"))
    assert load_report(tmp_path).rows["image_set"].tolist() == [0, 0]


def test_row_says_what_is_wrong_with_its_seeds(tmp_path: Path) -> None:
    directory = publish_rows(tmp_path, {"a": [*GOOD[:2], None], "b": list(POOR)})
    cell = directory.read_plan().cells[2]
    directory.publish(make_record(cell, status="infeasible", reason="needs 9 frames, has 4"))
    assert table_rows(markdown_table(load_report(tmp_path)).replace("**", ""))[0][-1] == "infeasible"
    directory.publish(make_record(cell, status="failed", reason="broke"))
    rows = table_rows(markdown_table(load_report(tmp_path)).replace("**", ""))
    assert rows[0][7] == "2 of 3 (note 1)"
    assert [line[-1] for line in rows] == ["1 seed failed", ""]


def test_difference_table_states_estimate_interval_p_seeds_and_images(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": list(GOOD), "b": list(FAIR)}).path)
    (table,) = contrast_tables(report)
    own = report.contrasts[report.contrasts["metric"] == "exact_match"].iloc[0]
    assert table.headers == ["Row", "Compared with", "Difference", "p", "p (Holm)", "Seeds", "Images"]
    interval = f"{100 * own['difference']:+.1f} [{100 * own['low']:+.1f}, {100 * own['high']:+.1f}]"
    assert table.rows == [["a", "b", interval, f"{own['p']:.3f}", f"{own['p_holm']:.3f}", "3", "40"]]


def test_difference_table_of_many_rows_compares_the_observed_best_with_every_other_row(tmp_path: Path) -> None:
    rows = {f"d{number}": [POOR[0], POOR[1]] for number in range(3)} | {"best": GOOD[:2]}
    rows |= {f"e{number}": [POOR[0], POOR[1]] for number in range(3)}
    report = load_report(publish_rows(tmp_path, rows).path)
    own = report.contrasts[report.contrasts["metric"] == "exact_match"]
    assert len(own) == 21 > MANY
    (table,) = contrast_tables(report)
    assert [line[:2] for line in table.rows] == [["best", name] for name in ("d0", "d1", "d2", "e0", "e1", "e2")]
    assert all(line[2].startswith("+") for line in table.rows)
    turned = own[(own["index_a"] == 0) & (own["row_b"].str.endswith("best"))].iloc[0]
    low, high = -100 * turned["high"], -100 * turned["low"]
    assert table.rows[0][2] == f"+{-100 * turned['difference']:.1f} [{low:+.1f}, {high:+.1f}]"
    assert "p (Holm) is adjusted over all 21 pairs of rows" in table.notes[1]


def test_columns_choose_what_the_main_table_shows_and_the_seeds_stay(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": list(GOOD), "b": list(POOR)}).path)
    text = markdown_table(report, ["nats_per_char", "latency_ms", "gmacs"])
    assert header(text)[3:] == ["Nats/char", "Seeds", "ms/image", "GMACs"]
    assert paper_table(report).headers == ["Decoder", "Exact match (%)", "CER (%)", "Seeds", "Params (M)", "ms/image"]
    assert paper_table(report, ["one_minus_ned"]).headers == ["Decoder", "1-NED (%)", "Seeds"]


def test_unknown_column_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    report = load_report(publish_rows(tmp_path, {"a": ["10"]}).path)
    with pytest.raises(
        ConfigError, match=r"^--columns exact_mach: there is no such column; did you mean 'exact_match'\?"
    ):
        check_columns(report, ["cer", "exact_mach"])
    check_columns(report, ["cer", "seeds", "latency_ms"])


def test_report_over_pending_cells_has_the_rows_that_are_done(tmp_path: Path) -> None:
    directory = publish_rows(tmp_path, {"a": list(GOOD), "b": list(POOR)})
    plan = directory.read_plan()
    later = tuple(make_row("later", seed=seed) for seed in range(2))
    directory.write_plan(plan.model_copy(update={"cells": (*plan.cells, *later)}))
    text = markdown_table(load_report(tmp_path))
    assert "- pending: 2 of 8 cells" in text
    assert table_rows(text.replace("**", ""))[2][3:8] == [*["n/a"] * 4, "0 of 2"]


def test_every_csv_keeps_labels_that_readers_like_to_change(tmp_path: Path) -> None:
    labels = ["007", "NA", "=1+1", 'say "hi"', "a\nb", "c\rd", "e\r\nf", " lead", "1e5", "x,y;z", "null"]
    report = load_report(publish_rows(tmp_path, {label: ["10", "01"] for label in labels}).path)
    frames = frames_of(report)
    assert {"cells", "main", "contrasts", "effects"} <= frames.keys()
    for name, frame in frames.items():
        content = to_csv(frame)
        rows = list(csv.reader(io.StringIO(content, newline="")))
        read = pd.read_csv(io.StringIO(content, newline=""), dtype=str, keep_default_na=False)
        assert rows == [list(read.columns), *read.values.tolist()], name
        for column in frame.columns[frame.dtypes == "str"]:
            assert read[column].tolist() == frame[column].fillna("").tolist(), (name, column)
    assert frames["main"]["decoder"].tolist() == labels


def test_report_command_refuses_an_unknown_column_and_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish_rows(tmp_path, {"a": list(GOOD), "b": list(POOR)})
    before = sorted(tmp_path.rglob("*"))
    status, out, err = call(capfd, "report", str(tmp_path), "--columns", "cer,exact_mach")
    assert (status, out) == (2, "")
    assert "--columns exact_mach: there is no such column; did you mean 'exact_match'?" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("columns", "rule"), [("", "there is no such column"), ("cer,cer", "cer: is named twice")])
def test_report_refuses_columns_that_are_empty_or_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], columns: str, rule: str
) -> None:
    publish_rows(tmp_path, {"a": list(GOOD), "b": list(POOR)})
    status, out, err = call(capfd, "report", str(tmp_path), "--columns", columns)
    assert (status, out, rule in err) == (2, "", True)
    assert not (tmp_path / "report.md").exists()
