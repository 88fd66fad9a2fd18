"""What cells side by side gain, and what worker processes cost, by the command line in fresh processes.

    python benchmarks/jobs.py [--rounds 5] [--steps 800] [--out FILE.jsonl] [--small]

Six cells of quickstart's size are trained one at a time, two at a time, and one at a time with two threads; in each
round all variants run, in turns. Then the executors `local` and `inline` run one cell and six cells of a single step,
and one cell of many steps. Images are decoded beforehand. No GPU is used.
"""

from __future__ import annotations

import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from figure_file import FigureWriter, installed_versions, parser

from decoderbench.data.worker_processes import usable_cores

COMMAND = Path(sys.executable).with_name("decoderbench")
QUICKSTART = Path(__file__).parents[1] / "experiments" / "quickstart.toml"
FEW_IMAGES = ("dataset.train=128", "dataset.val=10", "dataset.test=10")
ENCODER = "EfficientNet"  # with which all three decoders are feasible
ONE_CELL, SIX_CELLS = "0", "0,1"  # seeds
SAMPLE_SECONDS = 0.5


class Outcome(NamedTuple):
    """How long a command took, and the training rate of its first cell, in images per second."""

    seconds: float
    rate: float


class Bench:
    """Runs grids in a temporary folder; `small` takes few steps on few images."""

    def __init__(self, folder: Path, *, small: bool, steps: int) -> None:
        self.folder, self.small, self.steps = folder, small, 2 if small else steps
        self._environment = os.environ | {"DECODERBENCH_CACHE": str(folder / "cache"), "DECODERBENCH_EXECUTOR": ""}
        self._runs = 0

    def run(
        self, *options: str, seeds: str = SIX_CELLS, steps: int | None = None, few: bool = False, cells: str = ENCODER
    ) -> Outcome:
        """Train cells in a new results folder; raise `RuntimeError` if that fails."""
        self._runs += 1
        results = self.folder / f"results{self._runs}"
        steps = steps or self.steps
        # One validation, so that training has about the share of the time that it has in quickstart's 2,000 steps.
        settings = [f"training.steps={steps}", f"training.validate_every={steps}"]
        settings += FEW_IMAGES if few or self.small else ()
        command = [str(COMMAND), "run", str(QUICKSTART), "--results", str(results), "--device", "cpu", "-k", cells]
        command += ["--seeds", seeds, *options, *(part for setting in settings for part in ("--set", setting))]
        start = time.perf_counter()
        finished = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)
        seconds = time.perf_counter() - start
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit status {finished.returncode}: {finished.stderr[-2000:]}")
        with (results / "tables/cells.csv").open(encoding="utf-8", newline="") as file:
            rates = [
                float(row["train_samples_per_sec"] or "nan") for row in csv.DictReader(file) if row["status"] == "done"
            ]
        return Outcome(seconds, rates[0])


