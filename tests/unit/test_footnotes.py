"""Footnotes of tables and figures: rows that were not made, or not measured, like the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from helpers.readings import publish_rows as publish_readings
from helpers.recording import COMMAND, make_cell, make_record, publish, table_rows

from decoderbench.records.schema import Cost
from decoderbench.report import load_frame, load_report, load_results, markdown_table, summarize, write_report
from decoderbench.report.comparison_tables import NOT_ALIKE, effect_tables

HERE = {
    "machine": "AMD EPYC",
    "threads": "1",
    "jobs": "1",
    "measured": "alone",
    "cpu_capability": "AVX2",
    "float32": "ieee",
    "auto_precision": "float32",
    "torch": "2.11",
    "timm": "1.0.22",
    "decoderbench": "0.1.0",
    "python": "3.12",
    "commit": "abc",
    "sources": "s1",
    "dataset_source": "d1",
}
TIMES = ("note", "not measured like the rest")


def publish_rows(path: Path, rows: dict[str, list[dict[str, str]]]) -> Path:
    """Publish one row per decoder and one seed per environment; what an environment does not name is as `HERE`."""
    cells, records = [], []
    for number, (decoder, environments) in enumerate(rows.items()):
        for seed, changes in enumerate(environments):
            cell = make_cell(decoder, seed)
            environment = {name: value for name, value in (HERE | changes).items() if value}
            cost = Cost(latency_ms=2.0 + number, train_samples_per_sec=5000.0, train_peak_memory_mb=100.0)
            cells.append(cell)
            records.append(make_record(cell, environment=environment, device=environment.get("machine", ""), cost=cost))
    publish(path, cells, records)
    return path


def shown(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return seeds, ms/image and train img/s of each row, and the notes on rows."""
    text = markdown_table(load_report(path))
    rows = {row[2]: [row[7], *row[10:12]] for row in table_rows(text)}
    notes = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
    return rows, [note for note in notes if not note.startswith(("nothing is bold", "tuned for none", "predictions"))]


def test_rows_made_alike_have_no_footnotes(tmp_path: Path) -> None:
    rows, notes = shown(publish_rows(tmp_path, {"CTC": [{}, {}], "loop": [{}, {}]}))
    assert rows == {"CTC": ["2", "2.00", "5000"], "loop": ["2", "3.00", "5000"]}
    assert notes == []


@pytest.mark.parametrize(
    ("name", "value", "words", "costly"),
    [
        ("machine", "Xeon", "device Xeon, not AMD EPYC", True),
        ("threads", "2", "threads 2, not 1", True),
        ("cpu_capability", "AVX512", "CPU capability AVX512, not AVX2", True),
        ("float32", "products in tf32", "float32 products in tf32, not ieee", True),
        ("auto_precision", "bfloat16", "precision auto bfloat16, not float32", True),
        ("torch", "2.10", "torch 2.10, not 2.11", True),
        ("timm", "1.0.20", "timm 1.0.20, not 1.0.22", False),
        ("decoderbench", "0.0.9", "decoderbench 0.0.9, not 0.1.0", False),
        ("python", "3.11", "Python 3.11, not 3.12", False),
        ("commit", "def", "commit def, not abc", False),
        ("sources", "s0", "decoderbench sources s0, not s1", False),
        ("dataset_source", "d0", "dataset source d0, not d1", False),
    ],
)
def test_row_made_under_other_conditions_has_a_footnote_and_its_times_a_mark(
    tmp_path: Path, name: str, value: str, words: str, costly: bool
) -> None:
    odd = {name: value}
    rows, notes = shown(publish_rows(tmp_path, {"CTC": [{}, {}], "loop": [odd, odd], "attention": [{}, {}]}))
    mark = " (note 1)" if costly else ""
    assert rows["CTC"] == ["2", "2.00", "5000"]
    assert rows["loop"] == ["2 (note 1)", f"3.00{mark}", f"5000{mark}"]
    assert notes[0].replace("\\", "") == (
        f"note 1, made under other conditions: {words} (ResNet / columns / loop, seeds 0, 1)"
    )
    assert [note.startswith("times with a note") for note in notes[1:]] == [True] * costly


