"""One attempt at a cell: it continues from the last checkpoint, and is saved at intervals and when the run ends."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decoderbench.errors import DivergedError, PendingCellsError
from decoderbench.files.storage import StorageError, delete, write_atomically
from decoderbench.model.module_state import difference, load_state, state_of
from decoderbench.records.leases import LostLeaseError
from decoderbench.records.schema import append_line
from decoderbench.registry.context import Resumable
from decoderbench.training.checkpoint import Checkpoints
from decoderbench.training.failures import is_out_of_memory
from decoderbench.training.packing import PackingError
from decoderbench.training.random_states import read_random_states, write_random_states

logger = logging.getLogger("decoderbench")

UNSEEDED = ("python", "numpy")
"""Random states that a run does not seed: saved only for cells that draw from them."""


class Attempt:
    """Saves the state of a cell under way, and loads it in the next attempt.

    The state is that of the trainer, as it says itself, and of everything that the context has given it: recognizers,
    random states and history. While an evaluation runs, it is the state from before the evaluation.

    Attributes:
        history: the rows of `history.jsonl`.
    """

    def __init__(self, checkpoints: Checkpoints, history_file: Path, device: torch.device) -> None:
        self.checkpoints, self.device = checkpoints, device
        self.history: list[dict[str, Any]] = []
        self._history_file = history_file
        self._recognizers: list[weakref.ref[nn.Module]] = []
        self._trainer: Resumable | None = None
        self._random_of_process = read_random_states(device)
        self._random_before: dict[str, Any] | None = None  # the evaluation under way

    def begin(self) -> None:
        """Delete the history of an attempt before; it is written again if that attempt is continued."""
        delete(self._history_file)
        self.history.clear()

    def add_recognizer(self, recognizer: nn.Module) -> None:
        """Make a recognizer part of the state."""
        self._recognizers.append(weakref.ref(recognizer))

    def add_row(self, row: dict[str, Any]) -> None:
        """Append a row to the history."""
        append_line(self._history_file, row)
        self.history.append(row)

    @contextmanager
    def resuming(self, trainer: Resumable) -> Iterator[None]:
        """Load the last checkpoint, if there is one, and save the state if the run ends in the block.

        The `saved_step` of the error that ends the run is the step that was saved.
        """
        self._load(trainer)
        self._trainer = trainer
        try:
            yield
        except (StorageError, LostLeaseError):
            raise
        except PendingCellsError as end:
            end.saved_step = self._save_at_end(trainer)
            raise
        finally:
            self._trainer = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate in the block; if it is cut off, it is repeated from the random states that it began with."""
        outermost, cut_off = self._random_before is None, False
        if outermost:
            self._random_before = read_random_states(self.device)
        try:
            yield
        except PendingCellsError:
            cut_off = True  # the states from before are still to be saved
            raise
        finally:
            if outermost and not cut_off:
                self._random_before = None

    def save_if_due(self) -> None:
        """Save the state between two steps if the interval has passed.

        Raises:
            StorageError: it cannot be written.
            DivergedError: training has produced a number that is not finite, which must not be saved.
        """
        if self._trainer is not None and self.checkpoints.is_due():
            self._save(self._trainer)

    def _alive(self) -> list[nn.Module]:
        return [recognizer for reference in self._recognizers if (recognizer := reference()) is not None]

    def _save_at_end(self, trainer: Resumable) -> int | None:
        if not self.checkpoints.every or not trainer.step:
            return None
        try:
            return trainer.step if self._save(trainer) else None
        except DivergedError as error:
            logger.warning("%s: not saved, %s", self.checkpoints.cell.title, error)
            return None

    def _save(self, trainer: Resumable) -> bool:
        """Save the state; where that is not possible, log why, and try no more."""
        random = self._random_before or read_random_states(self.device)
        state = {
            "step": trainer.step,
            "trainer": trainer.state_dict(),
            "recognizers": list(map(state_of, self._alive())),
            "random": {
                name: value
                for name, value in random.items()
                if name not in UNSEEDED or value != self._random_of_process.get(name)
            },
            "history": self.history,
        }
        try:
            self.checkpoints.save(state)
            return True
        except (PackingError, RuntimeError, MemoryError) as error:
            if not isinstance(error, PackingError) and not is_out_of_memory(error):
                raise
            self.checkpoints.every = None
            title = self.checkpoints.cell.title
            logger.warning("%s: no more checkpoints of this cell, because %s", title, error)
            return False

    def _load(self, trainer: Resumable) -> None:
        if (state := self.checkpoints.load()) is None:
            return
        title, recognizers, saved = self.checkpoints.cell.title, self._alive(), state["recognizers"]
        count = "" if len(recognizers) == len(saved) else f"it has {len(saved)} models, the trainer {len(recognizers)}"
        if reason := count or next(filter(None, map(difference, recognizers, saved)), ""):
            logger.warning("%s: its checkpoint cannot be loaded, %s; it starts at step 0", title, reason)
            return
        for recognizer, recognizer_state in zip(recognizers, saved, strict=True):
            load_state(recognizer, recognizer_state)
        trainer.load_state_dict(state["trainer"])
        self.history[:] = state["history"]
        if self.history:
            lines = (json.dumps(row) + "\n" for row in self.history)
            write_atomically(self._history_file, "".join(lines).encode())
        for name in UNSEEDED:
            if name in state["random"]:
                self._random_of_process.pop(name)
        write_random_states(state["random"], self.device)
        logger.info("%s goes on after step %d", title, trainer.step)
