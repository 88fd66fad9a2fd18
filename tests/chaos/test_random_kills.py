"""A3: a grid is killed at random times, up to three times in a row, and is run again."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from chaos import mutants
from chaos.campaign import Campaign
from chaos.grid import Attempt, Grid, nothing
from chaos.processes import Child, descendants_of, wait_for_end

SEED = int(os.environ.get("DECODERBENCH_CHAOS_SEED", "1"))
"""The seed of the first campaign; a failure names the seed of its own."""


def kill_at_random(attempt: Attempt, dice: random.Random, victim: str, campaign: Campaign) -> str:
    """Run a grid and kill a process of it at some time; return when, or nothing if it ended before.

    The victim is the process of the `run`, a `worker` with a cell, or `all` processes.
    """
    before = attempt.starts()
    child, seconds = attempt.start(), dice.uniform(0, attempt.grid.seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.poll() is None:
        time.sleep(0.001)
    workers = descendants_of(child.pid)
    if victim == "worker":
        killed = kill_worker(attempt, workers)
        campaign.failures += [f"a worker was killed: {problem}" for problem in unnoticed(attempt, child, before)]
    else:
        killed = child.kill()
        if victim == "all":
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        campaign.failures += [f"process {pid} outlived its run" for pid in wait_for_end(workers)]
    attempt.note_fault()
    return f"{victim} killed at {seconds:.3f} s" if killed else ""


def kill_worker(attempt: Attempt, workers: list[int]) -> bool:
    """Kill a worker that has a cell; return False if there is none."""
    busy = {pid for event, _, pid, _ in attempt.events() if event == "started" and pid in workers}
    for pid in sorted(busy):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def unnoticed(attempt: Attempt, child: Child, before: Counter[str]) -> list[str]:
    """Wait for a run one of whose workers was killed, and return what it hides.

    The cell of the worker needs a record that it crashed; it must not start again in silence. `before` are the starts
    of earlier runs.
    """
    status, records = child.wait(), len(list(attempt.results.glob("cells/*/result.json")))
    problems = [f"exit status {status}: {child.printed()}"] if status not in (0, 1) else []
    if missing := 2 * attempt.grid.seeds - records:
        problems.append(f"{missing} cells have no record")
    return problems + [
        f"{cell} has started {count} times" for cell, count in (attempt.starts() - before).items() if count > 1
    ]


def run_campaign(campaign: Campaign, grid: Grid, kills: int, attempts: int, victims: tuple[str, ...]) -> None:
    """Kill runs until there were so many kills in so many attempts."""
    seed = SEED
    while campaign.faults < kills or campaign.attempts < attempts:
        attempt, dice = Attempt.fresh(grid), random.Random(seed)
        killed = [kill_at_random(attempt, dice, dice.choice(victims), campaign) for _ in range(3)]
        campaign.faults += len(list(filter(None, killed)))
        campaign.finish(attempt, f"seed {seed}, {killed}", "--retry-failed")
        seed += 1
    campaign.remark = f"seeds {SEED} to {seed - 1}"
    campaign.conclude()


@pytest.mark.parametrize(
    ("size", "kills", "attempts"),
    [
        pytest.param("small", 2, 1, id="sample"),
        pytest.param("twelve", 6, 2, id="longer", marks=pytest.mark.slow),
        pytest.param("twelve", 300, 100, id="all", marks=pytest.mark.chaos),
    ],
)
def test_grid_killed_at_random_times_ends_with_identical_results(
    request: pytest.FixtureRequest, size: str, kills: int, attempts: int
) -> None:
    campaign = Campaign("A3 up to 3 SIGKILLs at random times, 12 cells, inline")
    run_campaign(campaign, request.getfixturevalue(size), kills, attempts, ("run",))


@pytest.mark.parametrize(
    ("size", "kills", "attempts"),
    [
        pytest.param("small_local", 2, 1, id="sample", marks=pytest.mark.slow),
        pytest.param("twelve_local", 300, 100, id="all", marks=pytest.mark.chaos),
    ],
)
def test_grid_in_workers_killed_at_random_times_ends_with_identical_results(
    request: pytest.FixtureRequest, size: str, kills: int, attempts: int
) -> None:
    campaign = Campaign("A3 up to 3 SIGKILLs of run, worker or all at random times, 12 cells, local, 2 jobs")
    run_campaign(campaign, request.getfixturevalue(size), kills, attempts, ("run", "worker", "all"))


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [nothing, mutants.ignore_deaths])
def test_death_of_a_worker_is_noticed(small_local: Grid, mutate: Callable[[], None]) -> None:
    hit = False
    while not hit:  # on a busy machine the kill may come after the end of the cell
        attempt = Attempt.fresh(small_local)
        child = attempt.start(mutate)
        while not attempt.starts():
            assert child.poll() is None, child.printed()
            time.sleep(0.001)
        assert kill_worker(attempt, descendants_of(child.pid))
        hit = not list(attempt.results.glob("cells/*/result.json"))
        problems = unnoticed(attempt, child, Counter())
    assert bool(problems) == (mutate is mutants.ignore_deaths), problems
