"""Every executor gives the same results, events and early ends; `local` survives what cells do to their process."""

import hashlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.running import TINY_PLUGIN
from helpers.training import observe, train

from decoderbench import Cell, ConfigError, Experiment, PendingCellsError, build_plugin_manager, hookimpl, prepare
from decoderbench.errors import StoppedError
from decoderbench.registry.registry import Registry
from decoderbench_plugins.executors.local import executor as local

PLUGINS = [str(TINY_PLUGIN.with_name(name)) for name in ("tiny.py", "hostile.py", "by_subprocess.py")]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("by_subprocess", "ray", "slurm")]
EXECUTORS = ["inline", "local", *SLOW]
OPTIONS = {"slurm": {"cluster": "local"}}
ARTIFACTS = ("weights.safetensors", "predictions.parquet", "val_predictions.parquet")


@pytest.fixture
def hostile_registry() -> Registry:
    """All installed components, those of the tests, and an executor that is no part of decoderbench."""
    return Registry(build_plugin_manager(PLUGINS))


def digests(results: Path) -> dict[str, str]:
    """Return the sha256 of the artifacts of each cell, which do not depend on time."""
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ARTIFACTS
        for path in results.glob(f"cells/*/{name}")
    }


def scores(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    return frame.set_index("cell_id")[["exact_match", "cer", "nats_per_char"]].to_dict("index")


class StopAt:
    """Sends this process a signal when a cell reports."""

    def __init__(self, hook: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.hook, self.number = hook, number

    def _send(self, hook: str) -> None:
        if hook == self.hook:
            self.hook = ""
            os.kill(os.getpid(), self.number)

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        self._send("cell_started")

    @hookimpl
    def cell_validated(self, cell: Cell) -> None:
        self._send("cell_validated")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_results_events_and_artifacts_are_those_of_one_process(
    executor: str, tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    expected = train(tiny, Registry(build_plugin_manager(PLUGINS)), tmp_path / "expected", executor="inline")
    observer = observe(hostile_registry)
    jobs = 2 if executor in ("local", "ray", "slurm") else 1
    how = {"executor": executor, "executor_options": OPTIONS.get(executor), "jobs": jobs}
    frame = train(tiny, hostile_registry, tmp_path / "results", **how)
    assert set(map(int, frame["jobs"])) == {jobs}
    assert scores(frame) == scores(expected)
    assert digests(tmp_path / "results") == digests(tmp_path / "expected")
    assert observer.finished == dict.fromkeys(["loop", "ctc", "attention"], "done")
    assert sorted(observer.started) == ["attention", "ctc", "loop"]
    if executor != "slurm":  # whose run sees a file that says where a cell is, once per second
        assert sorted(observer.validated) == [3, 3, 3, 5, 5, 5, 6, 6, 6]
    again = train(tiny, hostile_registry, tmp_path / "results", **how)
    assert len(observer.started) == 3, "a finished cell was trained again"
    pd.testing.assert_frame_equal(again, frame)


@pytest.mark.parametrize(
    ("executor", "number"),
    [
        *((executor, signal.SIGTERM) for executor in ("inline", "local")),
        *(
            pytest.param(executor, signal.SIGTERM, marks=pytest.mark.chaos if executor == "slurm" else pytest.mark.slow)
            for executor in ("by_subprocess", "ray", "slurm")
        ),
        *(pytest.param(executor, signal.SIGINT, marks=pytest.mark.slow) for executor in ("inline", "local")),
    ],
)
def test_signal_saves_cells_and_the_next_run_completes_them(
    executor: str, number: signal.Signals, tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    tiny["training"] |= {"steps": 4000 if executor == "slurm" else 400, "validate_every": 20}
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    how = {"executor": executor, "executor_options": OPTIONS.get(executor)}
    hostile_registry.plugins.add(StopAt("cell_validated", number), "stopping")
    before = signal.getsignal(number)
    saved = "" if executor == "slurm" else ".*saved at step"
    with pytest.raises(StoppedError, match=f"stopped by {number.name}{saved}") as error:
        train(tiny, hostile_registry, tmp_path / "results", **how)
    assert error.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert list(tmp_path.glob("results/cells/*/checkpoint/*"))
    frame = train(tiny, hostile_registry, tmp_path / "results", **how)
    expected = train(tiny, Registry(build_plugin_manager(PLUGINS)), tmp_path / "expected", executor="inline")
    assert scores(frame) == scores(expected)
    assert digests(tmp_path / "results") == digests(tmp_path / "expected")


@pytest.mark.parametrize("executor", ["inline", "local", pytest.param("slurm", marks=pytest.mark.slow)])
def test_cell_of_another_process_is_waited_for_and_taken_over(
    executor: str, tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    tiny["training"]["steps"] = 2
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    (cell,) = prepare(Experiment(**tiny), registry=hostile_registry).cells
    lock = tmp_path / "results" / "cells" / cell.cell_id / "lock"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen(
        [
            "python",
            "-c",
            f"import filelock, time; filelock.FileLock({str(lock)!r}).acquire(); print(1); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert holder.stdout is not None
    holder.stdout.read(1)
    timer = threading.Timer(1.0, holder.kill)
    timer.start()
    how = {"executor": executor, "executor_options": OPTIONS.get(executor)}
    frame = train(tiny, hostile_registry, tmp_path / "results", **how)
    timer.join()
    holder.wait()
    holder.stdout.close()
    assert list(frame["status"]) == ["done"]


def hostile_grid(tiny: dict[str, Any], *faults: str) -> dict[str, Any]:
    """Return the experiment with one cell per fault, and one without before and behind them."""
    encoders = {fault: {"use": "hostile", "fault": fault} for fault in faults}
    first, last = {"first": {"use": "hostile"}}, {"last": {"use": "hostile", "at_step": 99}}
    tiny["grid"] |= {"encoder": first | encoders | last, "decoder": {"ctc": tiny["grid"]["decoder"]["ctc"]}}
    return tiny


CRASHES = {
    "segfault": ("crashed", "its process was killed by SIGSEGV", "in string_at"),
    "abort": ("crashed", "its process was killed by SIGABRT", "Fatal Python error: Aborted"),
    "os_exit": ("crashed", "its process exited with status 0 without a result", ""),
    "kill": ("crashed", "its process was killed by SIGKILL, perhaps because memory ran out", ""),
    "exec": ("crashed", "its process closed the connection to the run without a result, as os.execv does", ""),
    "exit": ("failed", "SystemExit: 0 (hostile.py:", "SystemExit: 0"),
    "memory": ("oom", "out of memory: MemoryError", "MemoryError"),
    "child": ("crashed", "its process was killed by SIGABRT", "child "),
}
HANGS = {"spin": "in spin", "sleep": "in <lambda>", "libc_sleep": "in sleep_in_c", "stop": "", "ignore_signals": ""}


def check_hostile(
    frame: pd.DataFrame, results: Path, expected: dict[str, tuple[str, str, str]], clean: dict[str, str]
) -> None:
    rows = frame.set_index("encoder")
    for fault, (status, reason, details) in expected.items():
        assert rows.loc[fault, "status"] == status
        assert reason in rows.loc[fault, "reason"]
        traceback = results / "cells" / rows.loc[fault, "cell_id"] / "traceback.txt"
        assert not traceback.with_name("progress.json").exists()
        assert not details or details in traceback.read_text(encoding="utf-8")
    for name in ("first", "last"):
        assert rows.loc[name, "status"] == "done"
    for file, digest in clean.items():
        assert digests(results)[file] == digest


@pytest.mark.parametrize(
    ("executor", "jobs", "faults"),
    [
        pytest.param("local", 1, ["segfault", "child"], id="local, 1 job"),
        pytest.param("local", 3, list(CRASHES), id="local, 3 jobs", marks=pytest.mark.slow),
        pytest.param("ray", 2, list(CRASHES), id="ray", marks=pytest.mark.chaos),
        pytest.param("slurm", 2, list(CRASHES), id="slurm", marks=pytest.mark.chaos),
    ],
)
def test_cell_that_kills_its_process_costs_only_itself_and_its_children(
    executor: str, jobs: int, faults: list[str], tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    train(hostile_grid(tiny), hostile_registry, tmp_path / "clean", executor="inline")
    grid = hostile_grid(tiny, *faults)
    how = {"executor": executor, "executor_options": OPTIONS.get(executor), "jobs": jobs}
    frame = train(grid, hostile_registry, tmp_path / "results", **how)
    expected = {fault: CRASHES[fault] for fault in faults}
    check_hostile(frame, tmp_path / "results", expected, digests(tmp_path / "clean"))
    check_child_is_gone(tmp_path / "results" / "cells" / frame.set_index("encoder").loc["child", "cell_id"])
    observer = observe(hostile_registry)
    train(grid, hostile_registry, tmp_path / "results", executor="local", jobs=jobs)
    assert observer.started == [], "a cell that had crashed was tried again without --retry-failed"


def check_child_is_gone(cell: Path) -> None:
    child = int((cell / "output.txt").read_text(encoding="utf-8").split()[1])
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text(encoding="ascii").split()[2] == "Z"


def test_cell_that_hangs_in_c_is_ended_and_says_where_it_was(
    tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"] |= {"encoder": {"hangs": {"use": "hostile", "fault": "libc_sleep"}}}
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    frame = train(tiny, hostile_registry, tmp_path, executor="local", cell_timeout=3.0)
    assert frame["status"].tolist() == ["timeout"]
    assert frame["reason"].tolist() == ["no result after 3 s (--cell-timeout); its process was ended"]
    (traceback,) = tmp_path.glob("cells/*/traceback.txt")
    assert "in sleep_in_c" in traceback.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param("local", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.chaos),
        pytest.param("slurm", marks=pytest.mark.chaos),
    ],
)
def test_cells_that_hang_are_ended_and_the_others_are_what_they_would_be(
    executor: str, tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path
) -> None:
    train(hostile_grid(tiny), hostile_registry, tmp_path / "clean", executor="inline")
    how = {"executor": executor, "executor_options": OPTIONS.get(executor), "jobs": 1, "cell_timeout": 10.0}
    frame = train(hostile_grid(tiny, *HANGS), hostile_registry, tmp_path / "results", **how)
    reason = "no result after 10 s (--cell-timeout); its process was ended"
    expected = {fault: ("timeout", reason, where) for fault, where in HANGS.items()}
    check_hostile(frame, tmp_path / "results", expected, digests(tmp_path / "clean"))


def test_what_a_cell_prints_is_kept_up_to_a_limit_and_changes_no_other_cell(
    tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(hostile_grid(tiny), hostile_registry, tmp_path / "clean", executor="inline")
    frame = train(hostile_grid(tiny, "print", "change"), hostile_registry, tmp_path / "results", executor="local")
    assert set(frame["status"]) == {"done"}
    assert "changed global state (the default dtype, the umask); restored" in caplog.text
    for file, digest in digests(tmp_path / "clean").items():
        assert digests(tmp_path / "results")[file] == digest
    (output,) = (tmp_path / "results").glob("cells/*/output.txt")
    content = output.read_bytes()
    assert content.startswith(b"x" * 2**20)
    assert len(content) < 9 * 2**20
    assert b"further bytes are not kept" in content


def test_hung_cell_does_not_keep_a_run_from_stopping(
    tiny: dict[str, Any], hostile_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "STOP_SECONDS", 0.5)
    tiny["grid"] |= {"encoder": {"hangs": {"use": "hostile", "fault": "sleep", "at_step": 4}}}
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    hostile_registry.plugins.add(StopAt("cell_validated"), "stopping")  # behind step 3
    with pytest.raises(StoppedError, match=r"did not stop within 0\.5 s and was ended"):
        train(tiny, hostile_registry, tmp_path, executor="local")
    assert list(tmp_path.glob("cells/*/result.json")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "inline", "jobs": 2}, "--jobs 2: executor 'inline' runs cells in this process"),
        ({"executor": "inline", "cell_timeout": 5.0}, "--cell-timeout 5s: executor 'inline' runs cells"),
        ({"executor": "local", "jobs": 0}, "--jobs 0: must be a whole number in 1..1024"),
    ],
)
def test_options_that_an_executor_cannot_fulfill_are_refused(
    options: dict[str, Any], message: str, tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny, tiny_registry, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_objects_of_this_process_are_refused_by_other_processes_and_run_inline_by_default(
    tiny: dict[str, Any],
    tiny_registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def run_cell(self) -> Any:
            return (yield)

    tiny["training"]["steps"] = 1
    tiny_registry.plugins.register("mine", Wrapper())
    with pytest.raises(ConfigError, match="plugin mine is an object of this process"):
        train(tiny, tiny_registry, tmp_path, executor="local")
    monkeypatch.delenv("DECODERBENCH_EXECUTOR")
    caplog.set_level("INFO")
    assert set(train(tiny, tiny_registry, tmp_path)["status"]) == {"done"}
    assert "plugins are objects of this process" in caplog.text


def test_source_that_changes_between_plan_and_worker_ends_the_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    plugin = tmp_path / "changing.py"
    text = TINY_PLUGIN.read_text(encoding="utf-8")
    plugin.write_text(text, encoding="utf-8")
    registry = Registry(build_plugin_manager([str(plugin)]))
    plugin.write_text(text.replace(".relu()", ".tanh()"), encoding="utf-8")
    with pytest.raises(PendingCellsError, match="the source of encoder 'tiny_cnn' has changed since the run started"):
        train(tiny, registry, tmp_path / "results", executor="local")
    assert list((tmp_path / "results").glob("cells/*/result.json")) == []
