"""`worker`: another process, perhaps on another machine, trains cells of a run that nobody is training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.commands import call, run_command
from helpers.small_grid import RUN, write_grid


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid that was run in `all`, and of which `shared` has one cell of four."""
    folder = tmp_path_factory.mktemp("trained")
    write_grid(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("run", "grid.toml", "--results", "all", *RUN) == 0
        assert run_command("run", "grid.toml", "--results", "shared", "-k", "ctc and 'seed 1'", *RUN) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as another machine sees it under another path, which is not the working directory."""
    shutil.copytree(trained, tmp_path / "mounted")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mounted"


def weights_of(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("cells/*/weights.safetensors")}


def test_worker_trains_what_is_left_and_leaves_the_plan_as_it_is(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, first = (place / "shared/plan.json").read_bytes(), weights_of(place / "shared")
    status, out, err = call(capfd, "worker", "mounted/shared", *RUN)
    assert status == 0, err
    assert (out.count("exact match 0.0%") + out.count("exact match 50.0%"), "[3/3]" in out) == (3, True), out
    assert (place / "shared/plan.json").read_bytes() == plan
    assert len(first) == 1
    assert weights_of(place / "shared") == weights_of(place / "all")
    assert "report: mounted/shared/report.md" in out
    assert call(capfd, "verify", "mounted/shared")[0] == 0
    status, out, _ = call(capfd, "worker", "mounted/shared", *RUN)  # nothing is left
    assert (status, "[1/" in out) == (0, False)


def test_images_elsewhere_are_found_by_base_dir(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "shared").rename("alone")
    status, _, err = call(capfd, "worker", "alone", *RUN)
    assert (status, "alone/../data is not a folder" in err) == (3, True), err
    status, _, err = call(capfd, "worker", "alone", "--base-dir", "mounted", *RUN)
    assert (status, len(weights_of(Path("alone")))) == (0, 4), err


def test_other_data_and_missing_plugins_are_named_and_nothing_is_trained(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = place / "data/labels.csv"
    before = labels.read_text()
    labels.write_text(before.replace("0.png,0", "0.png,1"))
    status, _, err = call(capfd, "worker", "mounted/shared", *RUN)
    assert (status, "would be another cell here: " in err, "nothing was trained" in err) == (3, True, True), err
    assert "the images differ" in err or "the labels" in err
    labels.write_text(before)
    status, _, err = call(capfd, "worker", "mounted/shared", "--device", "cpu")
    assert (status, "tiny_cnn" in err) == (2, True), err
    status, _, err = call(capfd, "worker", "mounted/data", *RUN)
    assert (status, "no plan.json" in err) == (3, True), err
    assert len(weights_of(place / "shared")) == 1
