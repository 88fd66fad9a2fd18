"""Leases: how a process holds the folder of a cell, so that no other one trains the cell meanwhile. No torch here.

By locks, which the operating system releases when their holder dies. Where those do not hold, on filesystems without
locks and over a network, by heartbeats: a holder renews its record every few seconds, and who has seen a record
unchanged for a minute, by its own clock, may take the folder over. Holders follow one another in a log of generations
(`filelock.SoftReadWriteLock`), each of which one process alone can write, so two never take over at once.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from filelock import SoftReadWriteLock, Timeout

from decoderbench.errors import ConfigError, PendingCellsError
from decoderbench.files.locks import holding, is_held, unsafe_locks
from decoderbench.files.storage import StorageError, delete, explaining, make_folder, write_atomically
from decoderbench.records.record_files import RESULT

LOCK = "lock"
"""The file of a cell's folder that is locked."""

FOLDER = "leases"
"""The folder of a results folder in which holders renew their records; where it exists, locks are not used."""

HOLDER = "holder"
"""The file of a cell's folder that names who holds it by heartbeats."""

DEATH = ".death.json"
"""The file of a cell's folder that says how its holder has died, for the next one that runs the cell."""

HEARTBEAT_SECONDS = 10.0
"""Seconds between two renewals of a record."""

STALE_SECONDS = 60.0
"""Seconds after which a record that nobody has renewed stops counting."""

