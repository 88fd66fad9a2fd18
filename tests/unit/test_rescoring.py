"""Metrics of done cells are computed again where their source changed; else two definitions in a column are noted."""

import hashlib
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.commands import call
from helpers.recording import make_cell, publish
from helpers.running import TINY_PLUGIN
from helpers.training import observe, train

from decoderbench.analysis import Analysis
from decoderbench.config.cell import Cell
from decoderbench.metrics import Definition, Transcriptions, built_in_definitions, edit_distances, sources_of
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord
from decoderbench.registry.metric_definitions import definitions_of
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.report import Results, load_report, load_results, markdown_table, write_files
from decoderbench.runs import rescoring
from decoderbench.runs.rescoring import rescore

REFERENCES = ["ab", "ba", "aab", "b"]
RIGHT, HALF, WRONG = REFERENCES, ["ab", "ba", "x", "y"], ["", "a", "b", "bbb"]
OUTDATED = "0" * 16

PLUGIN = """
from decoderbench import Metric, hookimpl

class WordAccuracy(Metric):
    name = "word_accuracy"

    def score(self, references, hypotheses):
        return {expression}

@hookimpl
def register_metrics():
    return [WordAccuracy]
"""
SHARE = "sum(map(str.__eq__, references, hypotheses)) / len(references)"
NUMBER = "sum(map(str.__eq__, references, hypotheses))"


def write_plugin(path: Path, expression: str) -> Path:
    file = path / "word_accuracy.py"
    file.write_text(PLUGIN.format(expression=expression))
    return file


def definitions_from(file: Path) -> dict[str, Definition]:
    return definitions_of(build_plugin_manager([str(file)], installed=False, builtin=False))


def make_done(cell: Cell, hypotheses: Sequence[str], directory: ResultsDirectory, **changes: Any) -> RunRecord:
    """Write predictions and return the record that a run with the built-in metrics alone would have made of them."""
    nll = [0.5 + cell.seed, 1.0, None, 2.0]
    texts = Transcriptions(REFERENCES, hypotheses, nll)
    columns = {
        "sample": list("0123"),
        "reference": REFERENCES,
        "hypothesis": hypotheses,
        "log_prob": [-1.0] * 4,
        "nll": nll,
        "edit_distance": edit_distances(REFERENCES, hypotheses),
    }
    content = pd.DataFrame(columns).to_parquet(index=False)
    file = predictions(directory, cell)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    fields: dict[str, Any] = {
        "status": "done",
        "metrics": {name: definition.score(texts) for name, definition in built_in_definitions().items()},
        "metric_sources": sources_of(built_in_definitions().values()),
        "num_test": 4,
    }
    return RunRecord(cell=cell, **fields | changes)


@pytest.fixture
def directory(tmp_path: Path) -> ResultsDirectory:
    """Two done cells, with seeds 0 and 1: all right, and half right."""
    directory = ResultsDirectory(tmp_path / "results")
    cells = [make_cell(seed=0), make_cell(seed=1)]
    records = [make_done(cell, texts, directory) for cell, texts in zip(cells, (RIGHT, HALF), strict=True)]
    return publish(directory.path, cells, records)


def predictions(directory: ResultsDirectory, cell: Cell) -> Path:
    return directory.cell_directory(cell) / "predictions.parquet"


def cells_of(directory: ResultsDirectory) -> tuple[Cell, ...]:
    return directory.read_plan().cells


def records_of(directory: ResultsDirectory) -> list[RunRecord]:
    return [record for cell in cells_of(directory) if (record := directory.read(cell)) is not None]


def change_record(directory: ResultsDirectory, seed: int = 0, **changes: Any) -> None:
    directory.update(records_of(directory)[seed].model_copy(update=changes))


def make_unverified(directory: ResultsDirectory, seed: int, *, with_digest: bool = False, **changes: Any) -> None:
    """Make a record one of format 3, which states no sha256, and if so a digest of its predictions."""
    content = predictions(directory, cells_of(directory)[seed]).read_bytes() if with_digest else b""
    digest = hashlib.sha256(content).hexdigest()[:16] if with_digest else ""
    change_record(directory, seed, format=3, artifacts={}, predictions_digest=digest, **changes)


def outdate(directory: ResultsDirectory, name: str, value: float, seed: int = 0) -> None:
    """Give a record a number of a definition that is not there any more."""
    record = records_of(directory)[seed]
    sources = record.metric_sources | {name: OUTDATED}
    change_record(directory, seed, metrics=record.metrics | {name: value}, metric_sources=sources)


