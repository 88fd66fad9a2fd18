"""A grid whose cells train in a tenth of a second, run by the command line in forked processes, and its results."""

import csv
import hashlib
import io
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from helpers.commands import leave_out_figures
from helpers.experiments import micro_experiment
from helpers.running import TINY_PLUGIN, to_toml

from chaos import starts
from chaos.processes import Child, fork, spawn_by_fork
from decoderbench import cli
from decoderbench.records import leases
from decoderbench.records.schema import Cost
from decoderbench.training import checkpoint, cores, timing

INLINE = ("--executor", "inline")
LOCAL = ("--executor", "local", "--jobs", "2")
HERE = ("--device", "cpu", "-p", str(TINY_PLUGIN), "-p", starts.__file__, "--checkpoint-every", "0.001")
COST_COLUMNS = {*Cost.model_fields, "measured", "jobs"}
"""Costs, and the conditions of their measurement."""

EXPERIMENT = micro_experiment(train=16, val=4, steps=4)


def nothing() -> None:
    """Prepare a forked process in no way."""


@dataclass
class Grid:
    """An experiment of 2 cells per seed.

    Attributes:
        folder: receives the experiment file, the image cache and the results.
        seeds: how many seeds.
        steps: optimizer steps of a cell.
        executor: options of the command line that choose it.
        reference: digests of the results of a run without faults, by name of the file.
        seconds: the duration of that run.
    """

    folder: Path
    seeds: int = 1
    steps: int = 6
    executor: tuple[str, ...] = INLINE
    reference: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Run the grid without faults; its results are the reference, its duration is kept."""
        training = EXPERIMENT["training"] | {"steps": self.steps, "validate_every": self.steps // 2}
        grid = EXPERIMENT["grid"] | {"seeds": list(range(self.seeds))}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "micro.toml").write_text(to_toml(EXPERIMENT | {"training": training, "grid": grid}))
        # In this process: those that are forked have nothing left to import, and the images are decoded.
        assert Attempt.fresh(self, "first").run_command(executor=INLINE) == 0
        reference, start = Attempt.fresh(self, "reference"), time.monotonic()
        reference.finish()
        self.seconds = time.monotonic() - start
        self.reference = digests(reference.results)

    def arguments(self, results: Path) -> list[str]:
        """Return the arguments of the command line but for the executor."""
        return ["run", str(self.folder / "micro.toml"), "--results", str(results)]


@dataclass
class Attempt:
    """One results folder of a grid, from its first run, over all faults, to the run that finishes it.

    Attributes:
        grid: the experiment.
        results: the folder.
        finished: the cells that were finished when a fault happened; they must not start again.
        starts_before: how often each of these had started then.
    """

    grid: Grid
    results: Path
    finished: set[str] = field(default_factory=set)
    starts_before: Counter[str] = field(default_factory=Counter)

    @classmethod
    def fresh(cls, grid: Grid, name: str = "attempt") -> Self:
        """Return an attempt without any files of an earlier one of the same name."""
        attempt = cls(grid, grid.folder / name)
        for folder in (attempt.results, attempt.journal):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (attempt.log, attempt.output):
            file.unlink(missing_ok=True)
        attempt.journal.mkdir()
        return attempt

    @property
    def log(self) -> Path:
        """The log of starts and ends of cells."""
        return self.results.with_name(f"{self.results.name}.log")

    @property
    def output(self) -> Path:
        """What the runs have printed."""
        return self.results.with_name(f"{self.results.name}.out")

    @property
    def journal(self) -> Path:
        """A folder for what `FileOperations` notes."""
        return self.results.with_name(f"{self.results.name}.journal")

    def start(self, prepare: Callable[[], None] = nothing, *options: str, command: Sequence[str] = ()) -> Child:
        """Run the grid, or another command, in a forked process; `prepare` is called in it first."""

        def run() -> int:
            spawn_by_fork()
            prepare()
            return self.run_command(*options, command=command)

        return fork(run, self.output)

    def start_worker(self, prepare: Callable[[], None] = nothing) -> Child:
        """Take part in a run that has written its plan, in a forked process; `prepare` is called in it first."""
        return self.start(prepare, command=["worker", str(self.results)])

    def run_command(self, *options: str, executor: tuple[str, ...] | None = None, command: Sequence[str] = ()) -> int:
        """Run the grid in this process, with little measuring and no figures; return the exit status."""
        command = command or self.grid.arguments(self.results)
        with pytest.MonkeyPatch.context() as patch:
            leave_out_figures(patch)
            patch.setattr(cores, "SAMPLE_SECONDS", 0.0)
            patch.setattr(timing, "LATENCY_WARM_UPS", 0)
            patch.setattr(timing, "LATENCY_RUNS", 1)
            patch.setattr(checkpoint, "LARGEST_SHARE", 1.0)  # the time of writing is the only limit
            patch.setenv(starts.LOG, str(self.log))
            patch.setenv("DECODERBENCH_CACHE", str(self.grid.folder / "cache"))
            patch.setattr(
                sys,
                "argv",
                ["decoderbench", *command, *HERE, *(executor or self.grid.executor), *options],
            )
            try:
                cli.main()
            except SystemExit as error:
                return int(error.code or 0)
            return 0

    def events(self) -> list[tuple[str, str, int, float]]:
        """Return what happened, in order: `started` or `finished`, the cell, the process, and the time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        words = [line.split() for line in lines]
        return [(event, cell, int(pid), float(seconds)) for event, cell, pid, seconds in words]

    def starts(self) -> Counter[str]:
        """Return how often each cell has started."""
        return Counter(cell for event, cell, *_ in self.events() if event == "started")

    def note_fault(self, *, reported_only: bool = False) -> None:
        """Note which cells are finished: those with a result, or only those that were reported as finished."""
        if reported_only:
            self.finished |= {cell for event, cell, *_ in self.events() if event == "finished"}
        else:
            records = self.results.glob("cells/*/result.json")
            self.finished |= {path.parent.name for path in records if b'"status": "done"' in path.read_bytes()}
        self.starts_before = self.starts()

    def finish(self, *options: str) -> None:
        """Run the grid to its end; raise RuntimeError if that fails."""
        child = self.start(nothing, *options)
        if status := child.wait():
            raise RuntimeError(f"exit status {status}:\n{child.printed()}")

    def differences(self) -> list[str]:
        """Return what is different or missing in the finished results: nothing, if they are those of the reference."""
        found, reference = digests(self.results), self.grid.reference
        wrong = [name for name in sorted(reference) if name in found and found[name] != reference[name]]
        missing = sorted(reference.keys() - found)
        return [*(f"{name} differs" for name in wrong), *(f"{name} is missing" for name in missing)]

    def left_over(self) -> list[str]:
        """Return the files of the finished results that a run without faults does not leave."""
        return [f"{name} is left over" for name in sorted(digests(self.results).keys() - self.grid.reference)]

    def trained_again(self) -> list[str]:
        """Return the cells that started again after they were finished."""
        starts = self.starts()
        return [
            f"{cell} was trained again" for cell in sorted(self.finished) if starts[cell] != self.starts_before[cell]
        ]

    def rows_missing(self) -> int:
        """Return how many cells of the grid have no row in `cells.csv`."""
        return 2 * self.grid.seeds - len(_rows(self.results / "tables/cells.csv"))


