"""MachineTurn: latency and throughput are measured while no other cell of this user takes a step on this machine.

Two lock files make a turnstile. A process that trains holds `room` shared. One that measures takes `turnstile`, which
keeps all others from taking another step, and then `room` exclusively, which it gets once they have finished their
steps. No torch here.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decoderbench.conditions import ALONE
from decoderbench.exception_text import text_of
from decoderbench.training.lock_files import LockFile, LockFiles, open_lock_files

logger = logging.getLogger("decoderbench")

BESIDE_OTHERS = "beside other cells"
UNLOCKED = "without locks against other cells"

PATIENCE = 60.0
"""Seconds after which a process that gives no sign is taken for hung, and no longer waited for."""

PATIENCE_AGAIN = 5.0
"""The same for the steps of others once they were waited for in vain, so that a hung process costs the time once."""

POLL_SECONDS = 0.02
"""Seconds between two attempts to get a lock, so that a request to stop is obeyed."""

SIGN_SECONDS = 1.0
"""Seconds between two signs of a process that measures."""


@dataclass
class Measurement:
    """How a cost was measured: `alone`, or how others may have disturbed it; empty if nobody knows."""

    how: str = ""


class Turn:
    """Takes turns with nobody: for cells that nothing else disturbs, or whose cost does not matter.

    Attributes:
        waited_seconds: the time that was spent waiting for others, which is no time of training.
    """

    waited_seconds = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train a cell in the block."""
        yield

    def between_steps(self) -> None:
        """Wait while another process measures. Call it between steps and batches, where it costs microseconds."""

    @contextmanager
    def alone(self) -> Iterator[Measurement]:
        """Measure in the block, while no other process takes steps; `how` is known when the block has ended."""
        yield Measurement()