def alternate(rounds: int, variants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return what each variant measured in each round; every second round runs them in the other order."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            found[name].append(variants[name]())
    return found


def spread_of(values: list[float]) -> float:
    return (max(values) - min(values)) / 2


def compare_jobs(figures: FigureWriter, bench: Bench, rounds: int) -> None:
    """Time six cells, one at a time and two at a time."""
    variants = {
        "jobs 1": ("--jobs", "1", "--threads", "1"),
        "jobs 2": ("--jobs", "2", "--threads", "1"),
        "jobs 1, two threads": ("--jobs", "1", "--threads", "2"),
    }
    seconds = alternate(
        rounds, {name: lambda options=options: bench.run(*options).seconds for name, options in variants.items()}
    )
    for name, values in seconds.items():
        figures.add(f"six cells, {name}", statistics.median(values), "s", n=rounds, spread=spread_of(values))
    for name in ("jobs 1", "jobs 1, two threads"):
        ratios = [two / one for two, one in zip(seconds["jobs 2"], seconds[name], strict=True)]
        ruled = name == "jobs 1" and not bench.small and usable_cores() >= 2
        figures.add(
            f"six cells, jobs 2 relative to {name}", statistics.median(ratios), "1",
            n=rounds, spread=spread_of(ratios), ok=statistics.median(ratios) <= 0.65 if ruled else None,
        )  # fmt: skip


def measure_memory(figures: FigureWriter, bench: Bench) -> None:
    """Sample the memory of all processes of a run with two workers; pages that several share count once in total."""
    known = set(processes())
    peaks: dict[str, float] = {"all processes": 0.0, "largest process": 0.0}
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(SAMPLE_SECONDS):
            sizes = [proportional_megabytes(process) for process in descendants() if process not in known]
            peaks["all processes"] = max(peaks["all processes"], sum(sizes))
            peaks["largest process"] = max(peaks["largest process"], *sizes, 0.0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        bench.run("--jobs", "2", steps=None if bench.small else 100)
    finally:
        finished.set()
        watcher.join()
    for name, value in peaks.items():
        figures.add(f"memory (PSS) with jobs 2, {name}", value, "MB")


def processes() -> dict[int, int]:
    """Return the parent of each process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def descendants() -> list[int]:
    """Return the processes that this one has started, and those that they have."""
    parents, found = processes(), {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def proportional_megabytes(process: int) -> float:
    """Return the proportional set size of a process; 0 if it has ended."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1000
    return 0.0


def compare_executors(figures: FigureWriter, bench: Bench, rounds: int) -> None:
    """Time what workers cost per run and per cell, and the steps in one."""
    executors = {"inline": ("--executor", "inline"), "local": ("--executor", "local", "--jobs", "1")}
    grids = {"one cell": (ONE_CELL, f"{ENCODER} and CTC"), "six cells": (SIX_CELLS, ENCODER)}
    variants = {
        f"{grid}, {name}": lambda options=options, seeds=seeds, cells=cells: (
            bench.run(*options, seeds=seeds, steps=1, few=True, cells=cells).seconds
        )
        for grid, (seeds, cells) in grids.items()
        for name, options in executors.items()
    }
    seconds = alternate(rounds, variants)
    for name, values in seconds.items():
        figures.add(f"one step, {name}", statistics.median(values), "s", n=rounds, spread=spread_of(values))
    one, six = (
        [local - inline for local, inline in zip(seconds[f"{grid}, local"], seconds[f"{grid}, inline"], strict=True)]
        for grid in grids
    )
    per_cell = statistics.median((more - less) / 5 for more, less in zip(six, one, strict=True))
    per_run = statistics.median(one) - per_cell
    torch = statistics.median(import_seconds("torch") - import_seconds("sys") for _ in range(rounds))
    figures.add("import of torch", torch, "s", n=rounds)
    figures.add(
        "local against inline, per run", per_run, "s", n=rounds, spread=spread_of(one),
        ok=None if bench.small else per_run < torch + 3.0,
    )  # fmt: skip
    figures.add(
        "local against inline, per cell", 1e3 * per_cell, "ms", n=rounds, ok=None if bench.small else per_cell < 0.05
    )
    rates = alternate(
        rounds,
        {
            name: lambda options=options: (
                bench.run(
                    *options, seeds=ONE_CELL, steps=12 if bench.small else 200, few=True, cells=f"{ENCODER} and CTC"
                ).rate
            )
            for name, options in executors.items()
        },
    )
    ratios = [inline / local for inline, local in zip(rates["inline"], rates["local"], strict=True)]
    figures.add(
        "step in a worker, relative to inline", statistics.median(ratios), "1", n=rounds, spread=spread_of(ratios),
        ok=None if bench.small else statistics.median(ratios) <= 1.05,
    )  # fmt: skip


def import_seconds(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=800, help="of each of the six cells")
    given = arguments.parse_args()
    rounds = 1 if given.small else given.rounds
    figures = FigureWriter("jobs", given.out, platform.processor() or platform.machine(), installed_versions())
    figures.add("cores", usable_cores())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), small=given.small, steps=given.steps)
        for few in (True,) if given.small else (True, False):  # to decode the images
            bench.run(seeds=ONE_CELL, steps=1, few=few, cells=f"{ENCODER} and CTC")
        measure_memory(figures, bench)
        compare_executors(figures, bench, rounds)
        compare_jobs(figures, bench, rounds)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
