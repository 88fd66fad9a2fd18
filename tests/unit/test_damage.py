"""A11: damaged files of results are named, renamed and never used; their cells run again, and the table is the same."""

import itertools
import json
import logging
import os
import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from chaos.campaign import Campaign
from helpers.damage import DAMAGES, Damage, damage_file, empty, flip_bit, swap, truncate, zero_block
from helpers.recording import make_cell, make_record, publish

from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError
from decoderbench.execution.resume import Repeat, Resume
from decoderbench.files import integrity
from decoderbench.housekeeping.verification import verify
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import RunRecord
from decoderbench.report import load_report, load_results, markdown_table
from decoderbench.report.tables import to_csv

SEED = 20261127
CELLS = [make_cell("CTC"), make_cell("loop"), make_cell("broken")]
CHECKED_BY_RUNS = ("result.json", "predictions.parquet", "val_predictions.parquet", "history.jsonl", "alignments.npz")
DAMAGED = re.compile(r": damaged: (sha256 mismatch|[\d,]+ of [\d,]+ bytes|empty|not JSON, |not a result|the record of)")


def write_artifacts(directory: ResultsDirectory, cell: Cell) -> RunRecord:
    """Write the files that a training leaves, the same each time; return the record."""
    folder = directory.cell_directory(cell)
    folder.mkdir(parents=True, exist_ok=True)
    if cell.decoder.label == "broken":
        (folder / "traceback.txt").write_text("Traceback (most recent call last):\n" * 40)
        return make_record(cell, status="failed", reason="RuntimeError: no", metrics={})
    generator = random.Random(cell.cell_id)
    texts = ["".join(generator.choices("ab", k=3)) for _ in range(40)]
    frame = pd.DataFrame({"sample": texts, "reference": texts, "hypothesis": texts, "nll": 0.5})
    (folder / "predictions.parquet").write_bytes(frame.to_parquet(index=False))
    (folder / "val_predictions.parquet").write_bytes(frame[::2].to_parquet(index=False))
    (folder / "alignments.npz").write_bytes(generator.randbytes(1000))
    (folder / "weights.safetensors").write_bytes(generator.randbytes(3000))
    rows = [{"step": step, "val_exact_match": generator.random()} for step in range(10)]
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "profile").mkdir(exist_ok=True)
    (folder / "profile" / "of_a_plugin.bin").write_bytes(generator.randbytes(2000))
    return make_record(cell, generator.random())


def run(directory: ResultsDirectory, cells: list[Cell] = CELLS) -> list[Cell]:
    """Do what a run does with the cells that have no result; return them."""
    pending = Resume(directory, cells, {}, Repeat()).pending
    for cell in pending:
        with directory.lease(cell):
            directory.delete_result(cell)
            directory.publish(write_artifacts(directory, cell))
    return pending


def files_of(directory: ResultsDirectory) -> dict[str, bytes]:
    """Return the content of every file but the renamed ones."""
    files = (path for path in directory.path.rglob("*") if path.is_file() and ".damaged" not in path.name)
    return {str(path.relative_to(directory.path)): path.read_bytes() for path in files}


def table(directory: ResultsDirectory) -> str:
    return to_csv(load_results(directory).cells)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> ResultsDirectory:
    directory = publish(tmp_path_factory.mktemp("pristine") / "results", CELLS, [])
    assert run(directory) == CELLS
    return directory


@pytest.fixture
def damaged(pristine: ResultsDirectory, tmp_path: Path) -> ResultsDirectory:
    """A copy of the results that may be damaged."""
    shutil.copytree(pristine.path, tmp_path / "results")
    return ResultsDirectory(tmp_path / "results")


