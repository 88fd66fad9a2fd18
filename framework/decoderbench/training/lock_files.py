"""The lock files of a user on this machine, in a folder of this user alone. No torch here.

They are used at every training step: locking and unlocking takes 2 µs. With filelock 4.3 it takes 0.2 ms, and 0.7 ms
for readers and writers.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]


class LockFile:
    """An open file that several processes may lock shared, or one exclusively.

    The operating system releases the lock if its holder dies. A lock that is held is converted by another `try_lock`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, name: str, folder: int) -> Self:
        """Open a file in an open folder, and make it if it is not there."""
        return cls(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))

    def try_lock(self, *, shared: bool) -> bool:
        """Lock the file unless others hold it; return whether it is locked.

        Raises:
            OSError: its file system has no locks.
        """
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Release the lock, if it is held."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def give_sign(self) -> None:
        """Show that the holder is not hung."""
        os.utime(self._descriptor)

    def last_sign(self) -> int:
        """Return a number that changes with each sign."""
        return os.fstat(self._descriptor).st_mtime_ns

    def close(self) -> None:
        """Close the file, which releases the lock unless a forked process has the file too."""
        os.close(self._descriptor)


class LockFiles(NamedTuple):
    """The two locks of a turnstile, as `measuring` describes it."""

    turnstile: LockFile
    room: LockFile


def open_lock_files(folder: Path | None = None) -> LockFiles:
    """Open the lock files; make them and their folder if they are not there. Links are not followed.

    Args:
        folder: default: `decoderbench-UID` in the folder of temporary files.

    Raises:
        OSError: that is not possible, the folder is not this user's alone, or the system has no such locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, "this system has no flock")
    folder = folder or Path(tempfile.gettempdir()) / f"decoderbench-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "belongs to another user, or is open to others", str(folder))
        return LockFiles(LockFile.open("turnstile", opened), LockFile.open("room", opened))
    finally:
        os.close(opened)
