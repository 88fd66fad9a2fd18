"""`merge`: results of folders that share nothing become one, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.commands import call, run_command
from helpers.small_grid import RUN, write_grid

from decoderbench.integrity import DIGEST, artifact_of, seal
from decoderbench.locks import holding
from decoderbench.results_directory import ResultsDirectory

COSTS = r"latency|per_sec|seconds|memory|date|measured|jobs"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that was run at once in `all`, and in parts in `a` (seed 0) and `b` (seed 1, and CTC of seed 0)."""
    folder = tmp_path_factory.mktemp("trained")
    write_grid(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("run", "grid.toml", "--results", "all", *RUN) == 0
        assert run_command("run", "grid.toml", "--results", "a", "--seeds", "0", *RUN) == 0
        assert run_command("run", "grid.toml", "--results", "b", "-k", "'seed 1' or ctc", *RUN) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    return tmp_path / "moved"


def files_of(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a plan or a record as if another run had written it."""
    data = json.loads(path.read_text())
    data.pop(DIGEST)
    change(data)
    path.write_bytes(seal(data))


def results_of(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("cells/*/result.json"))


def test_parts_become_the_table_of_one_run(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = files_of("a"), files_of("b")
    status, out, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert status == 0, err
    assert "copied     2 results of a" in err
    assert "copied     2 results of b" in err
    assert "twice      1 results are in several folders and equal" in err
    assert "4 of 4 cells have results" in out
    assert (files_of("a"), files_of("b")) == before
    assert call(capfd, "verify", "merged")[0] == 0

    of_run, of_merge = (ResultsDirectory(name).read_plan() for name in ("all", "merged"))
    assert of_merge.cells == of_run.cells
    commands = [ResultsDirectory(name).read_plan().command for name in ("a", "b")]
    assert of_merge.command.startswith("; ".join(commands))
    tables = [pd.read_csv(f"{name}/tables/cells.csv") for name in ("all", "merged")]
    kept = [name for name in tables[0].columns if not pd.Series([name]).str.contains(COSTS)[0]]
    assert "exact_match" in kept
    pd.testing.assert_frame_equal(tables[0][kept], tables[1][kept])
    weights = [{name: data for name, data in files_of(of).items() if "weights" in name} for of in ("all", "merged")]
    assert weights[0] == weights[1]
    assert len(weights[0]) == 4

    # The merged folder is one as any other: nothing is left to train, and a cell can be reproduced.
    kept = [path.read_bytes() for path in results_of("merged")]
    assert call(capfd, "run", "grid.toml", "--results", "merged", *RUN)[0] == 0
    assert [path.read_bytes() for path in results_of("merged")] == kept
    seed_1 = next(cell.cell_id for cell in of_merge.cells if cell.seed == 1)
    assert call(capfd, "reproduce", "merged", "--cell", seed_1, *RUN)[0] == 0


def test_merge_into_results_adds_to_them_and_can_be_repeated(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(capfd, "merge", "a", "--into", "merged")[0] == 0
    assert len(results_of("merged")) == 2
    status, out, err = call(capfd, "merge", "b", "--into", "merged")
    assert (status, "4 of 4 cells have results" in out) == (0, True), err
    kept = {path: path.stat().st_mtime_ns for path in results_of("merged")}
    status, out, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "copied" in err) == (0, False), err
    assert {path: path.stat().st_mtime_ns for path in results_of("merged")} == kept


def test_cells_without_a_result_stay_pending_and_a_result_beats_a_failure(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failed, unfinished = (next(Path(name).glob("cells/*ctc-seed-0-*")) for name in ("a", "b"))

    def fail(record: dict[str, Any]) -> None:
        record |= {"status": "crashed", "reason": "its process died", "metrics": {}}

    rewrite(failed / "result.json", fail)
    status, out, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "4 of 4 cells have results" in out) == (0, True), err
    assert "crashed in a; that of b is taken" in err
    (unfinished / "result.json").unlink()
    status, out, _ = call(capfd, "merge", "b", "--into", "other")
    assert (status, "2 of 4 cells have results" in out) == (0, True)


def test_other_result_of_a_cell_is_named_with_its_origin_and_refused(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = next(Path("b").glob("cells/*ctc-seed-0-*"))
    (folder / "weights.safetensors").write_bytes(b"others")

    def change(record: dict[str, Any]) -> None:
        record["device"] = "another machine"
        record["artifacts"]["weights.safetensors"] = artifact_of(folder / "weights.safetensors").model_dump()

    rewrite(folder / "result.json", change)
    status, out, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, out) == (3, "")
    assert "other_results: tiny / columns / ctc / seed 0: weights.safetensors differs in the results of a (" in err
    assert "and b (another machine, torch " in err
    assert "--allow other_results" in err
    assert not Path("merged").exists()
    status, out, err = call(capfd, "merge", "a", "b", "--into", "merged", "--allow", "other_results")
    assert (status, "4 of 4 cells have results" in out) == (0, True), err
    kept = next(Path("merged").glob("cells/*ctc-seed-0-*"))
    assert (kept / "weights.safetensors").read_bytes() != b"others"
    assert "other_results: allowed" in Path("merged/report.md").read_text()


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        (("training.steps=5",), "other_settings", "[training] differs between a and c"),
        (("grid.decoder.ctc.hidden_dim=9",), "other_settings", "decoder 'lstm_ctc' has other options"),
        (("dataset.path=fewer",), "other_data", "images or labels of c are others than those of a"),
    ],
)
def test_rows_that_differ_are_refused_or_stand_side_by_side(
    place: Path, capfd: pytest.CaptureFixture[str], changes: tuple[str, ...], code: str, named: str
) -> None:
    shutil.copytree("data", "fewer")
    rows = (place / "fewer" / "labels.csv").read_text().splitlines()
    (place / "fewer" / "labels.csv").write_text("\n".join(rows[:-1]) + "\n")
    (place / "fewer" / "images" / "29.png").unlink()
    options = [text for change in changes for text in ("--set", change)]
    given = ("run", "grid.toml", "--results", "c", "--seeds", "1", "-k", "ctc", *options, *RUN)
    assert call(capfd, *given)[0] == 0
    status, out, err = call(capfd, "merge", "a", "c", "--into", "merged")
    assert (status, out) == (3, "")
    assert f"  {code}: " in err
    assert named in err
    assert not Path("merged").exists()
    status, out, err = call(capfd, "merge", "a", "c", "--into", "merged", "--allow", code)
    assert status == 0, err
    plan = ResultsDirectory("merged").read_plan()
    assert [cell.setting for cell in plan.cells if cell.decoder.label == "ctc"] == ["", "of c"]
    assert named in plan.settings["of c"]
    assert "of c" in out
    assert call(capfd, "verify", "merged")[0] == 0


def test_other_sources_and_versions_are_refused(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in results_of("b"):
        rewrite(path, lambda record: record["environment"].update(torch="1.0.0"))
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "other_code: torch 1.0.0 in b, " in err) == (3, True), err
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged", "--allow", "other_code")
    assert status == 0, err
    assert "torch" in Path("merged/report.md").read_text()


def test_damaged_missing_and_foreign_folders_are_refused(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = next(Path("b").glob("cells/*/weights.safetensors"))
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"?")
    before = files_of("b")
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "weights.safetensors: damaged: sha256 mismatch" in err, "verify b --fix" in err) == (
        3,
        True,
        True,
    ), err
    assert files_of("b") == before
    weights.unlink()
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "weights.safetensors: missing; copy the folder" in err) == (3, True), err
    weights.write_bytes(kept)
    assert not Path("merged").exists()

    for arguments, status, named in (
        (("a", "a", "--into", "merged"), 2, "a: given twice"),
        (("a", "b", "--into", "a"), 2, "a: given twice"),
        (("a", "none", "--into", "merged"), 3, "none: no plan.json"),
        (("a", "b", "--into", "data"), 2, "--into data: holds something else than results"),
        (("a", "b", "--into", "merged", "--allow", "all"), 2, "--allow all: must be one of other_data, "),
    ):
        assert call(capfd, "merge", *arguments)[0] == status
        assert named in call(capfd, "merge", *arguments)[2]
    rewrite(Path("b/plan.json"), lambda plan: plan.update(experiment="another"))
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "merge results of one experiment" in err) == (2, True), err
    assert not Path("merged").exists()


def test_cell_that_a_run_is_working_on_is_not_replaced(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(capfd, "merge", "a", "--into", "merged")[0] == 0
    pending = next(Path("b").glob("cells/*ctc-seed-1-*")).name
    (Path("merged/cells") / pending).mkdir()
    with holding(Path("merged/cells") / pending / "lock") as held:
        assert held
        status, _, err = call(capfd, "merge", "b", "--into", "merged")
    assert (status, "merged: a run is working on tiny / columns / ctc / seed 1" in err) == (4, True), err
    status, out, _ = call(capfd, "merge", "b", "--into", "merged")
    assert (status, "4 of 4 cells have results" in out) == (0, True)
