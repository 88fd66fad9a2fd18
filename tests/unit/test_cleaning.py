"""`decoderbench clean`: what it lists, what it removes, and what it leaves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.recording import make_cell, make_record, publish
from PIL import Image

from decoderbench import ComponentConfig, Dataset, Sample
from decoderbench.data.image_cache import open_store
from decoderbench.options import ImageOptions
from decoderbench.records.results_directory import ResultsDirectory

DAY = 24 * 3600


class Gray(Dataset):
    """One gray image."""

    name = "gray"
    config_class = ComponentConfig

    def samples(self) -> list[Sample]:
        return [Sample("a", "1", "train")]

    def load_image(self, index: int) -> Image.Image:
        return Image.linear_gradient("L")

    def fingerprint(self) -> str:
        return "gray"


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def grid(path: Path) -> ResultsDirectory:
    """Write a results folder with a planned cell, one of earlier settings, a damaged file and temporary files."""
    planned, earlier = make_cell("CTC"), make_cell("LSTM")
    publish(path, [planned, earlier], [make_record(planned), make_record(earlier)])
    directory = publish(path, [planned], [])
    pid = dead_pid()
    (path / f".plan.json.{pid}.tmp").write_text("half")
    (path / f".report.md.{os.getppid()}.tmp").write_text("of a live process")
    (directory.cell_directory(planned) / f".weights.safetensors.{pid}.tmp").write_text("half")
    (directory.cell_directory(planned) / "result.json.damaged").write_text("?")
    return directory


def files(path: Path) -> set[str]:
    return {one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()}


def test_clean_lists_and_removes_only_with_yes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = grid(tmp_path)
    planned, earlier = make_cell("CTC"), make_cell("LSTM")
    before = files(tmp_path)
    status, printed, _ = call(capfd, "clean", str(tmp_path))
    assert status == 0
    assert files(tmp_path) == before
    kinds = {line.partition(": ")[0]: line.partition(": ")[2].rpartition(",")[0] for line in printed.splitlines()[:-1]}
    cell = directory.cell_directory(planned)
    assert sorted(kinds.items()) == sorted(
        {
            str(next(tmp_path.glob(".plan.json.*.tmp"))): "temporary file",
            str(directory.cell_directory(earlier)): "cell of earlier settings",
            str(cell / "result.json.damaged"): "damaged file, renamed",
            str(next(cell.glob(".weights.*.tmp"))): "temporary file",
        }.items()
    )
    assert printed.splitlines()[-1].endswith("MB in all; give --yes to remove them")
    status, printed, _ = call(capfd, "clean", str(tmp_path), "--yes")
    assert status == 0
    assert printed.splitlines()[-1].endswith("MB removed")
    live = f".report.md.{os.getppid()}.tmp"
    kept = {f"cells/{planned.cell_id}/{name}" for name in ("cell.json", "result.json", "lock")}
    assert files(tmp_path) == {"plan.json", live} | kept
    record = directory.read(planned)
    assert record is not None
    assert record.status == "done"
    _, printed, _ = call(capfd, "clean", str(tmp_path), "--yes")
    assert printed == f"{tmp_path}: nothing to remove\n"


def test_clean_leaves_a_cell_of_other_settings_that_a_process_is_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, earlier = grid(tmp_path), make_cell("LSTM")
    with directory.lease(earlier):
        call(capfd, "clean", str(tmp_path), "--yes")
        assert (directory.cell_directory(earlier) / "result.json").exists()
    call(capfd, "clean", str(tmp_path), "--yes")
    assert not directory.cell_directory(earlier).exists()


def test_clean_of_a_folder_without_a_plan_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells" / "mine").mkdir(parents=True)
    status, _, printed = call(capfd, "clean", str(tmp_path), "--yes")
    assert (status, "no plan.json" in printed) == (3, True)
    assert (tmp_path / "cells" / "mine").exists()


def test_next_run_removes_what_killed_processes_left(tmp_path: Path) -> None:
    directory = grid(tmp_path)
    with directory.lease(make_cell("LSTM")):
        other = directory.cell_directory(make_cell("LSTM")) / f".result.json.{dead_pid()}.tmp"
        other.write_text("of the process that holds the lock")
        directory.begin()
        assert [path.name for path in tmp_path.rglob(".*.tmp")] == [f".report.md.{os.getppid()}.tmp", other.name]
    with directory.lease(make_cell("LSTM")) as held:
        assert held
        assert not other.exists()


def test_clean_removes_unused_damaged_and_other_versions_of_images(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, results = tmp_path / "cache", tmp_path / "results"
    monkeypatch.setenv("DECODERBENCH_CACHE", str(cache))

    def store(height: int, days: float) -> Path:
        dataset = Gray(ComponentConfig(), Path())
        opened = open_store(dataset, dataset.samples(), ImageOptions(height=height, width=32), workers=1)
        for path in (opened.directory, *opened.directory.iterdir()):
            os.utime(path, (time.time() - days * DAY,) * 2)
        return opened.directory

    used, old, recent, other = store(16, 90), store(32, 31), store(48, 29), store(64, 0)
    (other / "meta.json").write_text("?")
    (cache / "images" / "b.damaged").mkdir()
    (cache / "images" / "c.building").mkdir()
    (cache / "fingerprints").mkdir()
    (cache / "fingerprints" / "old.json").touch()
    os.utime(cache / "fingerprints" / "old.json", (time.time() - 40 * DAY,) * 2)
    cell = make_cell(data_hash=used.name + "0" * 32)
    publish(results, [cell], [make_record(cell)])
    assert call(capfd, "clean", str(results))[1] == f"{results}: nothing to remove\n"
    status, printed, _ = call(capfd, "clean", str(results), "--cache", "--yes")
    assert status == 0
    assert f"{old}: images, unused for 31 days, 0." in printed
    assert f"{other}: images that cannot be used: " in printed
    assert {path.name for path in (cache / "images").iterdir() if path.is_dir()} == {
        used.name,
        recent.name,
        "c.building",
    }
    assert not list((cache / "fingerprints").iterdir())


def test_opening_images_counts_as_use(tmp_path: Path) -> None:
    dataset = Gray(ComponentConfig(), Path())

    def opened() -> Path:
        return open_store(
            dataset, dataset.samples(), ImageOptions(height=16, width=32), cache_dir=tmp_path, workers=1
        ).directory

    directory = opened()
    os.utime(directory, (0, 0))
    assert opened() == directory
    assert directory.stat().st_mtime > time.time() - DAY
