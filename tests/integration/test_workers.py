"""What cells do to their worker, or what else happens to it, is never charged to another cell or to the run."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import observe, train

from decoderbench import Cell, PendingCellsError, build_plugin_manager, hookimpl
from decoderbench.errors import StoppedError
from decoderbench.execution.output import OUTPUT_BYTES, CellOutput
from decoderbench.files.storage import StorageError
from decoderbench.registry.registry import Registry
from decoderbench_plugins.executors.local import executor as local

PLUGINS = [str(TINY_PLUGIN), str(TINY_PLUGIN.with_name("hostile.py"))]

ONLY_IN_THE_RUN = """
import multiprocessing
if multiprocessing.parent_process() is not None:
    raise RuntimeError("not in a worker")
"""


@pytest.fixture
def hostile_registry() -> Registry:
    return Registry(build_plugin_manager(PLUGINS))


def with_faults(tiny: dict[str, Any], *faults: str, at_step: int = 2) -> dict[str, Any]:
    """Return the experiment with a cell per fault and one behind them."""
    encoders = {fault: {"use": "hostile", "fault": fault, "at_step": at_step} for fault in faults}
    last = {"last": {"use": "hostile", "at_step": 99}}
    tiny["grid"] |= {"encoder": encoders | last, "decoder": {"ctc": tiny["grid"]["decoder"]["ctc"]}}
    return tiny


class KillBeforeNextCell:
    """Stops the worker of a cell when the cell has ended, and kills it once it has the next task."""

    def __init__(self, results: Path) -> None:
        self.results, self.worker = results, 0

    @hookimpl
    def cell_validated(self, cell: Cell) -> None:
        if not self.worker:
            progress = self.results / "cells" / cell.cell_id / "progress.json"
            self.worker = json.loads(progress.read_text(encoding="utf-8"))["pid"]

    @hookimpl
    def cell_finished(self) -> None:
        if self.worker > 0:
            os.kill(self.worker, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, (self.worker, signal.SIGKILL)).start()
            self.worker = -1


def test_death_of_a_worker_before_it_has_begun_a_cell_is_not_charged_to_the_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    killer = KillBeforeNextCell(tmp_path)
    tiny_registry.plugins.add(killer, "killer")
    frame = train(tiny, tiny_registry, tmp_path, executor="local", jobs=1)
    assert killer.worker == -1
    assert list(frame["status"]) == ["done"] * 3


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (
            TINY_PLUGIN.read_text(encoding="utf-8").replace('"tiny_cnn"', '"elsewhere"'),
            "a worker process cannot run cells: .*elsewhere",
        ),
        (
            "from decoderbench import hookimpl\n\n@hookimpl(wrapper=True)\ndef run_cell(cell):\n    return (yield)\n",
            "plugins around run_cell are none, but wraps.py",
        ),
    ],
    ids=["component", "wrapper"],
)
def test_plugin_that_is_missing_in_a_worker_ends_the_run_and_fails_no_cell(
    plugin: str, message: str, tiny: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "wraps.py").write_text(f"{plugin}\n{ONLY_IN_THE_RUN}", encoding="utf-8")
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN)], [folder]))
    if "elsewhere" in plugin:
        tiny["grid"]["encoder"] = {"elsewhere": {"use": "elsewhere"}}
    with pytest.raises(PendingCellsError, match=message):
        train(tiny, registry, tmp_path / "results", executor="local")
    assert list((tmp_path / "results").glob("cells/*/result.json")) == []


def test_threads_and_children_of_a_cell_reach_neither_the_run_nor_another_cell(
    tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    observer = observe(hostile_registry)
    grid = with_faults(tiny, "print_for_ever", "fork", "log")
    frame = train(grid, hostile_registry, tmp_path, executor="local", jobs=1).set_index("encoder")
    assert dict(frame["status"]) == dict.fromkeys(["print_for_ever", "fork", "log", "last"], "done")
    assert len(observer.started) == 4
    assert sum(len(record.getMessage()) >= 300_000 for record in caplog.records) == 40
    printed = tmp_path / "cells" / frame.loc["fork", "cell_id"] / "output.txt"
    assert "RuntimeError: in the child" in printed.read_text(encoding="utf-8")
    assert not (tmp_path / "cells" / frame.loc["last", "cell_id"] / "output.txt").exists()


class StopAtValidation:
    """Sends this process a signal when a cell has been validated, or does something else."""

    def __init__(self, act: Any) -> None:
        self.act = act

    @hookimpl
    def cell_validated(self) -> None:
        act, self.act = self.act, lambda: None
        act()


def test_cell_whose_worker_dies_of_the_signal_that_stops_the_run_has_not_failed(
    tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    stop = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    hostile_registry.plugins.add(StopAtValidation(stop.start), "stopping")
    grid = with_faults(tiny, "default_sigterm", at_step=4)  # behind the first validation
    with pytest.raises(StoppedError, match="was ended by SIGTERM, unsaved"):
        train(grid, hostile_registry, tmp_path, executor="local", jobs=1)
    assert list(tmp_path.glob("cells/*/result.json")) == []


def test_run_ends_with_a_reason_where_no_worker_can_start(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(work: Any) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(local, "WorkerProcess", start)
    with pytest.raises(PendingCellsError, match="no worker process can start: EOFError: unexpected EOF"):
        train(tiny, tiny_registry, tmp_path, executor="local")


def test_description_by_a_worker_ends_where_none_can_start_or_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(work: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(local, "WorkerProcess", start)
    work: Any = SimpleNamespace(device="cuda:0")
    for stopping, message in ((str, "no worker process can start: OSError: no room"), (lambda: "stopped", "^stopped;")):
        executor = local.Local(local.Local.Config(), work, lambda event: None, stopping=stopping)
        with pytest.raises(PendingCellsError, match=message):
            executor.describe()


def test_output_that_cannot_be_written_costs_no_cell(caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    output = CellOutput(full)
    output.append(b"x" * (OUTPUT_BYTES + 1))
    output.close()
    assert "the output of the cell is lost" in caplog.text
    assert output.tail().endswith("xxx")


def test_signal_comes_before_a_full_disk_in_the_exit_status(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decoderbench.runs import runner
    from decoderbench.training.checkpoint import Checkpoints

    def fail(*unused: Any, **options: Any) -> None:
        raise StorageError("cannot write x: disk full")

    monkeypatch.setattr(Checkpoints, "save", fail)
    monkeypatch.setattr(runner, "write_files", fail)
    tiny_registry.plugins.add(StopAtValidation(lambda: os.kill(os.getpid(), signal.SIGINT)), "stopping")
    with pytest.raises(StoppedError, match=r"stopped by SIGINT; .*disk full") as error:
        train(tiny, tiny_registry, tmp_path, executor="inline", report=True)
    assert error.value.exit_code == 130


@pytest.mark.slow
def test_modules_of_a_worker_are_those_of_the_run_and_not_files_of_the_working_folder(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "wörk ing"
    folder.mkdir()
    for name in ("torch", "selectors", "pyarrow"):
        (folder / f"{name}.py").write_text("raise RuntimeError('of the working folder')\n", encoding="utf-8")
    (folder / "tiny.toml").write_text(to_toml(tiny), encoding="utf-8")
    start = tmp_path / "start.py"
    start.write_text("from decoderbench.cli import main\nmain()\n", encoding="utf-8")
    arguments = ["run", "tiny.toml", "-p", str(TINY_PLUGIN), "--device", "cpu", "--executor", "local"]
    finished = subprocess.run(
        [sys.executable, str(start), *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    assert "of the working folder" not in finished.stderr
