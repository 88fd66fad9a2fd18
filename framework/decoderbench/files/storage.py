"""Durable writing: after a kill, a power failure or a full disk, a file has its old content or its new one.

Every file of a results folder is written, renamed and deleted here, so that each of them is on the disk before the next
step relies on it. No torch here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError

from decoderbench.errors import PendingCellsError
from decoderbench.exception_text import describe_error, text_of

_HOST_ID = re.compile(r"at-[0-9a-f]{8}")

_REASONS = {
    errno.ENOSPC: ("disk full", "free some space"),
    errno.EDQUOT: ("disk full, your quota is used up", "delete files of yours or ask for a larger quota"),
    errno.EFBIG: ("file too large for the filesystem or for `ulimit -f`", "raise the limit"),
    errno.EROFS: ("the filesystem is read-only", "make it writable or give another folder"),
    errno.EACCES: ("permission denied", "make it writable or give another folder"),
    errno.EPERM: ("permission denied", "make it writable or give another folder"),
    errno.EIO: ("input/output error", "check the disk"),
    errno.ENOLCK: ("the filesystem has no locks", "give a folder on a local disk"),
}

OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Errors that say nothing about the code that meets them: the same code succeeds once the disk is in order."""

# torch and safetensors report a full disk without an errno; the second text is that of torch.save.
_FULL_DISK = re.compile(
    r"No space left on device|unexpected pos \d+ vs \d+|Disk quota exceeded|File too large|Read-only file system"
    r"|PytorchStreamWriter failed writing|Input/output error|os error (?:28|122|27|30|5)\b",
    re.IGNORECASE,
)

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""Errors of filesystems that cannot sync a folder; their entries are written by their own schedule."""


class StorageError(PendingCellsError):
    """A file cannot be written. The run ends, what was complete stays valid, and no cell fails by it."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that it always has its old content or the new one, on the disk when this returns.

    Raises:
        StorageError: it cannot be written.
    """
    with explaining(path, len(content)):
        make_folder(path.parent)
        temporary = temporary_of(path)
        try:
            write_durably(temporary, content)
            os.replace(temporary, path)  # noqa: PTH105 - os is what tests replace
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def append_durably(path: Path, content: bytes) -> None:
    """Append to a file; if that fails, the file has its old length again.

    Raises:
        StorageError: it cannot be written.
    """
    with explaining(path, len(content)):
        make_folder(path.parent)
        is_new = not path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, content)
                os.fsync(descriptor)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(path.parent)


def open_to_append(path: Path) -> BinaryIO:
    """Open a file that nothing relies on, such as the output of a cell; what is appended is not synced.

    Raises:
        StorageError: it cannot be opened.
    """
    with explaining(path):
        make_folder(path.parent)
        return path.open("ab", buffering=0)


def delete(*paths: Path) -> None:
    """Delete files, those that exist, such that no power failure brings them back; all are in one folder.

    Raises:
        StorageError: one cannot be deleted.
    """
    for path in paths:
        with explaining(path, doing="delete"):
            path.unlink(missing_ok=True)
    if paths and paths[0].parent.is_dir():
        with explaining(paths[0], doing="delete"):
            sync_folder(paths[0].parent)


def rename(path: Path, target: Path) -> None:
    """Rename a file or folder within its folder, durably.

    Raises:
        StorageError: it cannot be renamed.
    """
    with explaining(path, doing="rename"):
        os.replace(path, target)  # noqa: PTH105 - as above
        sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, each on the disk before something is written in it.

    Raises:
        OSError: it cannot be created, or a file has its name.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        os.mkdir(path)  # noqa: PTH102 - as above
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has the name of this folder", str(path)) from None
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Write the names in a folder to the disk.

    Raises:
        OSError: the disk is full or failed.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be entered but not listed, such as that of all homes
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def find_leftovers(folder: Path, *, all_of_them: bool = False) -> list[Path]:
    """Return the temporary files that killed processes of this machine left in a folder.

    Args:
        folder: the folder; those below it are not searched.
        all_of_them: also return those of live processes, because no other process writes to the folder.
    """
    return [path for path in sorted(folder.glob(".*.tmp")) if all_of_them or _is_left_over(path.name)]


def remove_leftovers(folder: Path, *, all_of_them: bool = False) -> None:
    """Delete the temporary files that `find_leftovers` returns."""
    for path in find_leftovers(folder, all_of_them=all_of_them):
        with suppress(OSError):  # the next run tries again
            path.unlink()


def _is_left_over(name: str) -> bool:
    """Return whether no process writes to a temporary file; that of another machine may be alive."""
    *_, host, pid, _ = ("", *name.split("."))
    if not pid.isdecimal() or (_HOST_ID.fullmatch(host) and host != _host_id()):
        return False
    # Elsewhere than on POSIX an open file cannot be deleted anyway.
    return os.name != "posix" or int(pid) == os.getpid() or not is_alive(int(pid))


@cache
def _host_id() -> str:
    return f"at-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}"


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists and has not ended, as far as that can be told."""
    if os.name != "posix":  # a signal of 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # a system without /proc
        return True
    return state not in ("Z", "X")  # it has ended, and its parent has not asked for its status yet


@contextmanager
def explaining(path: Path, size: int | None = None, *, doing: str = "write", move: str = "") -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that names the file, its size, the free space and a move.

    Args:
        path: the file or folder.
        size: how many bytes are to be written; None if that is not known.
        doing: a verb, as in "write" or "delete".
        move: a way out beside that of the error.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(" ".join([_explain(path, size, error, doing), move]).rstrip()) from error


def storage_error_of(error: BaseException) -> StorageError | None:
    """Return the failure of a disk that an exception of a component or library reports, else None."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in OF_THE_DISK:
        path = error.filename2 or error.filename
        if isinstance(path, str | bytes | os.PathLike):
            return StorageError(_explain(Path(os.fsdecode(path)), None, error, "use"))
        reason, move = _REASONS[error.errno]
        return StorageError(f"{reason}: {describe_error(error)}; {move}")
    if isinstance(error, RuntimeError | SafetensorError) and _FULL_DISK.search(text_of(error)):
        return StorageError(f"disk full or not writable: {describe_error(error)}; free space there")
    return None


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free where a file is or would be; None if that cannot be found out."""
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def _has_no_inodes(path: Path) -> bool:
    """Return whether the filesystem of a path can hold no further file, whatever its size."""
    for place in (path, *path.absolute().parents) if os.name == "posix" else ():
        with suppress(OSError):
            found = os.statvfs(place)
            return found.f_files > 0 and found.f_favail == 0
    return False


def _explain(path: Path, size: int | None, error: OSError, doing: str) -> str:
    reason, move = _REASONS.get(error.errno or 0, (error.strerror or str(error), "make it writable"))
    length = "" if size is None else f" ({size:,} bytes)"
    free = free_bytes(path) if error.errno in OF_THE_DISK else None
    room = "" if free is None else f", {free:,} bytes are free there"
    if error.errno == errno.ENOSPC and _has_no_inodes(path):
        room, move = f"{room} but no further file fits", "delete some files"
    return f"cannot {doing} {path}{length}: {reason}{room}; {move}"


def temporary_of(path: Path) -> Path:
    """Return where the new content of a file is written before it gets the name."""
    return path.with_name(f".{path.name}.{_host_id()}.{os.getpid()}.tmp")


def write_durably(path: Path, content: bytes) -> None:
    """Write a file in place; after a crash it may be incomplete."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
