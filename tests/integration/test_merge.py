"""`merge`: results of folders that share nothing become one, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call, run_command
from helpers.running import TINY_PLUGIN, to_toml
from helpers.small_grid import EXPERIMENT, RUN, write_grid

from decoderbench.analysis import kept_images
from decoderbench.analysis.kept_images import ImageToKeep, keep_images, merge_images, read_images
from decoderbench.files.integrity import DIGEST, artifact_of, seal
from decoderbench.files.locks import holding
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan

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
        (("training.steps=5",), "other_settings", "[training] differs"),
        (("grid.decoder.ctc.hidden_dim=9",), "other_settings", "decoder 'ctc' has other options"),
        (("dataset.path=fewer",), "other_data", "the images differ"),
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
    assert f"  {code}: tiny / columns / ctc: {named} in c" in err
    assert not Path("merged").exists()
    status, out, err = call(capfd, "merge", "a", "c", "--into", "merged", "--allow", code)
    assert status == 0, err
    plan = ResultsDirectory("merged").read_plan()
    assert [cell.setting for cell in plan.cells if cell.decoder.label == "ctc"] == ["", "of c"]
    assert named in plan.settings["of c"]
    assert "of c" in out
    assert call(capfd, "verify", "merged")[0] == 0


@pytest.mark.slow
def test_rows_that_only_one_folder_has_are_compared_too(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Folders may share no row: what concerns all rows of an experiment must be the same for all."""
    for name, decoder in EXPERIMENT["grid"]["decoder"].items():
        grid = EXPERIMENT["grid"] | {"decoder": {name: decoder}}
        (place / f"{name}.toml").write_text(to_toml(EXPERIMENT | {"grid": grid}))
    assert call(capfd, "run", "loop.toml", "--results", "ours", *RUN)[0] == 0
    assert call(capfd, "run", "ctc.toml", "--results", "theirs", "--set", "training.steps=5", *RUN)[0] == 0
    status, _, err = call(capfd, "merge", "ours", "theirs", "--into", "merged")
    assert (status, "other_settings: tiny / columns / ctc: [training] differs in theirs" in err) == (3, True), err
    plugin = place / "edited.py"
    plugin.write_text(TINY_PLUGIN.read_text().replace(".relu()", ".relu() * 2"))
    given = ("run", "ctc.toml", "--results", "edited", *RUN[:-1], str(plugin))
    assert call(capfd, *given)[0] == 0
    status, _, err = call(capfd, "merge", "ours", "edited", "--into", "merged")
    assert (status, "other_code: tiny / columns / ctc: the source code of encoder 'tiny_cnn'" in err) == (3, True), err
    assert call(capfd, "run", "ctc.toml", "--results", "same", *RUN)[0] == 0
    status, out, err = call(capfd, "merge", "ours", "same", "--into", "merged")
    assert (status, "4 of 4 cells have results" in out) == (0, True), err
    ctc = next(cell for cell in ResultsDirectory("merged").read_plan().cells if cell.decoder.label == "ctc")
    assert call(capfd, "reproduce", "merged", "--cell", ctc.cell_id, *RUN)[0] == 0


