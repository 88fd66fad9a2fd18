"""A9: several processes run one grid in one folder; each cell is trained once, and a killed holder's cell again."""

import functools
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from chaos import mutants, starts
from chaos.campaign import Campaign
from chaos.grid import Attempt, Grid, nothing
from chaos.processes import Child, descendants_of, is_stopped
from decoderbench.records import leases
from decoderbench.training import measuring

PROCESSES = (2, 4, 8)
SHARES = [
    pytest.param("small", 1, id="sample"),
    pytest.param("six", 3, id="longer", marks=pytest.mark.slow),
    pytest.param("six", 30, id="all", marks=pytest.mark.chaos),
    pytest.param("six_local", 30, id="all, local", marks=pytest.mark.chaos),
]


def start_staggered(attempt: Attempt, processes: int, dice: random.Random, prepare: Callable[[], None]) -> list[Child]:
    """Start processes within 200 ms."""
    started, children, begin = sorted(dice.uniform(0, 0.2) for _ in range(processes)), [], time.monotonic()
    for seconds in started:
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        children.append(attempt.start(prepare))
    return children


def check_statuses(children: list[Child], campaign: Campaign, label: str) -> None:
    """Wait for processes and note those that failed."""
    for child in children:
        if status := child.wait():
            campaign.failures.append(f"{label}: exit status {status}: {child.printed()[-2000:]}")


def check_starts(attempt: Attempt, campaign: Campaign, label: str, killed: set[str]) -> None:
    """Note the cells that were not started exactly once, or twice if their holder was killed."""
    for cell, count in attempt.starts().items():
        if count > 1 + (cell in killed):
            campaign.trained_again += 1
            campaign.failures.append(f"{label}: {cell} was started {count} times")


def run_together(grid: Grid, seed: int, campaign: Campaign, prepare: Callable[[], None] = nothing) -> None:
    """Run a grid by several processes at once, and compare."""
    dice, processes = random.Random(seed), PROCESSES[seed % len(PROCESSES)]
    attempt, label = Attempt.fresh(grid), f"seed {seed}, {processes} processes"
    children = start_staggered(attempt, processes, dice, prepare)
    campaign.attempts += 1
    check_statuses(children, campaign, label)
    check_starts(attempt, campaign, label, set())
    campaign.compare(attempt, label)
    if prepare is beat:
        assert (attempt.results / leases.FOLDER).is_dir()
        assert not list(attempt.results.glob(f"cells/*/{leases.LOCK}"))


def kill_holder(attempt: Attempt, children: list[Child], dice: random.Random) -> tuple[set[str], float]:
    """Kill a run that has cells under way; return these and when, or nothing if all runs ended before."""
    after = dice.randrange(2 * attempt.grid.seeds)  # starts of cells to let pass
    while any(child.poll() is None for child in children):
        running: dict[int, str] = {}
        for event, cell, pid, _ in attempt.events():
            running = {holder: held for holder, held in running.items() if held != cell}
            if event == "started":
                running[pid] = cell
        processes = {child.pid: {child.pid, *descendants_of(child.pid)} for child in children if child.poll() is None}
        holders = [child for child in children if processes.get(child.pid, set()) & running.keys()]
        if holders and sum(attempt.starts().values()) > after:
            holder = dice.choice(holders)
            if holder.kill_group():
                children.remove(holder)
                events, when = attempt.events(), time.monotonic()
                reported = {cell for event, cell, pid, _ in events if (event, pid) == ("finished", holder.pid)}
                started = {
                    cell for event, cell, pid, _ in events if event == "started" and pid in processes[holder.pid]
                }
                return started - reported, when
        time.sleep(0.001)
    return set(), 0.0


def beat() -> None:
    """Hold cells by heartbeats, as where locks do not hold."""
    leases.Leases.unsafe = "locks are not used in this test"  # type: ignore[assignment]


def beat_quickly() -> None:
    """Hold cells by heartbeats, and let a holder count as dead after longer than a busy machine holds one up."""
    beat()
    leases.HEARTBEAT_SECONDS, leases.STALE_SECONDS = 0.5, 8.0


@pytest.mark.parametrize(("size", "count"), SHARES)
def test_processes_in_one_folder_train_each_cell_once(request: pytest.FixtureRequest, size: str, count: int) -> None:
    grid: Grid = request.getfixturevalue(size)
    campaign = Campaign(f"A9 2, 4 or 8 processes in one folder, {grid.executor[1]}")
    for seed in range(count):
        run_together(grid, seed, campaign)
    campaign.conclude()