def test_seeds_of_a_row_that_were_not_measured_alike_have_no_mean_cost(tmp_path: Path) -> None:
    path = publish_rows(tmp_path, {"CTC": [{}, {"threads": "2"}, {}], "loop": [{}, {}, {}]})
    rows, notes = shown(path)
    assert rows["CTC"] == ["3 (note 1)", "n/a (note 1)", "n/a (note 1)"]
    assert rows["loop"] == ["3", "3.00", "5000"]
    assert "(ResNet / columns / CTC, seed 1)" in notes[0]
    summary = summarize(load_frame(path)).set_index("decoder")
    assert summary["latency_ms"].isna().tolist() == [True, False]
    assert summary["train_peak_memory_mb"].isna().tolist() == [True, False]
    assert summary["exact_match_mean"].tolist() == [0.5, 0.5]
    assert summary["param_count"].notna().all()


def test_row_trained_with_other_jobs_has_a_mark_at_its_training_rate_alone(tmp_path: Path) -> None:
    odd = {"jobs": "4"}
    rows, notes = shown(publish_rows(tmp_path, {"CTC": [{}, {}], "loop": [odd, odd], "attention": [odd, {}, {}]}))
    assert rows["CTC"] == ["2", "2.00", "5000"]
    assert rows["loop"] == ["2 (note 1)", "3.00", "5000 (note 1)"]
    assert rows["attention"] == ["3 (note 1)", "4.00", "n/a (note 1)"]
    assert notes[0].startswith("note 1, made under other conditions: jobs 4, not 1 (")


def test_number_of_jobs_that_all_rows_were_trained_with_is_stated(tmp_path: Path) -> None:
    odd = {"jobs": "4"}
    rows, notes = shown(publish_rows(tmp_path / "all", {"CTC": [odd, odd], "loop": [odd]}))
    assert rows["CTC"] == ["2", "2.00", "5000"]
    assert notes == ["train img/s were measured with 4 cells trained side by side"]
    _, notes = shown(publish_rows(tmp_path / "most", {"CTC": [odd, odd], "loop": [{}]}))
    assert notes[0].startswith("note 1, made under other conditions: jobs 1, not 4 (")
    assert notes[2] == (
        "train img/s were measured with 4 cells trained side by side, except where a note says otherwise"
    )


@pytest.mark.parametrize("others", [{}, {"measured": "beside other cells"}, {"measured": ""}])
def test_latency_that_others_may_have_disturbed_has_a_mark_even_if_all_rows_have_it(
    tmp_path: Path, others: dict[str, str]
) -> None:
    odd = {"measured": "beside other cells"}
    rows, notes = shown(publish_rows(tmp_path, {"CTC": [others, others], "loop": [odd, odd]}))
    mark = " (note 1)" if others.get("measured") else ""
    assert rows["CTC"] == [f"2{mark}", f"2.00{mark}", "5000"]
    assert rows["loop"] == ["2 (note 1)", "3.00 (note 1)", "5000"]
    assert notes[0].startswith("note 1, latency and throughput were measured beside other cells (")
    assert notes[0].endswith("ResNet / columns / loop, seeds 0, 1)")
    assert len(notes) == 2


def test_seeds_of_other_commits_keep_their_mean_cost(tmp_path: Path) -> None:
    rows, notes = shown(publish_rows(tmp_path, {"CTC": [{}, {"commit": "def"}]}))
    assert rows["CTC"] == ["2 (note 1)", "2.00", "5000"]
    assert notes == ["note 1, made under other conditions: commit def, not abc (ResNet / columns / CTC, seed 1)"]


def test_differences_of_several_kinds_are_separate_notes_after_those_on_failures(tmp_path: Path) -> None:
    odd = {"torch": "2.10", "threads": "2"}
    path = publish_rows(tmp_path, {"CTC": [{}, {}, {}], "loop": [odd, {"commit": "x"}, odd]})
    results = load_results(path)
    failed = make_record(results.plan.cells[2], status="failed", reason="broke")
    results.directory.publish(failed)
    rows, notes = shown(path)
    assert [note.partition(" (")[0] for note in notes[:3]] == [
        "note 1, failed: broke",
        "note 2, made under other conditions: threads 2, not 1; torch 2.10, not 2.11",
        "note 3, made under other conditions: commit x, not abc",
    ]
    assert rows["CTC"] == ["2 of 3 (note 1)", "2.00", "5000"]
    assert rows["loop"] == ["3 (notes 2, 3)", "n/a (note 2)", "n/a (note 2)"]


