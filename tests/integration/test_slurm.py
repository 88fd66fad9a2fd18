"""`--executor slurm`, its jobs as processes of this machine: what happens when their time is up or the run dies."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from helpers.long_grid import RUN, check_same_as_local, wait_for_checkpoint, write_long_grid
from helpers.running import TINY_PLUGIN, start_command

from decoderbench import load_frame

SLURM = ["--executor", "slurm", "--set", "executor.cluster=local"]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """The folder of a grid of two cells of some seconds each."""
    write_long_grid(tmp_path, seeds=2, steps=1200)
    return tmp_path


def controllers(folder: Path) -> list[int]:
    """Return the processes that are jobs of the local cluster: each supervises one that runs cells."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "submitit.local._local" in words and any(
                word.startswith(str(folder / "results" / "grid" / "logs")) for word in words
            ):
                found.append(int(entry.name))
    return found


def children(process: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


@pytest.mark.slow
def test_job_whose_time_is_up_saves_its_cell_and_goes_on_when_it_is_queued_again(
    grid: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = start_command(["run", "grid.toml", *RUN, *SLURM, "--jobs", "1"], cwd=grid)
    wait_for_checkpoint(grid)
    (job,) = controllers(grid)
    for task in children(job):
        os.kill(task, signal.SIGUSR2)  # as Slurm does before it ends a job
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    (log,) = (grid / "results" / "grid" / "logs").glob("*/*.out")
    text = log.read_text(encoding="utf-8")
    assert "Requeued job" in text
    assert len(re.findall("Starting with", text)) == 2
    assert f'href="logs/{log.parent.name}/{log.name}"' in (grid / "results" / "grid" / "report.html").read_text(
        encoding="utf-8"
    )
    check_same_as_local(grid, capfd)


@pytest.mark.chaos
def test_jobs_go_on_without_their_run_and_another_run_waits_for_them(
    grid: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = start_command(["run", "grid.toml", *RUN, *SLURM, "--jobs", "2"], cwd=grid)
    wait_for_checkpoint(grid)
    run.kill()
    run.wait()  # its output stays open: jobs have it too
    assert run.stdout is not None
    run.stdout.close()
    assert len(controllers(grid)) == 2
    run = start_command(["run", "grid.toml", *RUN, *SLURM, "--jobs", "1"], cwd=grid)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 0, printed
    check_same_as_local(grid, capfd)


@pytest.mark.chaos
def test_plugin_that_raises_in_a_job_ends_the_run_with_its_reason(grid: Path) -> None:
    plugin = grid / "mine.py"
    raising = "import os\nif 'SUBMITIT_LOCAL_JOB_ID' in os.environ: raise RuntimeError('not in a job')\n"
    plugin.write_text(raising + TINY_PLUGIN.read_text(encoding="utf-8"))
    command = ["run", "grid.toml", "--device", "cpu", "-p", str(plugin), *SLURM]
    run = start_command(command, cwd=grid)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 2, printed
    assert re.search(r"machine \S+: plugin .*mine\.py.*RuntimeError: not in a job", printed), printed
    assert list(grid.glob("results/grid/cells/*/result.json")) == []


KILLS_ITS_JOB = """
import os
import signal
from pathlib import Path

from decoderbench import hookimpl


@hookimpl(wrapper=True)
def run_cell(cell, context):
    process, commands = os.getpid(), {}
    while process > 1:
        commands[process] = Path(f"/proc/{process}/cmdline").read_text()
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    for job in [one for one, command in commands.items() if "submitit" in command and cell.seed == 1]:
        os.kill(job, signal.SIGKILL)
    return (yield)
"""


@pytest.mark.chaos
def test_cell_that_takes_its_jobs_with_it_is_crashed_after_the_retries_and_the_others_are_done(grid: Path) -> None:
    (grid / "kills.py").write_text(KILLS_ITS_JOB, encoding="utf-8")
    command = ["run", "grid.toml", *RUN, "-p", str(grid / "kills.py"), *SLURM, "--set", "executor.retries=1"]
    run = start_command([*command, "--jobs", "1"], cwd=grid)
    printed = run.communicate(timeout=200)[0]
    assert run.returncode == 1, printed
    frame = load_frame(grid / "results" / "grid").set_index("seed")
    assert frame["status"].to_dict() == {0: "done", 1: "crashed"}
    told = r"2 jobs have died while they ran it: .*\d+ \(.*; their output is in logs.*executor.memory_per_cell=GB"
    assert re.search(told, frame["reason"][1])
    assert not list((grid / "results" / "grid" / "logs").glob("begun-*"))
