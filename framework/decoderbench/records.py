"""RunRecord and the directory that holds them: results/<experiment>/cells/<slug>-<hash>/.

A cell is done when its `result.json` exists: it is written last and appears in one piece. So whatever stopped a
run, running it again trains what has no result. No torch here.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError, DataError
from decoderbench.options import Options

logger = logging.getLogger("decoderbench")

FORMAT = 2
"""Version of `plan.json` and `result.json`. Files of version 1, of decoderbench 0.1, do not name it."""

Status = Literal["done", "failed", "oom", "diverged", "infeasible"]


class OtherFormatError(DataError):
    """A file of results has another format than this version reads; it is left as it is."""


class Cost(Options):
    """What a cell costs, measured on the device that the record names. None where it was not measured."""

    train_samples_per_sec: float | None = None
    """Images a second while training, validation left out."""

    infer_samples_per_sec: float | None = None
    """Images a second while transcribing the test split in batches."""

    latency_ms: float | None = None
    """Median time to transcribe one image alone, the device synchronized."""

    peak_memory_mb: float | None = None
    """Peak memory in MB (10^6 bytes): of the accelerator's allocator, else resident memory of the process."""

    train_seconds: float | None = None
    """Wall time of training, validation included."""


class RunRecord(Options):
    """The result of one cell."""

    format: int = FORMAT

    cell: Cell
    status: Status
    reason: str = ""
    """Why there is no result, in a sentence; empty if done."""

    metrics: dict[str, float | None] = Field(default_factory=dict)
    """On the test split, by name; rates are fractions of 1. None where a metric is not defined."""

    num_test: int | None = None
    """Images that the metrics are taken over."""

    kept_step: int | None = None
    """The optimizer step whose weights were tested."""

    cost: Cost = Cost()
    device: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    """Date, versions, machine and commit of the run."""


class Plan(Options):
    """All cells of an experiment in grid order, and what was said about the data."""

    format: int = FORMAT

    experiment: str
    command: str
    """The command line that made the plan."""

    cells: tuple[Cell, ...]
    data_summary: tuple[str, ...] = ()
    """What the audit found in the data: counts, lengths, charset."""

    data_notes: tuple[str, ...] = ()
    """What stands below every table: data problems that were allowed, and how many samples have them."""


class ResultsDirectory:
    """Everything that a run of one experiment leaves behind. The only place that writes there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def cell_directory(self, cell: Cell) -> Path:
        """Return where the artifacts of a cell lie."""
        return self.path / "cells" / cell.cell_id

    def refuse_other_experiment(self, name: str) -> None:
        """Raise an error if this is not a folder that results of an experiment of this name can be added to.

        Raises:
            ConfigError: it is a file, or holds the results of another experiment.
            OtherFormatError: its plan was written by another version of decoderbench.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError([f"--results {self.path}: is not a folder; give another"])
        try:
            there = self.read_plan().experiment
        except OtherFormatError:
            raise
        except DataError:
            return  # none, or damaged and about to be written anew
        if there != name:
            raise ConfigError(
                [f"--results {self.path}: holds results of experiment {there!r}, not {name!r}; give another folder"]
            )

    def count_others(self, cells: Sequence[Cell]) -> int:
        """Return how many results lie here that are not of these cells."""
        known = {cell.cell_id for cell in cells}
        return sum(path.parent.name not in known for path in self.path.glob("cells/*/result.json"))

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`, which gives tables their rows and their order."""
        write_atomically(self.path / "plan.json", plan.model_dump_json(indent=1).encode())

    def read_plan(self) -> Plan:
        """Read `plan.json`; raise `DataError` if there is none or it is damaged."""
        path = self.path / "plan.json"
        try:
            content = path.read_bytes()
            _refuse_other_format(path, content)
            return Plan.model_validate_json(content)
        except FileNotFoundError:
            raise DataError(f"{self.path}: no plan.json, so no run was made here; give a results folder") from None
        except NotADirectoryError:
            raise DataError(f"{self.path}: is not a folder; give a results folder") from None
        except ValidationError:
            raise DataError(f"{path}: damaged, not a plan; run the experiment again to write it anew") from None

    def read(self, cell: Cell) -> RunRecord | None:
        """Return a cell's record, or None if it has none.

        A corrupt record is renamed to `.damaged`, a warning is logged and None is returned.

        Raises:
            OtherFormatError: the record was written by another version of decoderbench.
        """
        path = self.cell_directory(cell) / "result.json"
        try:
            content = path.read_bytes()
            _refuse_other_format(path, content)
            return RunRecord.model_validate_json(content)
        except FileNotFoundError:
            return None
        except ValidationError:
            aside = path.with_suffix(".json.damaged")
            path.replace(aside)
            logger.warning("%s: damaged, not a record; kept as %s, the cell will run again", path, aside.name)
            return None

    def publish(self, record: RunRecord) -> None:
        """Make a record the result of its cell."""
        directory = self.cell_directory(record.cell)
        write_atomically(directory / "cell.json", record.cell.model_dump_json(indent=1).encode())
        write_atomically(directory / "result.json", record.model_dump_json(indent=1).encode())

    def forget(self, cell: Cell) -> None:
        """Take a cell's result away, and the traceback that goes with it, so that it runs again."""
        for name in ("result.json", "traceback.txt"):
            (self.cell_directory(cell) / name).unlink(missing_ok=True)

    @contextmanager
    def lease(self, cell: Cell, *, wait: bool = False) -> Iterator[bool]:
        """Hold a cell for this process; yields False if another process holds it and `wait` is off.

        The system frees the lease of a process that dies, so nothing ever has to be unlocked by hand.
        """
        directory = self.cell_directory(cell)
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _refuse_other_format(path: Path, content: bytes) -> None:
    """Raise `OtherFormatError` if a file names another format; what is no JSON object is left to the caller."""
    try:
        data = json.loads(content)
    except ValueError:
        return
    if isinstance(data, dict) and (given := data.get("format", 1)) != FORMAT:
        raise OtherFormatError(
            f"{path}: has format {given}, this decoderbench reads format {FORMAT}; the file is left as it is: use the "
            f"decoderbench that wrote it, or run the experiment again with --results FOLDER"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add one JSON object to a `.jsonl` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `.jsonl` file, none if it is missing; a torn last line is left out, a damaged file too."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    try:
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except json.JSONDecodeError:
        logger.warning("%s: damaged, not lines of JSON; it is left out", path)
        return []