class MachineTurn(Turn):
    """Takes turns with the other processes of this user on this machine.

    Nobody waits forever. A process that measures gives a sign about every second, and one that has given none for
    `patience` seconds is taken for hung and no longer waited for. A measurement that others may have disturbed says so.
    Where there are no locks, nobody waits at all, which is logged once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        must_stop: Callable[[], bool] = lambda: False,
        synchronize: Callable[[], None] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        """Lock nothing yet.

        Args:
            folder: where the lock files are; default: as `open_lock_files` chooses it.
            must_stop: called while waiting; True ends the wait, and the caller finds out by itself why.
            synchronize: waits for the work of this process on its device; called before others measure.
            patience: seconds.
        """
        self.folder, self.must_stop, self.synchronize, self.patience = folder, must_stop, synchronize, patience
        self._patience_for_steps = patience
        self._files: LockFiles | None = None
        self._unlocked = self._training = self._inside = self._measures = self._entered = False
        self._hung = 0  # the last sign of a process that is no longer waited for
        self._signed = self._longest_silence = 0.0
        _turns.add(self)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train a cell in the block, which begins once nobody measures."""
        self._training = True
        try:
            self.between_steps()
            yield
        finally:
            self._training = False
            self._unlock()

    def between_steps(self) -> None:
        """Wait while another process measures; if this one does, give a sign."""
        if self._measures:
            self._give_sign()
        elif self._training and (files := self._open()) is not None:
            if not self._lock(files.turnstile, shared=True) and not self._wait_at(files.turnstile):
                return
            if not self._inside:
                self._inside = self._lock(files.room, shared=True)
            if not self._unlocked:
                files.turnstile.unlock()

    @contextmanager
    def alone(self) -> Iterator[Measurement]:
        """Measure in the block, once other processes have finished their steps and measurements."""
        measurement = Measurement(BESIDE_OTHERS)
        alone = False
        try:
            if (files := self._open()) is not None:
                with self._waiting():
                    alone = self._take_machine(files)
            self._measures = True
            yield measurement
        finally:
            self._give_sign()
            if self._unlocked:
                measurement.how = UNLOCKED
            elif alone and self._longest_silence <= self.patience:
                measurement.how = ALONE
            self._measures = self._entered = False
            self._unlock()

    def _take_machine(self, files: LockFiles) -> bool:
        """Wait until no other process measures or takes a step; return whether that is so."""
        self._leave_room(files)  # first: another process that measures waits for it
        self._entered = self._acquire(files.turnstile, _Patience(files.turnstile, self.patience))
        if not self._entered:
            return False
        self._longest_silence, self._signed = 0.0, time.monotonic() - SIGN_SECONDS
        self._give_sign()
        alone = self._acquire(files.room, _Patience(files.room, self._patience_for_steps))
        self._patience_for_steps = self.patience if alone else min(self.patience, PATIENCE_AGAIN)
        return alone

    def _wait_at(self, turnstile: LockFile) -> bool:
        """Wait until nobody measures; return whether the lock is held, which it is not if the wait was in vain."""
        if self._files is None or (self._hung and self._hung == turnstile.last_sign()):
            return False
        self.synchronize()
        with self._waiting():
            self._leave_room(self._files)
            patience = _Patience(turnstile, self.patience)
            acquired = self._acquire(turnstile, patience, shared=True)
        self._hung = 0 if acquired else patience.last_sign
        return acquired

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.waited_seconds += time.monotonic() - start

    def _acquire(self, file: LockFile, patience: _Patience, *, shared: bool = False) -> bool:
        while not self._lock(file, shared=shared):
            self._give_sign()
            if self._unlocked or self.must_stop() or patience.is_over():
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _give_sign(self) -> None:
        """Show those who wait at the turnstile that this process is not hung."""
        silence = time.monotonic() - self._signed
        if self._entered and self._files is not None and silence >= SIGN_SECONDS:
            self._longest_silence = max(self._longest_silence, silence)
            self._signed += silence
            self._files.turnstile.give_sign()

    def _lock(self, file: LockFile, *, shared: bool) -> bool:
        try:
            return file.try_lock(shared=shared)
        except OSError as error:
            self._do_without_locks(error)
            return False

    def _leave_room(self, files: LockFiles) -> None:
        self._inside = False
        files.room.unlock()

    def _unlock(self) -> None:
        """Release both locks, also after an interruption that came before both were held."""
        self._inside = False
        for file in self._files or ():
            file.unlock()

    def _open(self) -> LockFiles | None:
        """Return the lock files; None where there are no locks."""
        if self._files is None and not self._unlocked:
            try:
                self._files = open_lock_files(self.folder)
            except OSError as error:
                self._do_without_locks(error)
        return self._files

    def _do_without_locks(self, error: OSError) -> None:
        self._unlocked = True
        self.forget_files()
        logger.warning(
            "latency and throughput are measured without waiting for other cells on this machine: %s; set TMPDIR to a "
            "folder of your own whose filesystem has locks, or run one cell at a time",
            text_of(error),
        )

    def forget_files(self) -> None:
        """Close the files. A forked process does so, or it would hold the locks beyond the end of its parent."""
        files, self._files = self._files, None
        self._training = self._inside = self._measures = self._entered = False
        for file in files or ():
            file.close()


class _Patience:
    """Tells when a lock has been waited for in vain: its file has shown no sign for a number of seconds.

    Only changes of the sign count, so the clock of the system may be set meanwhile.
    """

    def __init__(self, file: LockFile, seconds: float) -> None:
        self._file, self._seconds = file, seconds
        self.last_sign = file.last_sign()
        self._since = time.monotonic()

    def is_over(self) -> bool:
        if (sign := self._file.last_sign()) != self.last_sign:
            self.last_sign, self._since = sign, time.monotonic()
        return time.monotonic() - self._since > self._seconds


_turns: weakref.WeakSet[MachineTurn] = weakref.WeakSet()


def _forget_files_of_parent() -> None:
    for turn in list(_turns):
        turn.forget_files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_files_of_parent)