def test_rows_of_different_settings_never_become_seeds_of_one(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, seed, steps in (("m1/b", "0", "5"), ("m2/b", "1", "4")):
        options = ("--results", folder, "--seeds", seed, "-k", "ctc", "--set", f"training.steps={steps}")
        assert call(capfd, "run", "grid.toml", *options, *RUN)[0] == 0
    assert call(capfd, "merge", "a", "m1/b", "--into", "merged", "--allow", "other_settings")[0] == 0
    shutil.copytree("m1/b", "kept")
    shutil.rmtree("m1/b")
    shutil.move("m2/b", "m1/b")  # another folder of the same name
    assert call(capfd, "merge", "m1/b", "--into", "merged", "--allow", "other_settings")[0] == 0
    plan = ResultsDirectory("merged").read_plan()
    found = {(cell.setting, cell.training.steps) for cell in plan.cells if cell.decoder.label == "ctc"}
    assert found == {("", 6), ("of m1/b", 5), ("of m1/b (2)", 4)}
    # The first one again, from elsewhere: its row is there already, so nothing has to be allowed.
    status, _, err = call(capfd, "merge", "kept", "--into", "merged")
    assert (status, ResultsDirectory("merged").read_plan().cells) == (0, plan.cells), err


def test_renamed_row_is_one_row(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    renamed = (place / "grid.toml").read_text().replace('"ctc"', '"CTC of 8"')
    (place / "renamed.toml").write_text(renamed)
    assert call(capfd, "run", "renamed.toml", "--results", "r", "-k", "'CTC of 8'", *RUN)[0] == 0
    status, _, err = call(capfd, "merge", "a", "r", "--into", "merged")
    assert (status, "row tiny / columns / CTC of 8 of r is tiny / columns / ctc" in err) == (0, True), err
    rows = {cell.decoder.label: 0 for cell in ResultsDirectory("merged").read_plan().cells}
    assert list(rows) == ["loop", "ctc"]


@pytest.mark.slow
def test_tuned_experiment_may_be_divided_by_rows(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "tune.toml").write_text(
        to_toml(EXPERIMENT | {"tuning": {"over": {"training.learning_rate": [1e-3, 1e-2]}, "steps": 4}})
    )
    for folder, part in (("ta", "loop"), ("tb", "ctc")):
        assert call(capfd, "run", "tune.toml", "--results", folder, "-k", part, *RUN)[0] == 0
    for order in (("ta", "tb"), ("tb", "ta")):
        shutil.rmtree("merged", ignore_errors=True)
        status, out, err = call(capfd, "merge", *order, "--into", "merged")
        assert (status, "4 of 4 cells have results" in out, "undecided" in out) == (0, True, False), err
    assert call(capfd, "run", "tune.toml", "--results", "merged", *RUN)[0] == 0
    assert len(results_of("merged")) == 4 + len(ResultsDirectory("merged").read_plan().tuning)


def test_result_that_a_run_finishes_meanwhile_is_kept(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(capfd, "merge", "a", "--into", "merged")[0] == 0
    finished = next(Path("all").glob("cells/*ctc-seed-1-*"))
    write_plan = ResultsDirectory.write_plan

    def finish(directory: ResultsDirectory, plan: Plan) -> None:
        write_plan(directory, plan)
        shutil.copytree(finished, directory.path / "cells" / finished.name, dirs_exist_ok=True)

    monkeypatch.setattr(ResultsDirectory, "write_plan", finish)
    status, _, err = call(capfd, "merge", "b", "--into", "merged")
    assert (status, "a run has given tiny / columns / ctc / seed 1 a result meanwhile" in err) == (4, True), err
    kept = Path("merged/cells") / finished.name / "result.json"
    assert kept.read_bytes() == (finished / "result.json").read_bytes()


def test_metrics_that_were_computed_anew_are_no_other_result(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in results_of("a"):
        rewrite(path, lambda record: record["metrics"].update(cer=0.123))
    status, _, err = call(capfd, "merge", "a", "b", "--into", "merged")
    assert (status, "twice      1 results" in err) == (0, True), err


def test_what_a_killed_merge_left_does_not_stand_in_the_way(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("merged").mkdir()
    Path("merged/.plan.json.999999999.tmp").write_bytes(b"half")
    status, _, err = call(capfd, "merge", "a", "--into", "merged")
    assert status == 0, err
    assert not list(Path("merged").glob(".*.tmp"))


def test_images_of_the_folder_that_is_named_first_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 16, 32), dtype=np.uint8)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        keep_images(tmp_path / name, [ImageToKeep("data", f"{name} {n}", "test", "x", pixels) for n in range(3)])
    size = len(next(iter(read_images(tmp_path / "one").values())).png)
    monkeypatch.setattr(kept_images, "MAX_BYTES", 4 * size)
    merge_images(tmp_path / "two", [tmp_path / "two", tmp_path / "one"])
    assert [key for _, key in read_images(tmp_path / "two")] == ["two 0", "two 1", "two 2", "one 0"]


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
        (("a", "b", "--into", "grid.toml"), 2, "--into grid.toml: is not a folder"),
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
