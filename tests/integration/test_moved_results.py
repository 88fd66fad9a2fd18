"""Results that were moved (A13) and clocks that jump (A14): the table is that of a run that nothing has disturbed."""

import os
import shutil
import sys
import time
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.commands import call
from helpers.folders import make, table
from helpers.running import TINY_PLUGIN
from helpers.training import observe, train
from PIL import Image

from decoderbench import build_plugin_manager, hookimpl
from decoderbench.housekeeping.status import StatusReader
from decoderbench.records.schema import Cost
from decoderbench.registry.registry import Registry

DAY = 86_400.0
ROOT = Path(__file__).parents[2]
EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"use": "folder", "path": "data"},
    "image": {"height": 16, "width": 32},
    "training": {"steps": 6, "batch_size": 8, "validate_every": 3, "precision": "float32"},
    "grid": {
        "encoder": {"tiny": {"use": "tiny_cnn"}},
        "bridge": {"columns": {"use": "mean_height"}},
        "decoder": {"loop": {"use": "lstm_cell", "hidden_dim": 8}, "ctc": {"use": "lstm_ctc", "hidden_dim": 8}},
    },
}


class StopsAtStep3:
    """Interrupts the run at a validation of the second cell."""

    @hookimpl
    def cell_validated(self, cell: Any, step: int) -> None:
        if cell.decoder.label == "ctc" and step == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin, a folder of images, and the results of a run without disturbance, `whole`."""
    folder = tmp_path_factory.mktemp("place")
    names = [f"{number}.png" for number in range(30)]
    rows = [[name, "01"[index % 2], ("train", "val", "test")[index % 3]] for index, name in enumerate(names)]
    table(make(folder / "data", names), rows, ("filename", "label", "split"))
    for number, name in enumerate(names):  # each with something to read
        Image.linear_gradient("L").rotate(number).resize((8, 8)).save(folder / "data" / "images" / name)
    shutil.copy(TINY_PLUGIN, folder / "my_plugin.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(EXPERIMENT, registry(), Path("whole"), report=True)
    return folder


def registry(*plugins: object) -> Registry:
    manager = build_plugin_manager(["my_plugin.py"])
    for plugin in plugins:
        manager.add(plugin, type(plugin).__name__)
    return Registry(manager)


def interrupt(results: str) -> None:
    """Run until the second cell has a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decoderbench.training.checkpoint.LARGEST_SHARE", 1e9)  # after every step
        with pytest.raises(KeyboardInterrupt):
            train(EXPERIMENT, registry(StopsAtStep3()), Path(results), checkpoint_every=1e-9)
    first, second = StatusReader(Path(results)).read().cells
    assert (first.state, second.state) == ("done", "saved")
    assert second.saved_step in (2, 3)


def go_on(results: Path) -> pd.DataFrame:
    """Give the same command again: the finished cell is not trained again, the other one continues."""
    going_on = registry()
    observer = observe(going_on)
    saved_at = StatusReader(results).read().cells[1].saved_step
    frame = train(EXPERIMENT, going_on, results, report=True)
    assert observer.started == ["ctc"]
    assert observer.validated == ([3, 5, 6] if saved_at == 2 else [5, 6])
    return frame


def cells_of(results: Path) -> pd.DataFrame:
    """Return `tables/cells.csv` without costs."""
    frame = pd.read_csv(results / "tables/cells.csv", dtype=str)
    return frame.drop(columns=list(Cost.model_fields), errors="ignore")


def check_no_path_in(folder: Path) -> None:
    """Fail if a file of a folder contains the path of a folder of this machine."""
    places = [Path.cwd(), Path(os.environ["DECODERBENCH_CACHE"]), ROOT, Path(sys.prefix), Path.home()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"plan.json", "result.json", "history.jsonl", "weights.safetensors"} <= {path.name for path in files}
    assert [(path, place) for path in files for place in places if os.fsencode(place) in path.read_bytes()] == []


def test_moved_results_go_on_where_they_are(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(place)
    interrupt("original")
    check_no_path_in(Path("original"))

    moved = Path("some/where/else")
    shutil.copytree("original", moved)
    shutil.rmtree("original")
    caplog.set_level("INFO")
    go_on(moved)
    assert "goes on after step" in caplog.text
    assert not Path("original").exists()
    pd.testing.assert_frame_equal(cells_of(moved), cells_of(Path("whole")))
    check_no_path_in(moved)
    reported = {path.name: path.read_bytes() for path in moved.iterdir() if path.is_file()}

    shutil.move(moved, "again")
    assert call(capfd, "report", "again")[0] == 0
    for name, content in reported.items():  # which differ in the command, where it is as it was typed
        assert Path("again", name).read_bytes() == content.replace(str(moved).encode(), b"again")
    check_no_path_in(Path("again"))


def test_clock_that_jumps_changes_no_number(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, shifts = time.time, cycle([0.0, DAY, -DAY])

    class JumpingClock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "JumpingClock":
            return cls.fromtimestamp(time.time(), tz or UTC)

    monkeypatch.chdir(place)
    monkeypatch.setattr("decoderbench.execution.cell_runner.datetime", JumpingClock)
    monkeypatch.setattr("decoderbench.records.cell_progress.datetime", JumpingClock)
    monkeypatch.setattr(time, "time", lambda: real() + next(shifts))
    interrupt("jumped")
    # The order of the dates of the files is not that in which they were written, and some are from the future.
    for number, path in enumerate(sorted(Path("jumped").rglob("*.*"), key=lambda path: path.name)):
        os.utime(path, (real() + (number - 3) * DAY, real() + (number - 3) * DAY))
    monkeypatch.setattr(time, "time", lambda: real() - DAY)
    frame = go_on(Path("jumped"))
    pd.testing.assert_frame_equal(cells_of(Path("jumped")), cells_of(Path("whole")))
    assert (frame[["train_seconds", "latency_ms", "train_samples_per_sec"]].dropna(axis=1) >= 0).all(axis=None)
