"""The file `progress.json` of a cell that is running: for `decoderbench status`, never for results. No torch here.

It is advisory: it is replaced atomically but not flushed to the disk, a failed write is ignored, and so is a damaged
file. Its times are differences of a monotonic clock, so a changed system clock does not matter.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import Field, ValidationError

from decoderbench.options import Options
from decoderbench.scalars import to_number

FILE = "progress.json"
WRITE_SECONDS = 1.0
"""Seconds between two writes of the file."""


class Pace:
    """How fast one attempt at a cell takes its steps, counted from the first step that it reports.

    A cell that continues from a checkpoint reports a first step above 0; steps of earlier attempts do not count.

    Attributes:
        first: the first step that was reported; None before.
        step: the last one.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.step = 0
        self._began = self._now = 0.0

    def report(self, step: int) -> None:
        """Note that `step` steps are taken. A step below the last one begins another attempt."""
        self._now = time.monotonic()
        if self.first is None or step < self.step:
            self.first, self._began = step, self._now
        self.step = step

    def seconds_per_step(self) -> float | None:
        """Return the mean; None before a second step was reported."""
        if self.first is None or self.step == self.first:
            return None
        return (self._now - self._began) / (self.step - self.first)

    def seconds_left(self, steps: int) -> float | None:
        """Return the estimated seconds until all `steps` are taken; None if there is no estimate yet."""
        pace = self.seconds_per_step()
        return None if pace is None else pace * max(0, steps - self.step)


class CellProgress(Options):
    """The content of `progress.json`."""

    host: str
    pid: int = Field(ge=1)
    """The process that writes the file: the one that runs the cell, or that of the run."""

    started: str
    updated: str
    """When the attempt began and when the file was written, in UTC by the clock of the host. For people only."""

    steps: int = Field(ge=1)
    """Optimizer steps of the cell."""

    first_step: int | None = Field(default=None, ge=0)
    """The first step that this attempt reported: above 0 if it continues from a checkpoint."""

    step: int = Field(default=0, ge=0)
    """Optimizer steps taken."""

    loss: float | None = None
    """Nats per character of a recent batch."""

    score: float | None = None
    """Exact match on the validation split, at the last validation of this attempt."""

    seconds_per_step: float | None = Field(default=None, ge=0)
    """Mean of this attempt, validations included."""

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the last step; None if there is no estimate yet."""
        if self.seconds_per_step is None:
            return None
        return self.seconds_per_step * max(0, self.steps - self.step)


class ProgressFile:
    """Keeps the file of a cell while this process runs it, and deletes it afterwards. Never raises."""

    def __init__(self, folder: Path, steps: int, host: str = "") -> None:
        """Name the file of a cell.

        Args:
            folder: that of the cell.
            steps: the optimizer steps of the cell.
            host: the machine that trains it; by default this one.
        """
        self.path, self.steps = folder / FILE, steps
        self._host = host or socket.gethostname()
        self._temporary = folder / f".{FILE}.{os.getpid()}.tmp"
        self._started, self._written = _utc_now(), -math.inf
        self._pace = Pace()
        self._loss: float | None = None
        self._score: float | None = None

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.path.unlink()

    def progressed(self, step: Any, loss: Any) -> None:
        """Note the steps taken and the loss; a value that is no number is ignored."""
        self._report_step(step)
        self._loss = _number_or_none(loss)
        self.beat()

    def validated(self, step: Any, score: Any) -> None:
        """Note the exact match on the validation split; a value that is no number is ignored."""
        self._report_step(step)
        self._score = _number_or_none(score)
        self.beat()

    def beat(self) -> None:
        """Write the file if the last write is a second ago. To be called often, so that a silent cell seems alive."""
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def _report_step(self, step: Any) -> None:
        number = _number_or_none(step)
        if number is not None and number >= 0:
            self._pace.report(int(number))

    def _write(self) -> None:
        self._written = time.monotonic()
        content = {
            "host": self._host,
            "pid": os.getpid(),
            "started": self._started,
            "updated": _utc_now(),
            "steps": self.steps,
            "first_step": self._pace.first,
            "step": self._pace.step,
            "loss": self._loss,
            "score": self._score,
            "seconds_per_step": self._pace.seconds_per_step(),
        }
        try:
            self._temporary.write_text(json.dumps(content))
            self._temporary.replace(self.path)
        except OSError:  # a full disk or a read-only folder
            with suppress(OSError):
                self._temporary.unlink()


def read_progress(folder: Path) -> CellProgress | None:
    """Return the progress of the cell of a folder; None if there is no file or if it is damaged."""
    path = folder / FILE
    try:
        return CellProgress.model_validate_json(path.read_bytes()) if path.is_file() else None  # a pipe would block
    except (OSError, ValidationError):
        return None


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _number_or_none(value: Any) -> float | None:
    try:
        return to_number(value)
    except ValueError:
        return None