def assert_damage_is_found(pristine: ResultsDirectory, path: Path, name: str, damage: Damage, seed: int) -> None:
    """Damage one file of a copy of the results; it is named, renamed, and mended by the next run."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(pristine.path, path)
    directory, generator = ResultsDirectory(path), random.Random(f"{SEED} {name} {damage.__name__} {seed}")
    cell, other = (CELLS[2], CELLS[0]) if name == "traceback.txt" else generator.sample(CELLS[:2], 2)
    file = directory.cell_directory(cell) / name
    source = file.with_name("cell.json") if name == "traceback.txt" else directory.cell_directory(other) / name
    damage_file(file, source, damage, generator)
    content = file.read_bytes()
    lines: list[str] = []
    found = verify(directory, fix=False, report=lines.append)
    assert [error.path for error in found.damaged] == [file]
    assert [line for line in lines if line.startswith(f"{file}: damaged: ") and DAMAGED.search(line)] == lines
    assert file.read_bytes() == content, "changed without --fix"
    if name not in CHECKED_BY_RUNS:
        verify(directory, fix=True, report=lines.append)
    assert run(directory) == [cell]
    assert file.with_name(f"{file.name}.damaged").read_bytes() == content
    assert (directory.cell_directory(cell) / "result.json.damaged").exists()
    assert files_of(directory) == files_of(pristine)


FILES = (*CHECKED_BY_RUNS, "weights.safetensors", "cell.json", "profile/of_a_plugin.bin", "traceback.txt")


@pytest.mark.parametrize("name", FILES)
def test_damage_of_any_kind_is_found_and_mended(
    pristine: ResultsDirectory, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for damage in DAMAGES:
        for seed in range(1 if damage in (empty, swap) else 2):
            assert_damage_is_found(pristine, tmp_path / "results", name, damage, seed)
    assert table(ResultsDirectory(tmp_path / "results")) == table(pristine)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@pytest.mark.chaos
def test_a_thousand_damaged_files_are_found_and_mended(pristine: ResultsDirectory, tmp_path: Path) -> None:
    campaign = Campaign("A11 damaged files of results published without training", remark="all named and renamed")
    kinds = itertools.cycle(itertools.product(FILES, DAMAGES))
    for number, (name, damage) in zip(range(1000), kinds, strict=False):
        assert_damage_is_found(pristine, tmp_path / "results", name, damage, number)
        campaign.faults, campaign.attempts, campaign.identical = (number + 1,) * 3
    campaign.conclude()


@pytest.mark.parametrize("damage", [flip_bit, zero_block])
def test_damage_is_not_found_if_digests_are_not_compared(
    pristine: ResultsDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    monkeypatch.setattr("decoderbench.records.record_files.check_content", integrity.check_size)
    with pytest.raises(AssertionError):
        assert_damage_is_found(pristine, tmp_path / "results", "predictions.parquet", damage, 0)


def test_edited_digit_is_not_found_if_a_record_need_not_have_its_own_digest(
    damaged: ResultsDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decoderbench.records.record_files.has_own_digest", lambda content, **replaced: True)
    file = damaged.cell_directory(CELLS[0]) / "result.json"
    edit_digits(file)
    assert damaged.read(CELLS[0]) is not None


def edit_digits(file: Path) -> None:
    text = file.read_text()
    assert '"num_test": 1000' in text
    file.write_text(text.replace('"num_test": 1000', '"num_test": 1001'))


@pytest.mark.parametrize(
    ("name", "damage", "how"),
    [
        ("result.json", None, "result.json damaged: sha256 mismatch"),
        ("result.json", swap, "result.json damaged: the record of another cell, "),
        ("predictions.parquet", truncate, r"predictions.parquet damaged: [\d,]+ of [\d,]+ bytes"),
        ("predictions.parquet", flip_bit, "predictions.parquet damaged: sha256 mismatch"),
        ("history.jsonl", empty, r"history.jsonl damaged: empty, 0 of [\d,]+ bytes"),
        ("weights.safetensors", truncate, r"weights.safetensors damaged: [\d,]+ of 3,000 bytes"),
    ],
)
def test_report_shows_that_a_damaged_cell_has_no_result_and_why(
    damaged: ResultsDirectory, name: str, damage: Damage | None, how: str
) -> None:
    file, other = (damaged.cell_directory(cell) / name for cell in CELLS[:2])
    if damage is None:
        edit_digits(file)
    else:
        damage_file(file, other, damage, random.Random(1))
    analysis = load_report(damaged)
    text = markdown_table(analysis)
    assert re.search(rf"note 1, pending: {how}.*CTC, seed 0\)", text)
    assert "pending: 1 of 3 cells" in text
    assert analysis.results.recorded["decoder"].tolist() == ["loop", "broken"]
    assert "pending: an earlier result was damaged: " in markdown_table(load_report(damaged.path)), "the next report"
    assert run(damaged) == [CELLS[0]]
    assert "damaged" not in markdown_table(load_report(damaged.path))


def make_folder(file: Path) -> None:
    file.mkdir()


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_circle(file: Path) -> None:
    file.symlink_to(file)


def make_huge(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(10**9)


@pytest.mark.parametrize(
    ("replace", "how"),
    [
        (make_folder, "a folder"),
        (make_pipe, "not a regular file"),
        (make_circle, "symbolic links in a circle"),
        (make_huge, "1,000,000,000 bytes, at most 67,108,864 are read"),
    ],
)
def test_file_that_is_no_record_at_all_is_renamed(
    damaged: ResultsDirectory, replace: object, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = damaged.cell_directory(CELLS[0]) / "result.json"
    file.unlink()
    assert callable(replace)
    replace(file)
    assert run(damaged) == [CELLS[0]]
    assert f"{file}: damaged: {how}; renamed to result.json.damaged, the cell will run again" in caplog.text


@pytest.mark.parametrize("replace", [make_folder, make_pipe, make_circle])
def test_artifact_that_is_no_file_is_renamed(damaged: ResultsDirectory, replace: object) -> None:
    file = damaged.cell_directory(CELLS[0]) / "predictions.parquet"
    file.unlink()
    assert callable(replace)
    replace(file)
    assert run(damaged) == [CELLS[0]]
    assert os.path.lexists(file.with_name("predictions.parquet.damaged"))


@pytest.mark.parametrize("name", ["weights.safetensors", "predictions.parquet", "history.jsonl"])
def test_missing_file_is_noted_and_its_cell_is_not_run_again(damaged: ResultsDirectory, name: str) -> None:
    (damaged.cell_directory(CELLS[0]) / name).unlink()
    assert run(damaged) == []
    assert f"any more: {name} (1 cell)" in markdown_table(load_report(damaged))
    lines: list[str] = []
    found = verify(damaged, fix=True, report=lines.append)
    assert lines == [f"{damaged.cell_directory(CELLS[0]) / name}: missing"]
    assert found.summary().endswith("0 damaged, 0 unverified (older format), 1 missing")


def test_file_that_cannot_be_read_now_ends_a_run_and_is_the_reason_in_a_report(
    damaged: ResultsDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = damaged.cell_directory(CELLS[0]) / "result.json"
    open_file = os.open

    def refuse(path: object, *arguments: int, **options: int) -> int:
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(integrity.UnreadableError, match=r"result\.json: cannot be read: Permission denied"):
        run(damaged)
    assert "result.json: cannot be read: Permission denied; make it readable" in markdown_table(load_report(damaged))
    assert file.exists()


def test_files_that_another_process_is_replacing_are_not_renamed(damaged: ResultsDirectory) -> None:
    file = damaged.cell_directory(CELLS[0]) / "predictions.parquet"
    file.write_bytes(b"half")
    with ResultsDirectory(damaged.path).lease(CELLS[0]) as held:
        assert held
        assert damaged.check(CELLS[0]) is None
        assert file.read_bytes() == b"half"
        assert damaged.reason_of_damage(CELLS[0]) == ""
    assert damaged.check(CELLS[0]) is None
    assert not file.exists()


def test_results_of_format_3_are_read_and_footnoted_as_unverified(damaged: ResultsDirectory) -> None:
    record = damaged.read(CELLS[0])
    assert record is not None
    damaged.update(record.model_copy(update={"format": 3, "artifacts": {}}))
    assert "sha256" not in (damaged.cell_directory(CELLS[0]) / "result.json").read_text()
    assert run(damaged) == []
    assert table(damaged)
    assert "unverified: 1 of 3 results are of an earlier format without sha256" in markdown_table(load_report(damaged))
    found = verify(damaged, fix=False, report=lambda line: None)
    assert (found.damaged, found.unverified) == ([], 1)


def test_artifacts_are_the_files_of_a_result_and_nothing_else(pristine: ResultsDirectory) -> None:
    record = pristine.read(CELLS[0])
    assert record is not None
    assert set(record.artifacts) == {
        "alignments.npz",
        "cell.json",
        "history.jsonl",
        "predictions.parquet",
        "profile/of_a_plugin.bin",
        "val_predictions.parquet",
        "weights.safetensors",
    }
    assert record.artifacts["weights.safetensors"].size == 3000


def test_files_of_an_earlier_training_are_not_those_of_a_failure(damaged: ResultsDirectory) -> None:
    with damaged.lease(CELLS[0]):
        damaged.delete_result(CELLS[0])
        damaged.publish(make_record(CELLS[0], status="failed", reason="no", metrics={}))
    record = damaged.read(CELLS[0])
    assert record is not None
    assert set(record.artifacts) == {"cell.json", "history.jsonl", "profile/of_a_plugin.bin"}


def test_damaged_plan_is_named_and_kept_beside_the_new_one(
    damaged: ResultsDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    plan, file = damaged.read_plan(), damaged.path / "plan.json"
    before = file.read_bytes()
    damage_file(file, file, flip_bit, random.Random(3))
    content = file.read_bytes()
    with pytest.raises(Exception, match=r"plan\.json: damaged: .*; run the experiment again to rewrite it"):
        damaged.read_plan()
    damaged.write_plan(plan)
    assert file.read_bytes() == before
    assert (damaged.path / "plan.json.damaged").read_bytes() == content
    assert f"{file}: damaged: " in caplog.text


@pytest.mark.parametrize("name", ["../../plan.json", "/etc/hosts", ""])
def test_record_that_names_files_outside_its_folder_is_damaged(damaged: ResultsDirectory, name: str) -> None:
    record = damaged.read(CELLS[0])
    assert record is not None
    artifact = integrity.Artifact(size=1, sha256="0" * 64)
    damaged.update(record.model_copy(update={"artifacts": {name: artifact}}))
    verify(damaged, fix=True, report=lambda line: None)
    assert (damaged.path / "plan.json").exists()
    assert damaged.read(CELLS[0]) is None


def test_plan_that_is_too_large_to_be_read_again_is_refused(
    pristine: ResultsDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decoderbench.records.results_directory.MAX_PLAN", 1000)
    with pytest.raises(ConfigError, match=r"grid: 3 cells make a plan of [\d,]+ bytes; divide the grid"):
        ResultsDirectory(tmp_path).write_plan(pristine.read_plan())
    assert not (tmp_path / "plan.json").exists()