@pytest.mark.parametrize(("size", "count"), SHARES)
def test_other_processes_take_over_the_cell_of_a_killed_one(
    request: pytest.FixtureRequest, size: str, count: int
) -> None:
    kill_one_of_several(request.getfixturevalue(size), count, "", nothing)


@pytest.mark.parametrize(("size", "count"), SHARES[1:])
def test_heartbeats_do_what_locks_do(request: pytest.FixtureRequest, size: str, count: int) -> None:
    grid: Grid = request.getfixturevalue(size)
    campaign = Campaign(f"A9 2, 4 or 8 processes in one folder, heartbeats, {grid.executor[1]}")
    for seed in range(count):
        run_together(grid, seed, campaign, beat)
    campaign.conclude()
    kill_one_of_several(grid, count, "heartbeats, ", beat_quickly)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [nothing, beat], ids=["locks", "heartbeats"])
def test_eight_workers_train_what_a_run_has_left(six: Grid, prepare: Callable[[], None]) -> None:
    attempt, campaign = Attempt.fresh(six), Campaign("A9 eight workers in one folder")
    assert attempt.start(prepare, "-k", "ctc and 'seed 0'").wait() == 0
    check_statuses([attempt.start_worker(prepare) for _ in range(8)], campaign, "worker")
    campaign.attempts += 1
    check_starts(attempt, campaign, "worker", set())
    campaign.compare(attempt, "worker")
    campaign.conclude()


def kill_one_of_several(grid: Grid, count: int, kind: str, prepare: Callable[[], None]) -> None:
    """Run a grid by several processes at once, of which one is killed, `count` times."""
    named = f"A9 2, 4 or 8 processes in one folder, one is killed, {kind}{grid.executor[1]}"
    campaign, longest = Campaign(named), 0.0
    for seed in range(count):
        dice, processes = random.Random(seed), PROCESSES[seed % len(PROCESSES)]
        attempt, label = Attempt.fresh(grid), f"seed {seed}, {processes} processes"
        children = start_staggered(attempt, processes, dice, prepare)
        cells, killed_at = kill_holder(attempt, children, dice)
        campaign.faults += bool(cells)
        campaign.attempts += 1
        check_statuses(children, campaign, label)
        check_starts(attempt, campaign, label, cells)
        campaign.compare(attempt, label)
        taken_over = [
            when - killed_at for event, cell, _, when in attempt.events() if event == "started" and cell in cells
        ]
        longest = max([longest, *taken_over])
    campaign.remark = f"taken over within {longest:.1f} s"
    campaign.conclude()


@pytest.mark.parametrize("mutate", [mutants.lock_nothing, mutants.share_leases])
def test_processes_that_hold_nothing_are_noticed(small: Grid, mutate: Callable[[], None]) -> None:
    campaign = Campaign("without leases")
    run_together(small, 0, campaign, mutate)
    assert campaign.failures


@pytest.mark.slow
def test_process_that_was_paused_leaves_its_cell_to_the_one_that_has_taken_it_over(small: Grid) -> None:
    def hurry() -> None:
        beat_quickly()
        turn = measuring.MachineTurn  # the paused process may be the one that measures
        turn.__init__ = functools.partialmethod(turn.__init__, patience=1.0)  # type: ignore[assignment, method-assign]

    def hurry_and_stop() -> None:
        hurry()
        os.environ[starts.STOP] = ""

    attempt, campaign = Attempt.fresh(small), Campaign("A9 a paused process")
    paused = attempt.start(hurry_and_stop)
    try:
        while not is_stopped(paused.pid):
            assert paused.poll() is None, paused.printed()
            time.sleep(0.01)
        (cell,) = attempt.starts()
        other = attempt.start(hurry)
        while attempt.starts()[cell] < 2:
            assert other.poll() is None, other.printed()
            time.sleep(0.01)
        os.kill(paused.pid, signal.SIGCONT)
        check_statuses([paused, other], campaign, "paused")
    finally:
        paused.kill_group()
    assert not campaign.failures
    events = [(event, pid) for event, which, pid, _ in attempt.events() if which == cell]
    assert events == [("started", paused.pid), ("started", other.pid), ("finished", other.pid)]
    campaign.attempts += 1
    check_starts(attempt, campaign, "paused", {cell})
    campaign.compare(attempt, "paused")
    campaign.conclude()
