"""Threads of a cell, and the warning of busy cores."""

import logging
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import call
from helpers.training import train

from decoderbench import hookimpl, run
from decoderbench.errors import ConfigError
from decoderbench.registry.registry import Registry
from decoderbench.training import cores
from decoderbench.training.cores import choose_threads, using_threads, warn_of_missing_cores

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_a_cell_on_a_cpu_gets_one_thread_and_on_cuda_those_of_the_host_unless_told_otherwise() -> None:
    assert choose_threads(None, CPU) == 1
    assert choose_threads(None, CUDA) is None
    assert choose_threads(3, CPU) == choose_threads(3, CUDA) == 3


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", 1025, 10**9])
def test_numbers_of_threads_that_cannot_be_are_refused(threads: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^--threads {threads}: must be a whole number in 1\.\.1024$"):
        choose_threads(threads, CPU)


def test_run_refuses_a_number_of_threads_before_it_reads_anything(tmp_path: Path) -> None:
    from decoderbench import Experiment

    nothing = {"name": "x", "dataset": {"use": "folder", "path": "nowhere"}, "grid": {"seeds": [0]}}
    variants = {axis: {"a": "none"} for axis in ("encoder", "bridge", "decoder")}
    experiment = Experiment(**nothing | {"grid": variants | {"seeds": [0]}})
    with pytest.raises(ConfigError, match="--threads 0"):
        run(experiment, results=tmp_path / "out", device="cpu", threads=0)


@pytest.mark.parametrize(("given", "used"), [(None, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_cells_are_trained_with_the_chosen_threads_which_are_recorded_and_restored(
    tiny: dict[str, Any],
    tiny_registry: Registry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given: int | None,
    used: int,
) -> None:
    found: list[int] = []

    class Reads:
        @hookimpl
        def cell_validated(self) -> None:
            found.append(torch.get_num_threads())

    tiny_registry.plugins.add(Reads(), "reads threads")
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    with using_threads(3), caplog.at_level(logging.INFO, "decoderbench"):
        frame = train(tiny, tiny_registry, tmp_path, threads=given)
        assert torch.get_num_threads() == 3
    assert set(found) == {used}
    assert list(frame["threads"]) == [str(used)]
    lines = [message for message in caplog.messages if message.startswith("training on ")]
    assert len(lines) == 1
    assert lines[0].endswith(f" with {used} thread{'s' * (used > 1)}")


def test_threads_of_a_run_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with suppress(ZeroDivisionError), using_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def clock(monkeypatch: pytest.MonkeyPatch, *samples: dict[int, tuple[int, int]]) -> None:
    """Let /proc/stat say these idle and busy ticks by core at each reading."""
    texts = [
        "cpu  1 2 3\n" + "".join(f"cpu{core} {busy} 0 0 {idle} 0 0 0 0 0 0\n" for core, (idle, busy) in sample.items())
        for sample in samples
    ]
    reads = iter(texts)
    monkeypatch.setattr(cores, "Path", lambda name: types.SimpleNamespace(read_text=lambda **options: next(reads)))
    allowed = {0, 1}
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: allowed)
    monkeypatch.setattr(cores, "usable_cores", lambda: len(allowed))
    monkeypatch.setattr(cores.sys, "platform", "linux")


@pytest.mark.parametrize(
    ("busy", "threads", "idle"),
    [
        ((0, 0), 2, None),
        ((10, 0), 1, None),  # one other process on two cores leaves one
        ((10, 0), 2, "1.0 of 2 are idle, 2 needed"),
        ((10, 9), 1, "0.1 of 2 are idle, 1 needed"),
        ((4, 4), 1, None),
    ],
)
def test_run_on_busy_cores_says_so(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    busy: tuple[int, int],
    threads: int,
    idle: str | None,
) -> None:
    # A third core, which this process may not use, is always idle.
    after = {core: (50 + 10 - ticks, 100 + ticks) for core, ticks in enumerate(busy)} | {2: (60, 100)}
    clock(monkeypatch, dict.fromkeys(range(3), (50, 100)), after)
    warn_of_missing_cores(threads)
    expected = [f"other processes keep the cores busy: {idle}; expect longer times in the table"] if idle else []
    assert caplog.messages == expected


def test_more_threads_than_cores_are_allowed_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock(monkeypatch, *[dict.fromkeys(range(2), (50, 100))] * 2)
    warn_of_missing_cores(5)
    assert caplog.messages == ["5 threads: this process may use 2 cores, and threads that share a core wait"]


def test_busy_cores_are_not_reported_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cores.sys, "platform", "darwin")
    warn_of_missing_cores(1)
    assert caplog.messages == []


def test_command_line_refuses_zero_threads(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "run", "x.toml", "--threads", "0")
    assert status == 2
    assert "--threads" in err
