"""The records of an experiment, as data: its plan, the results of its cells, and rows of `.jsonl`. No torch here."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from decoderbench.config.cell import Cell
from decoderbench.data.dataset import Split
from decoderbench.data.train_limit import limited_sizes
from decoderbench.files.integrity import Artifact, ArtifactName
from decoderbench.files.storage import append_durably
from decoderbench.options import Options
from decoderbench.scalars import Count, Number

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("decoderbench")

FORMAT = 6
"""Version of `plan.json` and `result.json`. Files of version 1, written by decoderbench 0.1, do not state it."""

VERIFIED_FORMATS = (4, 5, FORMAT)
"""The versions that are read and state their sha256. What a version added is not set in files of earlier ones."""

UNVERIFIED_FORMAT = 3
"""The earlier version that is still read; it states no sha256, so damage may go unnoticed."""

Status = Literal["done", "failed", "oom", "diverged", "timeout", "crashed", "infeasible"]


FAILED = ("failed", "oom", "diverged", "timeout", "crashed")
"""The statuses of cells that were tried and have no result."""


class Cost(Options):
    """Measured costs of a cell on the device of its record; None where not measured."""

    train_samples_per_sec: Number | None = None
    """Images per second during training, without its first steps and without validation."""

    infer_samples_per_sec: Number | None = None
    """Images per second when the test split is transcribed in batches."""

    latency_ms: Number | None = None
    """Median time to transcribe a single image, with device synchronization."""

    latency_ms_by_length: dict[str, Number] = Field(default_factory=dict)
    """The same for up to 6 images whose texts, as read, have different numbers of characters, by that number."""

    train_peak_memory_mb: Number | None = None
    """Peak memory of the cell on CUDA while it is trained, in MB (10^6 bytes), without dataset and evaluations."""

    infer_peak_memory_mb: Number | None = None
    """Peak memory of weights and transcription of a batch on CUDA, in MB (10^6 bytes)."""

    train_seconds: Number | None = None
    """Time of training, including validation, without saving checkpoints and waiting for other cells to be timed."""


class RunRecord(Options):
    """The result of one cell."""

    format: int = FORMAT

    cell: Cell
    status: Status
    reason: str = ""
    """Why there is no result, as one sentence; empty if done."""

    metrics: dict[str, Number | None] = Field(default_factory=dict)
    """Metrics on the test split, by name; rates are fractions of 1. None where a metric is undefined. Those of a trial
    of tuning are on the validation split."""

    metric_sources: dict[str, str] = Field(default_factory=dict)
    """Digest of the source code that computed each metric; missing where a trainer of its own did not state it."""

    artifacts: dict[ArtifactName, Artifact] = Field(default_factory=dict)
    """Size and sha256 of every other file of the cell when the record was published, by its path in the cell's folder;
    the publisher sets it."""

    predictions_digest: str = ""
    """In records of format 3, which have no artifacts: digest of `predictions.parquet`."""

    num_test: Count | None = None
    """Number of images that the metrics are computed over."""

    kept_step: Count | None = None
    """Optimizer step of the tested weights."""

    cost: Cost = Cost()
    device: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    """Date, versions, machine and commit of the run."""

    @property
    def has_failed(self) -> bool:
        """Whether the cell failed, as `is_failure` says it."""
        return is_failure(self.status, self.cell)


def is_failure(status: str, cell: Cell) -> bool:
    """Return whether a status means that a cell was tried and has no result.

    A trial of tuning that diverged is the result of its values.
    """
    return status in FAILED and not (cell.purpose == "tuning" and status == "diverged")


def same_result(record: RunRecord, other: RunRecord | None) -> bool:
    """Return whether two records are of the same training; the metrics of one may have been computed anew."""
    return other is not None and (other.status, other.reason, other.environment) == (
        record.status,
        record.reason,
        record.environment,
    )


class Plan(Options):
    """All cells of an experiment in grid order, and the findings of the data audit."""

    format: int = FORMAT

    experiment: str
    question: str = ""
    """What the experiment asks; empty in plans of earlier versions and where it does not say."""

    command: str
    """The command line that created the plan."""

    cells: tuple[Cell, ...]
    tuning: tuple[Cell, ...] = ()
    """Trials, whose validation scores choose options of the cells; none without tuning."""

    settings: dict[str, str] = Field(default_factory=dict)
    """What each setting of the grid changes, by its label; empty without settings."""

    data_summary: tuple[str, ...] = ()
    """Summary of the data by the audit: counts, lengths, charset."""

    data_notes: tuple[str, ...] = ()
    """Footnotes of every table: data problems that were allowed, and how many samples have them."""

    definition: str = ""
    """The experiment with all that was set on the command line, as the keys of its file, and `base_dir`, where relative
    paths start, relative to the results folder: JSON in ASCII, as names of files may be any bytes. Empty in earlier
    plans."""

    origin: str = ""
    """Digest of the path of the experiment file or of the compared folder; empty if it has none."""

    recipe: tuple[str, ...] = ()
    """Settings that `compare` chose from the data, each with its reason; empty in plans of other commands."""

    split_sizes: dict[Split, Count] = Field(default_factory=dict)
    """Number of samples per split that are trained on or scored; of the first data if `sizes` lists several."""

    sizes: dict[str, dict[Split, Count]] = Field(default_factory=dict)
    """The same for each of the data and folds, by `sizes_key`; empty in plans of format 4 and before."""

    def split_sizes_of(self, cell: Cell) -> dict[Split, int]:
        """Return the number of samples per split that a cell is trained on or scored with; empty if not known."""
        known = self.sizes.get(sizes_key(cell.data_key, cell.fold), self.split_sizes)
        return limited_sizes(known, cell.train_limit) if known else {}


def sizes_key(data_key: str, fold: int | None) -> str:
    """Return the name of data in the `sizes` of a plan, as in "1f8e" or "1f8e fold 2"."""
    return data_key if fold is None else f"{data_key} fold {fold}"


def pack_flags(flags: Sequence[bool]) -> str:
    """Return truth values as text, eight of them per byte in base64: the `val_correct` of a history."""
    return base64.b64encode(np.packbits(np.asarray(flags, dtype=bool)).tobytes()).decode()


def unpack_flags(text: str, count: int) -> NDArray[np.bool_]:
    """Return the truth values (count,) that `pack_flags` made a text of; raise `ValueError` for any other text."""
    content = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(content) != -(-count // 8):
        raise ValueError(f"{8 * len(content)} truth values instead of {count}")
    return np.unpackbits(content, count=count).astype(bool)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object to a `.jsonl` file, durably; raise `StorageError` if it cannot be written."""
    append_durably(path, json.dumps(row).encode() + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `.jsonl` file, none if it is missing.

    An incomplete last line is ignored. A corrupt file is ignored as a whole, and a warning is logged.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    try:
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except json.JSONDecodeError:
        logger.warning("%s: corrupt, not lines of JSON; it is ignored", path)
        return []


def digest_of_path(path: Path) -> str:
    """Return a digest of the absolute path of a file or folder: results tell where they come from, not whose."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
