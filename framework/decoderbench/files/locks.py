"""Locks on files, which the operating system releases when their holder dies. No torch here.

Over a network filesystem a lock may hold on one machine only, and some filesystems have no locks; `leases` has what
holds there.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from decoderbench.files.storage import explaining, make_folder

if os.name == "posix":
    import fcntl

_MISSING = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|davfs|glusterfs"
    r"|fuse\.(?:sshfs|s3fs|s3backer|rclone|gcsfuse|goofys|davfs2?|glusterfs|smb\w*)"
)
"""Filesystems whose locks or names of files do not hold between machines; Ceph, GPFS and Lustre keep both."""


@contextmanager
def holding(path: Path, *, timeout: float = 0.0, move: str = "") -> Iterator[bool]:
    """Lock a file for this process; yield False if another still holds it after `timeout` seconds, which may be inf.

    The file stays. Only the lock counts, so no file has to be removed by hand. `move` is a way out for the message.

    Raises:
        StorageError: the file cannot be created, or the filesystem has no locks.
    """
    with explaining(path, doing="lock", move=move):
        make_folder(path.parent)
        lock = _acquire(path, timeout)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of a file, as far as this machine can see; nothing is created or changed.

    A process that wants the lock in the few microseconds of the test finds it held once.
    """
    if os.name != "posix":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(descriptor)  # which releases the lock
    return False


def unsafe_locks(folder: Path) -> str:
    """Return why locks in a folder do not keep all processes of all machines away; empty if they do. Writes nothing."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if network := network_filesystem_of(place):
        return f"it is on a network filesystem ({network})"
    try:
        _probe(place)
    except OSError as error:
        return f"its filesystem has no locks ({error.strerror})"
    return ""


def network_filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the network filesystem that a path is on, such as `nfs4`; else, or if unknown, nothing."""
    resolved, found, kind = path.resolve(), Path(), ""
    with suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
            if (point == resolved or point in resolved.parents) and len(point.parts) >= len(found.parts):
                found, kind = point, after.split()[0]  # the last one at a place hides those below it
    return kind if _NETWORK.fullmatch(kind) else ""


def _acquire(path: Path, timeout: float) -> BaseFileLock | None:
    """Return the lock of a file; None if it is held by another for `timeout` seconds.

    Raises:
        OSError: the file cannot be created. ENOLCK: the filesystem has no locks, which some report in other ways.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if timeout == float("inf") else timeout)
    except Timeout:
        return None
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, str(error)) from None
    except OSError as error:
        if error.errno in _MISSING:
            raise OSError(errno.ENOLCK, error.strerror) from None
        raise
    if os.name == "posix" and not is_held(path):  # filelock may take the existence of a file for a lock
        lock.release()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    return lock


def _probe(folder: Path) -> None:
    """Raise `OSError` if files of a folder cannot be locked. The file for it has no name, or has it for a moment."""
    if os.name != "posix":
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        except OSError:  # it cannot be written, as the first file will tell
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _MISSING:
                raise
