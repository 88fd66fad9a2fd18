"""The checkpoints of one cell: files with a digest, two generations, written at intervals while it is trained.

cells/<id>/checkpoint/current.checkpoint    a line with size and sha256 of the rest, a line of JSON, safetensors
cells/<id>/checkpoint/previous.checkpoint   the one before, for the case that the current one is damaged
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoderbench.conditions import CONDITIONS, DECISIVE, conditions_of
from decoderbench.config.cell import Cell
from decoderbench.exception_text import describe_error
from decoderbench.files.integrity import DamagedError, UnreadableError, read_bytes
from decoderbench.files.storage import remove_leftovers, rename, write_atomically
from decoderbench.records.record_files import name_aside
from decoderbench.training.packing import pack, unpack

logger = logging.getLogger("decoderbench")

CHECKPOINT_SECONDS = 60.0
"""Seconds of training between two checkpoints, by default."""

LARGEST = 1 << 40
"""Bytes of the largest file that is read."""

LARGEST_SHARE = 0.02
"""Largest share of the time of training that writing takes; the interval stretches where writing is slow."""


class Checkpoints:
    """Writes and reads the checkpoints of one cell, whose lock the caller holds.

    Attributes:
        seconds: the time that this process has spent on saving.
    """

    def __init__(self, folder: Path, cell: Cell, environment: Mapping[str, str], every: float | None) -> None:
        """Begin the first interval.

        Args:
            folder: where the files are.
            cell: the cell; a checkpoint of another one is not used.
            environment: origin of the result; a checkpoint made under other decisive conditions is not used.
            every: seconds between two checkpoints; None or 0 for no checkpoints.
        """
        self.cell, self.every = cell, every
        self.seconds = 0.0
        self._current, self._previous = folder / "current.checkpoint", folder / "previous.checkpoint"
        self._conditions = {name: value for name, value in conditions_of(environment).items() if name in DECISIVE}
        self._due = time.perf_counter() + (every or 0.0)

    def is_due(self) -> bool:
        """Return whether the interval has passed."""
        return bool(self.every) and time.perf_counter() >= self._due

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, whose `step` is the number of steps taken; the checkpoint before is kept.

        Raises:
            PackingError: it cannot be written without pickle.
            StorageError: it cannot be written, because the disk is full for example; the checkpoint before is kept.
        """
        start = time.perf_counter()
        body = pack({"cell": self.cell.cell_id, "conditions": self._conditions, **state})
        if self._current.exists():
            rename(self._current, self._previous)
        write_atomically(self._current, _header_of(body) + body)
        taken = time.perf_counter() - start
        self.seconds += taken
        self._due = start + taken + max(self.every or 0.0, taken / LARGEST_SHARE)

    def load(self) -> dict[str, Any] | None:
        """Return the state of the newest checkpoint that can be used; None if there is none.

        A damaged file and one of another cell are renamed to `.damaged`. Why a file is not used is logged.
        """
        if self._current.parent.is_dir():
            remove_leftovers(self._current.parent, all_of_them=True)
        reasons = set()
        for path in (self._current, self._previous):
            try:
                state = self._read(path)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                renamed = name_aside(path)
                rename(path, renamed)
                logger.warning("%s; renamed to %s", error, renamed.name)
                continue
            except UnreadableError as error:
                logger.warning("%s; it is not used", error)
                continue
            if not (reason := self._reason_against(state)):
                return state
            if reason not in reasons:
                logger.warning("%s: %s; it is not used", path, reason)
            reasons.add(reason)
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        header, _, body = read_bytes(path, limit=LARGEST).partition(b"\n")
        if header + b"\n" != _header_of(body):
            raise DamagedError(path, _damage_of(header, body))
        try:
            state: dict[str, Any] = unpack(body)
            cell = state["cell"]
        except Exception as error:
            raise DamagedError(path, f"not a checkpoint: {describe_error(error)}") from error
        if cell != self.cell.cell_id:
            raise DamagedError(path, f"a checkpoint of cell {cell}")
        return state

    def _reason_against(self, state: Mapping[str, Any]) -> str:
        """Return why an intact checkpoint of this cell cannot be used; empty if it can."""
        then, now = state["conditions"], self._conditions
        differing = [name for name in CONDITIONS if name in now and then.get(name) != now[name]]
        changes = (f"{CONDITIONS[name]} {then.get(name) or 'none'}, now {now[name] or 'none'}" for name in differing)
        return f"made under other conditions ({'; '.join(changes)})" if differing else ""


def _header_of(body: bytes) -> bytes:
    header = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(header).encode() + b"\n"


def _damage_of(header: bytes, body: bytes) -> str:
    try:
        size = int(json.loads(header)["size"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "not a checkpoint" if header or body else "empty"
    return f"{len(body):,} of {size:,} bytes" if size != len(body) else "sha256 mismatch"
