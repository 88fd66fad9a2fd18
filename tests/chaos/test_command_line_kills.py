"""A4: the command line in a fresh process is killed, alone or with its process group, and is given again."""

import copy
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers.running import START

from chaos import starts
from chaos.campaign import Campaign
from chaos.grid import HERE, Attempt, Grid, digests
from chaos.processes import descendants_of, wait_for_end


def start(attempt: Attempt) -> subprocess.Popen[bytes]:
    """Start the command line, the leader of a process group."""
    with attempt.output.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", START, *attempt.grid.arguments(attempt.results), *HERE, *attempt.grid.executor],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {starts.LOG: str(attempt.log), "DECODERBENCH_CACHE": str(attempt.grid.folder / "cache")},
        )


def finish(attempt: Attempt) -> float:
    """Run the command line to its end and return the seconds it took."""
    begin = time.monotonic()
    status = start(attempt).wait(300)
    assert status == 0, attempt.output.read_text()
    return time.monotonic() - begin


@pytest.mark.parametrize(
    "count", [pytest.param(1, id="sample", marks=pytest.mark.slow), pytest.param(20, id="all", marks=pytest.mark.chaos)]
)
def test_killed_command_line_leaves_no_process_and_goes_on(small_local: Grid, count: int) -> None:
    campaign, grid = Campaign("A4 SIGKILL of the command line in a fresh process, alone or its group"), small_local
    reference = Attempt.fresh(grid, "command")
    seconds = finish(reference)
    grid = copy.copy(small_local)
    grid.reference = digests(reference.results)
    for seed in range(count):
        dice, attempt = random.Random(seed), Attempt.fresh(grid)
        process, after = start(attempt), dice.uniform(0.3, 1.0) * seconds
        time.sleep(after)
        processes = descendants_of(process.pid)
        if process.poll() is None:
            campaign.faults += 1
            (os.kill, os.killpg)[seed % 2](process.pid, signal.SIGKILL)
            process.wait()
        campaign.failures += [
            f"seed {seed}: process {pid} outlived the command line" for pid in wait_for_end(processes)
        ]
        attempt.note_fault()
        finish(attempt)
        campaign.attempts += 1
        campaign.compare(attempt, f"seed {seed}, killed after {after:.2f} s")
    campaign.conclude()
