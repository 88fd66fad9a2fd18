"""`--executor ray`: whatever dies in the cluster, no result is lost and none is trained twice."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.long_grid import RUN, check_same_as_local, wait_for_checkpoint, write_long_grid
from helpers.ray_machines import Machines, can_isolate, kill_agents
from helpers.running import TINY_PLUGIN, start_command


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """The folder of a grid of three cells of some seconds each."""
    folder = tmp_path / "home"
    folder.mkdir()
    write_long_grid(folder, seeds=3, steps=1200)
    return folder


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """A cluster with a head that runs no cell."""
    if not can_isolate():
        pytest.skip("needs the right to start processes in namespaces of their own")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Machines(port)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.close()


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return start_command(["run", "grid.toml", *RUN, "--executor", "ray", *options], cwd=folder)


def trained_in(printed: str) -> Counter[str]:
    return Counter(re.findall(r"^\[\d+/\d+\] (.+?): ", printed, re.MULTILINE))


@pytest.mark.slow
def test_machine_that_loses_power_costs_the_attempt_under_way(
    grid: Path, machines: Machines, capfd: pytest.CaptureFixture[str]
) -> None:
    doomed = machines.add()
    run = start(grid)
    wait_for_checkpoint(grid)
    machines.add()
    machines.kill(doomed)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    assert "was lost, it starts again" in printed
    assert set(trained_in(printed).values()) == {1}, printed
    assert len(trained_in(printed)) == 3
    check_same_as_local(grid, capfd)


@pytest.mark.chaos
def test_machine_without_the_files_of_the_run_sends_results_back(
    grid: Path, machines: Machines, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = grid / "mine.py"
    shutil.copy(TINY_PLUGIN, plugin)
    monkeypatch.setenv("DECODERBENCH_CACHE", str(grid / "cache"))
    there = tmp_path / "there"
    there.mkdir()
    machines.add(hide=[grid], DECODERBENCH_CACHE=str(there))
    command = ["run", "grid.toml", "--device", "cpu", "-p", str(plugin), "--executor", "ray"]
    run = start_command(command, cwd=grid)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    assert len(trained_in(printed)) == 3
    assert list(there.glob("images/*/meta.json"))
    check_same_as_local(grid, capfd)


@pytest.mark.chaos
def test_killed_actor_costs_the_attempt_and_one_that_always_dies_the_cell(
    grid: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = start(grid, "--jobs", "1", "--set", "executor.retries=1", "-k", "'seed 0'")
    wait_for_checkpoint(grid)
    assert kill_agents()
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    assert "was lost, it starts again" in printed
    shutil.rmtree(grid / "results")
    run = start(grid, "--jobs", "1", "--set", "executor.retries=0", "-k", "'seed 0'")
    wait_for_checkpoint(grid)
    assert kill_agents()
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 1, printed
    assert re.search(r"crashed.* its actor on .* was lost, for the 1\. time", printed), printed


@pytest.mark.chaos
def test_killed_run_takes_the_processes_of_the_cluster_with_it_and_the_next_one_goes_on(
    grid: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = start(grid)
    wait_for_checkpoint(grid)
    run.kill()
    run.communicate()
    run = start(grid)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    check_same_as_local(grid, capfd)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param(
            "127.0.0.1:1",
            "RAY_ADDRESS=127.0.0.1:1: no Ray cluster has answered within 20 s; start one with",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ray://127.0.0.1:1",
            "RAY_ADDRESS=ray://127.0.0.1:1: is an address of Ray Client; start the run on",
            marks=pytest.mark.chaos,
        ),
        pytest.param(
            "nowhere",
            "RAY_ADDRESS=nowhere: no Ray cluster answers there (ValueError: Invalid address format",
            marks=pytest.mark.chaos,
        ),
    ],
)
def test_address_without_a_cluster_is_one_line(
    address: str, message: str, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    before = time.monotonic()
    run = start(grid)
    printed = run.communicate(timeout=100)[0]
    assert run.returncode == 2, printed
    assert printed.splitlines()[-1].startswith(message)
    assert time.monotonic() - before < 60


@pytest.mark.chaos
def test_cell_that_no_machine_has_room_for_is_refused(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = start(grid, "--set", "executor.cpus_per_cell=1000", "--set", "executor.memory_per_cell=0.5")
    printed = run.communicate(timeout=100)[0]
    assert run.returncode == 2, printed
    assert "--executor ray: a cell needs 1000 CPUs and 0.5 GB of memory; the largest machine" in printed
