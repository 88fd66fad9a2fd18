"""`decoderbench verify`: one line per finding, a summary, and the exit status."""

import json
import random
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.damage import damage_file, flip_bit
from helpers.recording import make_cell, make_record, publish

from decoderbench.records.results_directory import ResultsDirectory

CELLS = [make_cell("CTC"), make_cell("loop")]


@pytest.fixture
def directory(tmp_path: Path) -> ResultsDirectory:
    """Two cells with weights; a third is of earlier settings."""
    directory = ResultsDirectory(tmp_path / "results")
    cells = [*CELLS, make_cell("earlier")]
    for cell in cells:
        directory.cell_directory(cell).mkdir(parents=True)
        weights(directory, cell).write_bytes(cell.cell_id.encode() * 20)
    return publish(directory.path, CELLS, [make_record(cell) for cell in cells])


def weights(directory: ResultsDirectory, cell: object = CELLS[0]) -> Path:
    assert isinstance(cell, type(CELLS[0]))
    return directory.cell_directory(cell) / "weights.safetensors"


def test_verify_counts_intact_files_those_of_earlier_settings_included(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    status, printed, _ = call(capfd, "verify", str(directory.path))
    assert printed == "3 cells, 10 files verified, 0 damaged, 0 unverified (older format), 0 missing\n"
    assert status == 0


def test_verify_names_each_damaged_file_and_fix_makes_its_cell_due_again(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = weights(directory)
    damage_file(damaged, damaged, flip_bit, random.Random(1))
    content, line = damaged.read_bytes(), f"{damaged}: damaged: sha256 mismatch\n"
    status, printed, errors = call(capfd, "verify", str(directory.path))
    assert printed == f"{line}3 cells, 9 files verified, 1 damaged, 0 unverified (older format), 0 missing\n"
    assert "1 damaged; --fix renames them, so that their cells run again" in errors
    assert status == 1
    assert damaged.read_bytes() == content
    assert directory.read(CELLS[0]) is not None, "verify changes nothing by itself"
    status, printed, errors = call(capfd, "verify", str(directory.path), "--fix")
    assert printed.startswith(line)
    assert "1 damaged; give the run command again" in errors
    assert status == 1
    assert damaged.with_name("weights.safetensors.damaged").read_bytes() == content
    assert directory.read(CELLS[0]) is None
    assert call(capfd, "verify", str(directory.path))[0] == 0


def test_verify_finds_the_plan_and_a_cell_folder_copied_over_another(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = (directory.cell_directory(cell) for cell in CELLS)
    for name in ("result.json", "cell.json", "weights.safetensors"):
        (other / name).write_bytes((one / name).read_bytes())
    (directory.path / "plan.json").write_bytes(b"")
    status, printed, _ = call(capfd, "verify", str(directory.path), "--fix")
    assert f"{directory.path / 'plan.json'}: damaged: empty" in printed
    assert f"{other / 'result.json'}: damaged: the record of another cell, {CELLS[0].cell_id}" in printed
    assert status == 1
    assert (directory.path / "plan.json.damaged").exists()
    assert (directory.read(CELLS[0]) is None, directory.read(CELLS[1]) is None) == (False, True)


def test_verify_skips_a_cell_that_another_process_holds(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    weights(directory).write_bytes(b"half")
    with directory.lease(CELLS[0]):
        status, printed, _ = call(capfd, "verify", str(directory.path), "--fix")
    assert f"{directory.cell_directory(CELLS[0])}: skipped, a process is running this cell" in printed
    assert printed.endswith(
        "2 cells, 7 files verified, 0 damaged, 0 unverified (older format), 0 missing, 1 under way\n"
    )
    assert status == 0
    assert weights(directory).read_bytes() == b"half"


def test_verify_notes_missing_weights_and_results_of_an_older_format(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    weights(directory).unlink()
    record = directory.read(CELLS[1])
    assert record is not None
    directory.update(record.model_copy(update={"format": 3, "artifacts": {}}))
    status, printed, _ = call(capfd, "verify", str(directory.path), "--fix")
    missing = f"{weights(directory)}: missing\n"
    assert printed == f"{missing}3 cells, 6 files verified, 0 damaged, 1 unverified (older format), 1 missing\n"
    assert status == 0
    assert directory.read(CELLS[0]) is not None


def test_verify_does_not_pass_what_it_cannot_read(
    directory: ResultsDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    file = directory.cell_directory(CELLS[0]) / "result.json"
    data = json.loads(file.read_text()) | {"format": 2}
    del data["sha256"]
    file.write_text(json.dumps(data))
    status, printed, _ = call(capfd, "verify", str(directory.path), "--fix")
    assert f"{file}: has format 2" in printed
    assert printed.endswith(", 1 not readable\n")
    assert status == 3
    assert file.exists()


@pytest.mark.parametrize("kind", ["empty", "file", "missing"])
def test_verify_refuses_what_is_no_results_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    if kind == "file":
        folder.touch()
    status, _, errors = call(capfd, "verify", str(folder))
    assert f"{folder}: no plan.json and no cells; give the results folder of a run" in errors
    assert status == 3