_NO_LINKS = {errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

WAY_OUT = "give a folder on a local disk, or --no-locks if no other process uses this one meanwhile"


class LostLeaseError(PendingCellsError):
    """This process has not renewed its lease of a cell for a minute, so another one may have taken the cell over."""


class Lease:
    """The hold of this process on the folder of a cell.

    Attributes:
        left_by: what `HOLDER` had said of a process that has left the folder without a word; empty if there is none.
    """

    left_by = b""

    def check(self, *, thoroughly: bool = False) -> None:
        """Raise if another process has taken the folder over. To be called often; cheap unless `thoroughly`.

        Raises:
            LostLeaseError: it has.
        """


class Leases:
    """The leases of a results folder.

    Attributes:
        results: the results folder.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._asked: dict[Path, float] = {}

    @cached_property
    def unsafe(self) -> str:
        """Why locks do not keep all other processes away, as this machine sees the folder; empty if they do."""
        return unsafe_locks(self.results)

    @property
    def by_heartbeats(self) -> bool:
        """Whether cells are held by heartbeats: locks do not hold here, or do not for another machine."""
        return bool(self.unsafe) or (self.results / FOLDER).is_dir()

    def refuse_unsafe(self) -> None:
        """Raise if neither locks nor heartbeats keep all other processes away; nothing is written.

        Raises:
            ConfigError: the filesystem has neither locks that hold nor hard links, or a machine that sees the folder on
                a local disk has locked cells.
        """
        if not self.by_heartbeats:
            return
        if not self.can_hold():
            raise ConfigError([f"--results {self.results}: {self.unsafe}, and it has no hard links; {WAY_OUT}"])
        locked = (file.parent for file in self.results.glob(f"cells/*/{LOCK}"))
        if self.unsafe and (folder := next(filter(self._may_be_locked, locked), None)):
            raise ConfigError([self._of_two_kinds(folder)])

    def can_hold(self) -> bool:
        """Return whether this machine can hold cells: by locks, or by heartbeats, which take hard links."""
        return not self.unsafe or _has_hard_links(self.results)

    def describe(self) -> str:
        """Return how cells are held if that is worth a line; else an empty string."""
        if not self.by_heartbeats:
            return ""
        reason = self.unsafe or f"its folder {FOLDER} exists"
        free = f"what a dead process held is free once another has watched it for {STALE_SECONDS:g} s"
        return f"{self.results}: cells are held by heartbeats, as {reason}; {free}"

    @contextmanager
    def hold(self, folder: Path, *, timeout: float = 0.0) -> Iterator[Lease | None]:
        """Hold the folder of a cell; yield None if another process still does after `timeout` seconds."""
        with ExitStack() as stack:
            if not self.unsafe and (not self.by_heartbeats or (folder / LOCK).exists()):
                if not stack.enter_context(holding(folder / LOCK, timeout=timeout)):
                    yield None
                    return
                stack.callback(self._delete_useless_lock, folder)
                if not self.by_heartbeats:  # else a machine where locks do not hold has begun here
                    yield Lease()
                    return
            record = self.results / FOLDER / folder.name
            lease = stack.enter_context(_holding_by_heartbeats(record, folder, timeout))
            if lease is not None and self.unsafe and self._may_be_locked(folder):
                raise PendingCellsError(self._of_two_kinds(folder))
            yield lease

    def is_held(self, folder: Path) -> bool:
        """Return whether a process of this machine holds the lock of a folder; nothing is created or changed."""
        return is_held(folder / LOCK)

    def is_free(self, folder: Path) -> bool:
        """Return whether nobody holds a folder. By heartbeats that is found out by holding it for a moment."""
        if not self.by_heartbeats:
            return not self.is_held(folder)
        if time.monotonic() - self._asked.get(folder, -HEARTBEAT_SECONDS) < HEARTBEAT_SECONDS / 2:
            return False
        with self.hold(folder) as lease:
            if lease is None:
                self._asked[folder] = time.monotonic()
            return lease is not None

    def _delete_useless_lock(self, folder: Path) -> None:
        """Delete the file of a lock that this process holds, so that machines that cannot see locks may go on."""
        if self.by_heartbeats:
            delete(folder / LOCK)

    def _may_be_locked(self, folder: Path) -> bool:
        """Return whether a machine that sees the folder on a local disk may be training the cell."""
        return (folder / LOCK).exists() and not (folder / RESULT).exists()

    def _of_two_kinds(self, folder: Path) -> str:
        return (
            f"--results {self.results}: a machine where locks hold has locked {folder.name}, but this one or another "
            f"cannot see locks; once nothing runs there, delete {self.results}/cells/*/{LOCK}"
        )


class _Beating(Lease):
    """A lease that a thread renews."""

    def __init__(self, lock: SoftReadWriteLock, folder: Path) -> None:
        self._lock, self._file = lock, folder / HOLDER
        self._content = f"{lock.generation} {socket.gethostname()} {os.getpid()}\n".encode()
        self._checked = _clock()
        self.left_by = holder_of(folder)
        # Creating a file also makes a network filesystem forget which files of the folder it believes to be missing.
        write_atomically(self._file, self._content)

    def check(self, *, thoroughly: bool = False) -> None:
        now = _clock()
        paused = now - self._checked > HEARTBEAT_SECONDS  # perhaps stopped, and with it the thread that would know
        if self._lock.compromise is not None or ((thoroughly or paused) and not self._is_holder()):
            raise LostLeaseError(f"the lease of {self._file.parent.name} was lost, another process may have it")
        self._checked = now

    def release(self) -> None:
        with suppress(OSError, StorageError):
            if self._is_holder() and self.left_by and self._file.with_name(DEATH).exists():
                write_atomically(self._file, self.left_by)  # the cell was not run, and its death is still to be told
            elif self._is_holder():
                self._file.unlink()
        self._lock.release(force=True)

    def _is_holder(self) -> bool:
        return holder_of(self._file.parent) == self._content


def holder_of(folder: Path) -> bytes:
    """Return what names the process that holds, or held until it died, a folder by heartbeats; empty if none does.

    Raises:
        StorageError: it cannot be read.
    """
    file = folder / HOLDER
    try:
        with explaining(file, doing="read"):
            return file.read_bytes()
    except StorageError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ESTALE):  # replaced by another machine
            return b""
        raise


def _clock() -> float:
    """Return seconds that pass while the machine is suspended too, as far as it has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_locks: dict[tuple[int, Path], SoftReadWriteLock] = {}
"""By process and path. They are kept, since each remembers since when a holder has not renewed its record."""


@contextmanager
def _holding_by_heartbeats(path: Path, folder: Path, timeout: float) -> Iterator[Lease | None]:
    """Hold a folder by the record at `path`; yield None if another still holds it after `timeout` seconds."""
    with explaining(path, doing="lock"):
        make_folder(path.parent)
        make_folder(folder)
        lease, lock = None, _lock_of(path.resolve())
        if _acquire(lock, timeout):
            try:
                lease = _Beating(lock, folder)
            except BaseException:
                lock.release(force=True)
                raise
    try:
        yield lease
    finally:
        if lease is not None:
            with explaining(path, doing="unlock"):
                lease.release()


def _lock_of(path: Path) -> SoftReadWriteLock:
    key = os.getpid(), path
    if key not in _locks:
        _locks[key] = SoftReadWriteLock(
            path,
            is_singleton=False,
            heartbeat_interval=HEARTBEAT_SECONDS,
            stale_threshold=STALE_SECONDS,
        )
    return _locks[key]


def _acquire(lock: SoftReadWriteLock, timeout: float) -> bool:
    """Return whether a lock was acquired. One that this process holds already is not."""
    if _holds(lock):
        return False
    try:
        lock.acquire_write(timeout=-1 if timeout == float("inf") else timeout)
    except Timeout:
        return False
    except RuntimeError:
        if not _holds(lock):
            raise
        return False  # another thread of this process was faster
    return True


def _holds(lock: SoftReadWriteLock) -> bool:
    return lock.generation is not None


def _has_hard_links(folder: Path) -> bool:
    """Return whether files of a folder can have two names. Two files with names of their own are there for a moment.

    Unknown counts as yes, as the first file will tell.
    """
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    first, second = (place / f".decoderbench.{uuid4().hex}.tmp" for _ in range(2))
    try:
        first.touch()
    except OSError:
        return True
    try:
        second.hardlink_to(first)
    except NotImplementedError:
        return False
    except OSError as error:
        return error.errno not in _NO_LINKS
    finally:
        for file in (first, second):
            file.unlink(missing_ok=True)
    return True
