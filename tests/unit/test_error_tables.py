"""Tables of errors in a report, from published predictions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.readings import make_predictions, make_row, publish_rows, write_result
from helpers.recording import make_record, publish

from decoderbench.analysis import Analysis, load_report
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.report.error_tables import (
    MANY,
    agreement_table,
    all_wrong_table,
    alone_table,
    calibration_table,
    calibration_tables,
    confusion_table,
    error_table,
    error_tables,
    wrong_text_table,
)
from decoderbench.report.tables import Table


def publish_texts(path: Path, rows: dict[str, list[list[str]]], references: list[str], **more: object) -> Analysis:
    """Publish rows with the texts of each seed; `more` are further columns of the predictions."""
    cells = [make_row(name, seed=seed) for name, seeds in rows.items() for seed in range(len(seeds))]
    directory: ResultsDirectory = publish(path, cells, [])
    texts = [own for seeds in rows.values() for own in seeds]
    for cell, own in zip(cells, texts, strict=True):
        write_result(directory, cell, make_predictions(references, own, **more))
    return load_report(path)


def column(table: Table | None, header: str) -> list[str]:
    assert table is not None
    return [row[list(table.headers).index(header)] for row in table.rows]


REFERENCES = ["AAB", "AB", "A ", "C"]


def test_rates_of_edits_and_wrong_texts_have_intervals(tmp_path: Path) -> None:
    analysis = publish_texts(tmp_path, {"a": [["AB", "AC", "A ", "C"], ["AAB", "AB", "A ", ""]]}, REFERENCES)
    edits = error_table(analysis)
    # Of 16 characters one A of AAB was dropped, B was read as C, C was lost.
    assert [column(edits, name)[0].split()[0] for name in ("Substitutions", "Deletions", "Repeats dropped")] == [
        "6.25",
        "12.50",
        "6.25",
    ]
    row = analysis.errors.to_dict("records")[0]
    assert column(edits, "Deletions") == [f"12.50 [{row['deletions_low']:.2f}, {row['deletions_high']:.2f}]"]
    wrong = wrong_text_table(analysis)
    assert [column(wrong, name)[0].split()[0] for name in ("As long (%)", "Too short (%)", "Empty (%)")] == [
        "12.50"
    ] * 3
    assert column(wrong, "Texts") == ["8"]


def test_confusions_name_characters_that_cannot_be_seen(tmp_path: Path) -> None:
    analysis = publish_texts(tmp_path, {"a": [["AB", "AC", "A", "CD"]]}, REFERENCES)
    assert column(confusion_table(analysis), "Label as text (count)") == [
        "D added (1), U+0020 lost (1), A lost (1), B as C (1)"
    ]


def test_agreement_of_rows_in_percent_of_images_and_common_seeds(tmp_path: Path) -> None:
    analysis = load_report(publish_rows(tmp_path, {"a": ["1100", "1111"], "b": ["1010", None]}).path)
    pairs = agreement_table(analysis)
    cases = ["Both (%)", "Only A (%)", "Only B (%)", "Neither (%)", "Seeds", "Images"]
    assert [column(pairs, case)[0] for case in cases] == ["25.0", "25.0", "25.0", "25.0", "1", "4"]
    assert column(alone_table(analysis), "Only this right (%)") == ["25.00", "25.00"]


def test_pairs_of_many_rows_are_those_that_differ_most(tmp_path: Path) -> None:
    rows = {f"d{number}": [f"{number:06b}"] for number in (0, 63, 1, 2, 3, 4, 7)}
    table = agreement_table(load_report(publish_rows(tmp_path, rows).path))
    assert table is not None
    assert len(table.rows) == MANY
    assert table.rows[0][2:6] == ["0.0", "0.0", "100.0", "0.0"]
    assert "the 15 of 21 pairs" in table.notes[0]


def test_images_that_all_rows_read_wrong_are_listed(tmp_path: Path) -> None:
    texts = [["x", "AB", "y", "C"], ["z", "AB", "y", "C"]]
    analysis = publish_texts(tmp_path, {"a": texts, "b": [["z", "AB", "y", "D"]]}, REFERENCES)
    table = all_wrong_table(analysis)
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["test/0002", "A ", "y", "100", "1"],
        ["test/0000", "AAB", "z", "67", "2"],
    ]


def test_calibration_is_shown_with_a_note_on_rows_without_probabilities(tmp_path: Path) -> None:
    cells = [make_row("a"), make_row("old")]
    directory = publish(tmp_path, cells, [])
    texts = ["AAB", "AB", "x", "C"]
    half = {"text_log_prob": [math.log(0.5)] * 4}
    write_result(directory, cells[0], make_predictions(REFERENCES, texts, **half))
    write_result(directory, cells[1], make_predictions(REFERENCES, texts))
    table = calibration_table(load_report(tmp_path))
    assert table is not None
    assert [list(row)[1:] for row in table.rows] == [["75.0", "50.0", "25.0", "25.00", "1"], ["n/a"] * 4 + ["1"]]
    assert "an earlier version" in table.notes[-1]
    assert "old" in table.notes[-1]


@pytest.mark.parametrize("status", ["failed", "pending"])
def test_results_without_predictions_have_no_tables_of_errors(tmp_path: Path, status: str) -> None:
    cell = make_row("a")
    publish(tmp_path, [cell], [make_record(cell, status="failed", reason="out of luck")] * (status == "failed"))
    analysis = load_report(tmp_path)
    assert error_tables(analysis) == []
    assert calibration_tables(analysis) == []