def digests(results: Path) -> dict[str, str]:
    """Return a digest of each file of a results folder, without what depends on date, speed and the kind of leases."""
    files = [path for path in sorted(results.rglob("*")) if path.is_file() and not _is_of_a_lease(path, results)]
    found = {}
    for path in files:
        try:
            content = _lasting(path)
        except (ValueError, KeyError):  # damaged
            content = path.read_bytes()
        found[str(path.relative_to(results))] = hashlib.sha256(content).hexdigest()
    return found


def _is_of_a_lease(path: Path, results: Path) -> bool:
    return path.name == leases.LOCK or results / leases.FOLDER in path.parents


def _lasting(path: Path) -> bytes:
    """Return the content of a file that a run without faults writes again.

    Raises:
        ValueError, KeyError: it is damaged.
    """
    match path.name:
        case "cells.csv":
            kept = [{name: value for name, value in row.items() if name not in COST_COLUMNS} for row in _rows(path)]
            return json.dumps(kept).encode()
        case "history.jsonl":
            history = [json.loads(line) for line in path.read_bytes().splitlines()]
            return json.dumps([{**row, "seconds": 0} for row in history]).encode()
        case "result.json":
            record = json.loads(path.read_bytes())
            return json.dumps({name: record[name] for name in LASTING}, sort_keys=True).encode()
        case "report.md" | "main.csv" | "plan.json":  # these state times and the command
            return b""
    if path.suffix in (".svg", ".pdf", ".tex", ".html"):  # costs are drawn, and the command is stated
        return b""
    return path.read_bytes()


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text()))) if path.exists() else []


LASTING = (
    "format",
    "cell",
    "status",
    "reason",
    "metrics",
    "metric_sources",
    "predictions_digest",
    "num_test",
    "kept_step",
)
"""The fields of `result.json` that no date and no speed are part of."""
