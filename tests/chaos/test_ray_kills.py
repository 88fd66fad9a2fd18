"""A3 and A9 on a Ray cluster: runs, actors and processes of cells are killed; nothing is lost or trained twice."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from helpers.ray_machines import RAY, kill_agents

from chaos import starts
from chaos.campaign import Campaign
from chaos.grid import LOCAL, Attempt, Grid
from chaos.processes import Child, descendants_of

pytest.importorskip("ray")

BY_RAY = ("--executor", "ray", "--jobs", "2")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """Six cells that are run by Ray; those of `local` are the reference."""
    found = Grid(tmp_path_factory.mktemp("ray"), seeds=3, executor=LOCAL)
    found.executor = BY_RAY
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            starts.LOG: str(Attempt(found, found.folder / "attempt").log),
            "DECODERBENCH_CACHE": str(found.folder / "cache"),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": address,
        }.items():
            patch.setenv(name, value)
        options = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=2", "--include-dashboard=false"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        head = subprocess.Popen([*RAY, "start", "--block", *options], **quiet)
        try:
            wait_for_head(address)
            yield found
        finally:
            head.terminate()
            head.wait()


def wait_for_head(address: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError(f"no head at {address}")


def wait_for_starts(attempt: Attempt, child: Child, count: int) -> bool:
    """Wait until so many cells have started; return False if the run ends before."""
    while sum(attempt.starts().values()) < count:
        if child.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def kill_one(attempt: Attempt, dice: random.Random, victim: str, campaign: Campaign) -> str:
    """Start a run, kill a process once some more cells have started, and wait for what the run makes of it."""
    before = len(attempt.events())
    child = attempt.start()
    if not wait_for_starts(attempt, child, sum(attempt.starts().values()) + dice.randint(1, 3)):
        campaign.failures += [
            f"exit status {status}: {child.printed()}" for status in [child.wait()] if status not in (0, 1)
        ]
        return ""
    time.sleep(dice.uniform(0, 0.2))
    killed = False
    if victim == "run":
        killed = child.kill()
    elif victim == "actor":
        killed = bool(kill_agents())
        campaign.failures += [f"exit status {status}: {child.printed()}" for status in [child.wait()] if status]
    else:
        events = attempt.events()[before:]
        ended = {cell for event, cell, _, _ in events if event == "finished"}
        for process in {pid for event, cell, pid, _ in events if event == "started" and cell not in ended}:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                killed = True
        campaign.failures += [
            f"exit status {status}: {child.printed()}" for status in [child.wait()] if status not in (0, 1)
        ]
    attempt.note_fault()
    return f"{victim} killed" if killed else ""


@pytest.mark.chaos
@pytest.mark.parametrize("attempts", [pytest.param(2, id="sample"), pytest.param(10, id="all")])
def test_grid_by_ray_killed_at_random_times_ends_with_identical_results(grid: Grid, attempts: int) -> None:
    campaign = Campaign("A3 3 SIGKILLs at random times of run, actors or processes of cells, 6 cells, ray, 2 jobs")
    for seed in range(1, attempts + 1):
        attempt, dice = Attempt.fresh(grid), random.Random(seed)
        victims = ["run", "actor", "cell"]
        dice.shuffle(victims)
        killed = [kill_one(attempt, dice, victim, campaign) for victim in victims]
        campaign.faults += len(list(filter(None, killed)))
        campaign.finish(attempt, f"seed {seed}, {killed}", "--retry-failed")
    campaign.remark = f"seeds 1 to {attempts}"
    campaign.conclude()


@pytest.mark.chaos
@pytest.mark.parametrize("attempts", [pytest.param(2, id="sample"), pytest.param(10, id="all")])
def test_runs_by_ray_and_local_in_one_folder_train_each_cell_once(grid: Grid, attempts: int) -> None:
    campaign = Campaign("A9 a run by ray and one by local in one folder, the latter is killed")
    for seed in range(1, attempts + 1):
        attempt, dice = Attempt.fresh(grid), random.Random(seed)
        by_ray = attempt.start()
        grid.executor = LOCAL
        try:
            local = attempt.start()
        finally:
            grid.executor = BY_RAY
        running: set[str] = set()
        if wait_for_starts(attempt, local, dice.randint(1, 4)):
            processes = {local.pid, *descendants_of(local.pid)}
            if local.kill_group():
                campaign.faults += 1
                running = {cell for event, cell, pid, _ in attempt.events() if event == "started" and pid in processes}
        campaign.attempts += 1
        for child, allowed in ((local, (0, -signal.SIGKILL)), (by_ray, (0,))):
            if (status := child.wait()) not in allowed:
                campaign.failures.append(f"seed {seed}: exit status {status}: {child.printed()}")
        for cell, count in attempt.starts().items():
            if count > 1 + (cell in running):
                campaign.failures.append(f"seed {seed}: {cell} was started {count} times")
        campaign.compare(attempt, f"seed {seed}")
    campaign.conclude()