def update(directory: ResultsDirectory, definitions: dict[str, Definition]) -> Results:
    rescore(directory, cells_of(directory), definitions)
    return load_results(directory, metrics=definitions)


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "decoderbench")


def test_added_metric_is_computed_for_done_cells(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = records_of(directory)
    results = update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    assert list(results.cells["word_accuracy"]) == [1.0, 0.5]
    assert caplog.messages == ["metric word_accuracy: computed again for 2 cells from their predictions"]
    for old, new in zip(before, records_of(directory), strict=True):
        assert new.metrics.items() >= old.metrics.items()
        assert new.metric_sources.keys() == new.metrics.keys()
    assert results.metric_notes == ()


def test_edited_metric_is_computed_again_once(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    caplog.clear()
    edited = definitions_from(write_plugin(tmp_path, NUMBER))
    assert list(update(directory, edited).cells["word_accuracy"]) == [4.0, 2.0]
    assert caplog.messages == ["metric word_accuracy: computed again for 2 cells from their predictions"]
    caplog.clear()
    before = records_of(directory)
    update(directory, definitions_from(write_plugin(tmp_path, f"{NUMBER}  # a comment")))
    assert (records_of(directory), caplog.messages) == (before, [])


def test_metric_has_the_source_that_was_loaded_though_its_file_is_edited_later(tmp_path: Path) -> None:
    plugins = build_plugin_manager([str(write_plugin(tmp_path, SHARE))], installed=False, builtin=False)
    loaded = definitions_of(plugins)["word_accuracy"].source
    edited = definitions_from(write_plugin(tmp_path, NUMBER))["word_accuracy"].source
    assert definitions_of(plugins)["word_accuracy"].source == loaded != edited


def test_built_in_metric_is_computed_again_if_its_definition_changed(directory: ResultsDirectory) -> None:
    outdate(directory, "cer", 7.0)
    results = update(directory, dict(built_in_definitions()))
    assert results.cells["cer"].tolist() == [0.0, 0.5]
    changed = Definition("cer", OUTDATED, lambda texts: len(texts.references))
    assert update(directory, {**built_in_definitions(), "cer": changed}).cells["cer"].tolist() == [4.0, 4.0]


def test_metric_without_plugin_keeps_its_numbers_and_needs_no_note(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    caplog.clear()
    results = update(directory, dict(built_in_definitions()))
    assert list(results.cells["word_accuracy"]) == [1.0, 0.5]
    assert (results.metric_notes, caplog.messages) == ((), [])


def test_metric_that_fails_has_no_score_whatever_it_was(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    results = update(directory, definitions_from(write_plugin(tmp_path, "1 / 0")))
    assert results.cells["word_accuracy"].isna().all()
    assert "metric word_accuracy failed and has no score: ZeroDivisionError" in caplog.text


def test_metric_that_failed_is_tried_again_without_an_edit(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = tmp_path / "words.txt"
    definitions = definitions_from(
        write_plugin(tmp_path, f"len(__import__('pathlib').Path({str(words)!r}).read_text())")
    )
    assert update(directory, definitions).cells["word_accuracy"].isna().all()
    assert "computed again" not in caplog.text
    words.write_text("three")
    assert list(update(directory, definitions).cells["word_accuracy"]) == [5.0, 5.0]


def test_metric_without_a_source_file_is_computed_each_time(
    directory: ResultsDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    def update_with(value: float) -> list[float]:
        return list(update(directory, {"typed_in": Definition("typed_in", "", lambda texts: value)}).cells["typed_in"])

    assert [update_with(value) for value in (1.0, 2.0, 2.0)] == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    assert caplog.messages == ["metric typed_in: computed again for 2 cells from their predictions"] * 2


def test_metric_that_sorts_its_arguments_changes_no_other_number(directory: ResultsDirectory, tmp_path: Path) -> None:
    before = records_of(directory)[1].metrics
    change_record(directory, 1, metric_sources={})
    definitions = definitions_from(write_plugin(tmp_path, "(hypotheses.sort(), 1.0)[1]"))
    update(directory, {"word_accuracy": definitions.pop("word_accuracy"), **definitions})
    assert records_of(directory)[1].metrics == before | {"word_accuracy": 1.0}


def test_record_of_an_older_version_gets_sources_in_silence(
    directory: ResultsDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    before = records_of(directory)
    for seed in (0, 1):
        make_unverified(directory, seed, metric_sources={})
    results = update(directory, dict(built_in_definitions()))
    after = records_of(directory)
    assert [record.metrics for record in after] == [record.metrics for record in before]
    assert [record.metric_sources for record in after] == [record.metric_sources for record in before]
    assert [record.format for record in after] == [3, 3], "they are as unverified as before"
    assert (results.metric_notes, caplog.messages) == ((), [])


def test_cells_without_a_result_stay_as_they_are(directory: ResultsDirectory, tmp_path: Path) -> None:
    change_record(directory, 1, status="failed", reason="out of luck", metrics={}, metric_sources={})
    before = records_of(directory)[1]
    results = update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    assert records_of(directory)[1] == before
    assert results.cells["word_accuracy"].isna().tolist() == [False, True]


def delete(file: Path, other: Path) -> None:
    file.unlink()


def truncate(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def replace_text(file: Path, other: Path) -> None:
    frame = pd.read_parquet(file)
    frame.assign(hypothesis=frame["reference"]).to_parquet(file, index=False)


def copy_other(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


def drop_row(file: Path, other: Path) -> None:
    pd.read_parquet(file).iloc[:3].to_parquet(file, index=False)


def drop_column(file: Path, other: Path) -> None:
    pd.read_parquet(file).drop(columns="hypothesis").to_parquet(file, index=False)


def blank_text(file: Path, other: Path) -> None:
    frame = pd.read_parquet(file)
    frame.assign(hypothesis=["ab", "ba", None, "y"]).to_parquet(file, index=False)


@pytest.mark.parametrize("with_digest", [True, False], ids=["with digest", "without"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (delete, "it is missing"),
        (truncate, "it is damaged"),
        (replace_text, "it is not that of the record, whose numbers differ"),
        (copy_other, "it is not that of the record, whose numbers differ"),
        (drop_row, "it is not that of the record"),
        (drop_column, "it is damaged"),
        (blank_text, "it is not that of the record"),
    ],
)
def test_number_of_an_older_version_stays_and_is_footnoted_without_predictions_of_its_cell(
    directory: ResultsDirectory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Any,
    reason: str,
    with_digest: bool,
) -> None:
    update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    make_unverified(directory, 1, with_digest=with_digest)
    cell = cells_of(directory)[1]
    damage(predictions(directory, cell), predictions(directory, cells_of(directory)[0]))
    caplog.clear()
    results = update(directory, definitions_from(write_plugin(tmp_path, NUMBER)))
    assert list(results.cells["word_accuracy"]) == [4.0, 0.5]
    if with_digest and damage is not delete:
        reason = "it is not the file that the record was made with"
    where = f"predictions.parquet of 1 cell (first: {directory.cell_directory(cell)})"
    assert f"{where}: {reason}; not computed again: word_accuracy" in caplog.messages
    (note,) = results.metric_notes
    assert note in caplog.messages
    assert note.startswith("word_accuracy: numbers of different definitions, do not compare them: ")
    assert note.endswith("; the other of the loaded definition")
    assert "(ResNet / columns / CTC, seed 1) of definition" in note


@pytest.mark.parametrize("damage", [truncate, replace_text, copy_other, drop_row])
def test_number_is_not_computed_from_damaged_predictions_and_the_cell_is_due_again(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    cell = cells_of(directory)[1]
    damage(predictions(directory, cell), predictions(directory, cells_of(directory)[0]))
    results = update(directory, definitions_from(write_plugin(tmp_path, NUMBER)))
    assert list(results.recorded["word_accuracy"]) == [4.0]
    assert f"{predictions(directory, cell)}: damaged: " in caplog.text
    assert directory.read(cell) is None
    assert results.cells["status"].tolist() == ["done", "pending"]
    assert results.cells["reason"][1].startswith("predictions.parquet damaged: ")


def test_missing_number_that_cannot_be_computed_is_footnoted(
    directory: ResultsDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions(directory, cells_of(directory)[1]).unlink()
    results = update(directory, definitions_from(write_plugin(tmp_path, SHARE)))
    assert results.cells["word_accuracy"].isna().tolist() == [False, True]
    assert "it is missing; not computed again: word_accuracy" in caplog.text
    assert len(results.metric_notes) == 1
    assert results.metric_notes[0].startswith("word_accuracy: not computed for (")
    assert results.metric_notes[0].endswith("seed 1)")


def test_column_of_another_definition_alone_is_footnoted_as_outdated(directory: ResultsDirectory) -> None:
    for seed, cell in enumerate(cells_of(directory)):
        predictions(directory, cell).unlink()
        outdate(directory, "cer", 0.25, seed)
    results = update(directory, dict(built_in_definitions()))
    assert results.metric_notes == ("cer: outdated, all numbers are of another definition than the one that is loaded",)
    assert results.cells["cer_source"].tolist() == [OUTDATED] * 2
    assert results.metric_notes[0] in markdown_table(Analysis(results))


def test_records_of_a_trainer_of_its_own_need_no_note_unless_others_stand_beside_them(
    directory: ResultsDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, cell in enumerate(cells_of(directory)):
        predictions(directory, cell).unlink()
        change_record(directory, seed, metrics={"exact_match": 0.5}, metric_sources={}, artifacts={})
    results = update(directory, dict(built_in_definitions()))
    assert (results.metric_notes, caplog.messages) == ((), [])
    change_record(directory, 0, metric_sources={"exact_match": built_in_definitions()["exact_match"].source})
    (note,) = update(directory, dict(built_in_definitions())).metric_notes
    assert note.startswith("exact_match: numbers of different definitions")
    assert "of a definition that was not recorded" in note


def test_cell_that_another_process_holds_is_left_to_it(
    directory: ResultsDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "LEASE_SECONDS", 0.0)
    outdate(directory, "cer", 7.0)
    with directory.lease(cells_of(directory)[0]) as held:
        assert held
        assert update(directory, dict(built_in_definitions())).cells["cer"].tolist() == [7.0, 0.5]
    assert update(directory, dict(built_in_definitions())).cells["cer"].tolist() == [0.0, 0.5]


def test_report_computes_metric_of_named_plugin_and_footnotes_one_that_is_not_loaded(
    directory: ResultsDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, plugin = str(directory.path), write_plugin(tmp_path, SHARE)
    assert call(capfd, "report", folder, "-p", str(plugin))[0] == 0
    assert pd.read_csv(directory.path / "tables/cells.csv")["word_accuracy"].tolist() == [1.0, 0.5]
    outdate(directory, "word_accuracy", 7.0)

    status, out, _ = call(capfd, "report", folder)
    page = (directory.path / "report.md").read_text(encoding="utf-8")
    assert status == 0
    assert "word_accuracy: numbers of different definitions, do not compare them" in out
    assert "word_accuracy: numbers of different definitions, do not compare them" in page
    table = pd.read_csv(directory.path / "tables/cells.csv", dtype={"word_accuracy_source": str})
    assert table["word_accuracy"].tolist() == [7.0, 0.5]
    assert table["word_accuracy_source"].tolist() == [
        OUTDATED,
        records_of(directory)[1].metric_sources["word_accuracy"],
    ]

    assert call(capfd, "report", folder, "-p", str(plugin))[0] == 0
    table = pd.read_csv(directory.path / "tables/cells.csv")
    assert table["word_accuracy"].tolist() == [1.0, 0.5]
    assert "word_accuracy_source" not in table
    assert "definitions" not in (directory.path / "report.md").read_text(encoding="utf-8")


def test_report_computes_built_in_metrics_again_without_torch(directory: ResultsDirectory) -> None:
    outdate(directory, "cer", 7.0)
    code = (
        "import sys, decoderbench.cli as cli\n"
        "sys.argv = ['decoderbench', 'report', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(directory.path)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert pd.read_csv(directory.path / "tables/cells.csv")["cer"].tolist() == [0.0, 0.5]


def test_run_computes_changed_metrics_of_done_cells_and_trains_nothing(
    tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def registry(expression: str) -> Registry:
        return Registry(build_plugin_manager([str(TINY_PLUGIN), str(write_plugin(tmp_path, expression))]))

    results = tmp_path / "results"
    del tiny["grid"]["decoder"]["attention"], tiny["grid"]["decoder"]["loop"]
    first = train(tiny, registry(SHARE), results)
    (record,) = records_of(ResultsDirectory(results))
    assert first.loc[0, "word_accuracy"] == first.loc[0, "exact_match"]
    assert record.metric_sources.keys() == record.metrics.keys()
    history = (results / "cells" / record.cell.cell_id / "history.jsonl").read_text()

    edited = registry("float(len(references))")
    observer = observe(edited)
    second = train(tiny, edited, results)
    assert observer.started == []
    assert second.loc[0, "word_accuracy"] == 20
    assert "metric word_accuracy: computed again for 1 cell from their predictions" in caplog.messages
    pd.testing.assert_frame_equal(second.drop(columns="word_accuracy"), first.drop(columns="word_accuracy"))
    assert (results / "cells" / record.cell.cell_id / "history.jsonl").read_text() == history
    assert write_files(load_report(results), command="report").exists()