def test_of_two_equally_frequent_conditions_the_first_is_that_of_the_rest(tmp_path: Path) -> None:
    rows, _ = shown(publish_rows(tmp_path, {"CTC": [{"machine": "one"}], "loop": [{"machine": "two"}]}))
    assert rows["CTC"][1:] == ["2.00", "5000"]
    assert rows["loop"][1:] == ["3.00 (note 1)", "5000 (note 1)"]


def test_conditions_that_only_earlier_versions_did_not_record_are_named(tmp_path: Path) -> None:
    old = {"sources": "", "dataset_source": "", "machine": "AMD EPYC, 1 threads"}
    rows, notes = shown(publish_rows(tmp_path / "mixed", {"CTC": [old, old], "loop": [{}, {}]}))
    assert rows["CTC"] == ["2", "2.00", "5000"]
    assert notes == [
        "not compared, because an earlier version did not record it: decoderbench sources (ResNet / columns / CTC, "
        "seeds 0, 1)"
    ]
    assert shown(publish_rows(tmp_path / "old", {"CTC": [old], "loop": [old]}))[1] == []


def test_pending_and_failed_cells_decide_no_condition(tmp_path: Path) -> None:
    path = publish_rows(tmp_path, {"CTC": [{}, {}], "loop": [{}, {}]})
    directory = load_results(path).directory
    for cell in load_results(path).plan.cells[1:]:
        directory.publish(make_record(cell, status="failed", reason="broke", environment=HERE | {"torch": "2.10"}))
    _, notes = shown(path)
    assert [note.partition(" (")[0] for note in notes] == ["note 1, failed: broke"]


def test_cells_csv_tells_cells_of_different_conditions_apart(tmp_path: Path) -> None:
    path = publish_rows(tmp_path, {"CTC": [{}, {"threads": "2", "torch": "2.10", "machine": "Xeon"}]})
    write_report(path, command=COMMAND)
    read = pd.read_csv(path / "tables/cells.csv", dtype=str, keep_default_na=False)
    assert read[["device", "threads", "torch", "commit", "sources"]].values.tolist() == [
        ["AMD EPYC", "1", "2.11", "abc", "s1"],
        ["Xeon", "2", "2.10", "abc", "s1"],
    ]
    latex = (path / "tables/main.tex").read_text(encoding="utf-8")
    assert latex.count("n/a (note 1)") == 1, "ms/image; a paper has no room for train img/s"
    assert "note 1, made under other conditions: device Xeon, not AMD EPYC" in latex


def texts(drawing: Path) -> str:
    return " ".join("".join(element.itertext()) for element in ElementTree.parse(drawing).findall(".//{*}text"))


def test_latency_figure_marks_points_that_were_not_measured_alike(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {"CTC": [{}], "loop": [{"threads": "2"}], "attention": [{}]}
    for name, changed in (("alike", {"CTC": [{}], "loop": [{}]}), ("unlike", rows)):
        write_report(publish_rows(tmp_path / name, changed), command=COMMAND)
    assert "note" not in texts(tmp_path / "alike" / "figures/accuracy_vs_latency.svg")
    unlike = texts(tmp_path / "unlike" / "figures/accuracy_vs_latency.svg")
    assert "loop (note 1)" in unlike
    assert "CTC (note" not in unlike
    assert "Times were not all measured alike" in unlike


def test_effects_of_stages_say_if_cells_were_not_made_alike(tmp_path: Path) -> None:
    for name, torch in (("alike", "2.11"), ("unlike", "2.10")):
        rows = {(encoder, "p", decoder): ["10"] for encoder in "xy" for decoder in "ab"}
        directory = publish_readings(tmp_path / name, rows)
        for cell, version in zip(directory.read_plan().cells, ["2.11", "2.11", "2.11", torch], strict=True):
            record = directory.read(cell)
            assert record is not None
            directory.update(record.model_copy(update={"environment": HERE | {"torch": version}}))
    tables = {name: effect_tables(load_report(tmp_path / name)) for name in ("alike", "unlike")}
    assert [NOT_ALIKE in table.notes for table in tables["alike"]] == [False, False]
    assert [NOT_ALIKE in table.notes for table in tables["unlike"]] == [True, True]
