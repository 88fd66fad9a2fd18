"""A5: a grid is told to stop by SIGINT or SIGTERM at random times, sometimes twice, and is run again."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from chaos.campaign import Campaign
from chaos.grid import Attempt
from chaos.processes import descendants_of, wait_for_end
from chaos.test_random_kills import SEED

LIMIT = 5.0
"""Seconds that a run has to end, steps of milliseconds included."""


def stop_at_random(attempt: Attempt, dice: random.Random, campaign: Campaign) -> str:
    """Run a grid and send it a signal at some time; return what was sent, or nothing if it ended before."""
    number, twice = dice.choice((signal.SIGINT, signal.SIGTERM)), dice.random() < 0.2
    child, delay = attempt.start(), dice.uniform(0, attempt.grid.seconds)
    while not attempt.output.exists() or not attempt.output.stat().st_size:  # until then, it is no run yet
        time.sleep(0.001)
    end = time.monotonic() + delay
    while time.monotonic() < end and child.poll() is None:
        time.sleep(0.001)
    workers, sent = descendants_of(child.pid), time.monotonic()
    with suppress(ProcessLookupError):
        if child.poll() is None:
            os.kill(child.pid, number)
            if twice:
                time.sleep(0.5)
                if child.poll() is None:
                    os.kill(child.pid, number)
    label = f"{number.name}{' twice' * twice} at {delay:.3f} s"
    status, seconds = child.wait(), time.monotonic() - sent
    if status not in (0, 128 + number, *((-number,) if twice else ())):
        campaign.failures.append(f"{label}: exit status {status}: {child.printed()}")
    if status == 128 + number and not any(word in child.printed() for word in ("same command again", "interrupted")):
        campaign.failures.append(f"{label}: no word on how to go on: {child.printed()}")
    campaign.failures += [f"{label}: process {pid} outlived its run" for pid in wait_for_end(workers)]
    campaign.remark = f"slowest end {max(seconds, float(campaign.remark.split()[2] if campaign.remark else 0)):.1f} s"
    attempt.note_fault()
    return label if status else ""


@pytest.mark.parametrize(
    ("size", "number"),
    [
        pytest.param("six", 4, id="sample", marks=pytest.mark.slow),
        pytest.param("six_local", 3, id="sample, local", marks=pytest.mark.slow),
        pytest.param("twelve", 50, id="all", marks=pytest.mark.chaos),
        pytest.param("twelve_local", 50, id="all, local", marks=pytest.mark.chaos),
    ],
)
def test_grid_stopped_by_a_signal_ends_soon_and_goes_on(request: pytest.FixtureRequest, size: str, number: int) -> None:
    campaign = Campaign(
        f"A5 SIGINT or SIGTERM at random times, 12 cells, {'local, 2 jobs' * ('local' in size) or 'inline'}"
    )
    grid, seed = request.getfixturevalue(size), SEED
    while campaign.faults < number:
        attempt, dice = Attempt.fresh(grid), random.Random(seed)
        stopped = [stop_at_random(attempt, dice, campaign) for _ in range(2)]
        campaign.faults += len(list(filter(None, stopped)))
        campaign.finish(attempt, f"seed {seed}, {stopped}")
        seed += 1
    slowest = float(campaign.remark.split()[2])
    if "twelve" in size and slowest > LIMIT:
        campaign.failures.append(f"a run took {slowest} s to end; {LIMIT} s are allowed on a machine that is not busy")
    campaign.conclude()
