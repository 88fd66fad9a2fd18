"""How many cells run at a time, how a run stops at a signal, and why a worker process has died."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.recording import make_cell

from decoderbench import ConfigError, PendingCellsError
from decoderbench.config.cell import Cell
from decoderbench.deadline import Deadline
from decoderbench.errors import StoppedError
from decoderbench.execution import jobs as jobs_module
from decoderbench.execution import output, signals
from decoderbench.execution.jobs import BASE_BYTES, choose_jobs, free_memory, memory_of
from decoderbench.execution.output import CellOutput
from decoderbench.execution.signals import StopSignals
from decoderbench_plugins.executors.local import death
from decoderbench_plugins.executors.local.death import count_kills_for_memory, describe_death

CPU = torch.device("cpu")


def cells(number: int, **changes: object) -> list[Cell]:
    return [make_cell(seed=seed, **changes) for seed in range(number)]


@pytest.mark.parametrize(
    ("cores", "threads", "number", "expected"),
    [(8, 1, 20, 8), (8, 1, 3, 3), (8, 2, 20, 4), (8, 3, 20, 2), (2, 4, 20, 1), (8, None, 20, 8), (1, 1, 20, 1)],
)
def test_jobs_by_default_are_what_cores_and_cells_allow(
    cores: int, threads: int | None, number: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(jobs_module, "free_memory", lambda: 10**12)
    assert choose_jobs(None, CPU, threads, cells(number)) == expected
    assert choose_jobs(None, torch.device("cuda"), threads, cells(number)) == 1
    assert choose_jobs(5, CPU, threads, cells(number)) == 5


def test_jobs_by_default_fit_into_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(jobs_module, "usable_cores", lambda: 8)
    grid = cells(8, num_parameters=50_000_000)
    for free, expected in ((memory_of(grid[0]) * 3 + 1, 3), (memory_of(grid[0]) // 2, 1), (None, 8)):
        monkeypatch.setattr(jobs_module, "free_memory", lambda free=free: free)
        assert choose_jobs(None, CPU, 1, grid) == expected
    assert "3 cells at a time instead of 8: one may need 2." in caplog.text
    assert memory_of(grid[0]) > memory_of(make_cell(num_parameters=1000)) > BASE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_free_memory_is_at_most_that_of_the_machine() -> None:
    free = free_memory()
    assert free is not None
    assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("jobs", [0, -1, 1025, True, 1.5])
def test_impossible_number_of_jobs_is_refused(jobs: int) -> None:
    with pytest.raises(ConfigError, match=f"--jobs {jobs}: must be a whole number in 1..1024"):
        choose_jobs(jobs, CPU, 1, cells(1))


@pytest.mark.parametrize(
    ("exit_code", "killed_for_memory", "expected"),
    [
        (-9, True, ("oom", "the system killed its process because memory ran out; give fewer --jobs")),
        (-9, False, ("crashed", "its process was killed by SIGKILL, perhaps because memory ran out")),
        (-11, True, ("crashed", "its process was killed by SIGSEGV")),
        (-63, False, ("crashed", "its process was killed by signal 63")),
        (0, False, ("crashed", "its process exited with status 0 without a result")),
        (3, True, ("crashed", "its process exited with status 3 without a result")),
        (255, False, ("crashed", "its process ended without a result, with status 255 or one that is not known")),
        (None, False, ("crashed", "its process closed the connection to the run without a result")),
    ],
)
def test_death_of_a_process_is_described(
    exit_code: int | None, killed_for_memory: bool, expected: tuple[str, str]
) -> None:
    status, reason = describe_death(exit_code, killed_for_memory=killed_for_memory)
    assert status == expected[0]
    assert reason.startswith(expected[1])


def test_kills_for_memory_are_summed_over_the_counters_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events").write_text("low 0\noom 4\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\n")
    (tmp_path / "other").write_text("no such line\n")
    files = [str(tmp_path / name) for name in ("events", "vmstat", "other", "missing")]
    monkeypatch.setattr(death, "KILL_COUNTERS", files)
    assert count_kills_for_memory() == 5


def test_output_is_kept_up_to_a_limit_and_its_end_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(output, "OUTPUT_BYTES", 10)
    monkeypatch.setattr(output, "TAIL_BYTES", 4)
    kept = CellOutput(tmp_path / "cell" / "output.txt")
    for content in (b"12345", b"67890abc", b"de\xff"):
        kept.append(content)
    kept.close(announce=True)
    assert (tmp_path / "cell" / "output.txt").read_bytes() == b"1234567890\n... 6 further bytes are not kept\n"
    assert kept.tail() == "cde\\xff"
    assert "a cell has printed 16 bytes; see" in caplog.text


def test_output_that_cannot_be_written_costs_the_output_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    kept = CellOutput(tmp_path / "file" / "output.txt")
    kept.append(b"one")
    kept.append(b"two")
    kept.close()
    assert kept.tail() == "onetwo"
    assert caplog.text.count("the output of the cell is lost") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_to_stop_and_one_just_behind_it_is_the_same(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert stop.reason() == ""
        for _ in range(3):
            os.kill(os.getpid(), number)
        assert stop.reason() == f"stopped by {number.name}"
        assert stop.reason() == stop.request()
    assert signal.getsignal(number) is before
    assert caplog.text.count("saving the cells under way; again to end at once") == 1


def test_second_signal_ends_the_process_at_once() -> None:
    code = f"""
import os, signal, time
from decoderbench.execution.signals import StopSignals
with StopSignals():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({signals.SAME_SECONDS + 0.1})
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    finished = subprocess.run([sys.executable, "-c", code], check=False, timeout=50)
    assert finished.returncode == -signal.SIGTERM


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.reason() == ""
    finally:
        signal.signal(signal.SIGINT, before)


def test_time_is_up_after_the_deadline_and_a_cell_can_end_a_run() -> None:
    assert StopSignals(Deadline(5, time.monotonic() - 6)).reason() == "stopped after 5 s"
    stop = StopSignals(Deadline(5))
    stop.end()
    assert (stop.reason(), stop.request()) == ("the run ends", "")


@pytest.mark.parametrize("error", [PendingCellsError("full"), StoppedError("stopped by SIGTERM", signal.SIGTERM)])
def test_early_end_survives_the_way_from_another_process(error: PendingCellsError) -> None:
    error.saved_step = 7
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.reason) == (type(error), str(error), error.reason)
    assert (copy.saved_step, copy.exit_code) == (7, error.exit_code)
    other = copy.with_reason("later")
    assert (str(other), other.exit_code) == ("later; give the same command again to go on", error.exit_code)
