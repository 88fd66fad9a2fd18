"""Whether a file is as it was written: its size and sha256, and JSON that states its own sha256. No torch here.

The digests find accidental damage. They are no signature: whoever edits a file can write a new digest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from decoderbench.errors import DataError
from decoderbench.options import Options

DIGEST = "sha256"
"""The key under which a JSON object states its own digest."""

_IS_DAMAGE = {
    errno.ELOOP: "symbolic links in a circle",
    errno.ENXIO: "not a regular file",
    errno.EIO: "cannot be read, input/output error",
}
"""Errors that reading again does not mend; others, such as a missing permission, say nothing about the content."""


def _refuse_outside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\0" in name:
        raise ValueError("not the path of a file in the folder of a cell")
    return name


ArtifactName = Annotated[str, AfterValidator(_refuse_outside)]
"""The path of an artifact in its cell's folder, with `/` between its parts."""


class Artifact(Options):
    """Size and digest of a file that a record stands for."""

    size: int = Field(ge=0)
    """Size in bytes."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of its bytes, as hexadecimal digits."""


class DamagedError(DataError):
    """A file is not as it was written. `damage` is the damage alone."""

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"{path}: damaged: {damage}")
        self.path, self.damage = path, damage


class UnreadableError(DataError):
    """A file cannot be read now, and may be intact."""


def artifact_of(path: Path) -> Artifact:
    """Return size and digest of a file.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not a regular file, or cannot be read.
    """
    with _open(path) as file:
        return Artifact(size=os.fstat(file.fileno()).st_size, sha256=_digest_of(path, file))


def check_size(path: Path, artifact: Artifact) -> None:
    """Raise if the size of a file is not that of its artifact.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it has another size, or is not a regular file.
    """
    with _open(path) as file:
        _check_size(path, file, artifact)


def check_content(path: Path, artifact: Artifact) -> None:
    """Raise if the bytes of a file are not those of its artifact; the size is compared first.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it has other bytes, or is not a regular file.
    """
    with _open(path) as file:
        _check_size(path, file, artifact)
        if _digest_of(path, file) != artifact.sha256:
            raise DamagedError(path, "sha256 mismatch")


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is larger, or not a regular file.
        UnreadableError: it cannot be read now.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise DamagedError(path, f"{size:,} bytes, at most {limit:,} are read")
        try:
            return file.read()
        except OSError as error:
            raise _explain(path, error) from None


def seal(data: dict[str, Any]) -> bytes:
    """Return a JSON object that states its own digest, as UTF-8."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    return json.dumps(
        {**data, DIGEST: _canonical_digest(_parse_numbers_as_text(text))}, indent=1, ensure_ascii=False
    ).encode()


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """Return a JSON object, with its digest if it states one.

    Raises:
        DamagedError: the content is not a JSON object. `path` names it.
    """
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise DamagedError(path, f"not JSON, {len(content):,} bytes" if content else "empty") from None
    if not isinstance(data, dict):
        raise DamagedError(path, f"not a JSON object, {len(content):,} bytes")
    return data


def has_own_digest(content: bytes, **replaced: int) -> bool:
    """Return whether a JSON object has the digest that it states, with the numbers of some keys replaced."""
    try:
        data = _parse_numbers_as_text(content.decode("utf-8-sig"))
        stated = data.pop(DIGEST, None)
        data |= {name: _as_text(str(value)) for name, value in replaced.items()}
        return bool(stated == _canonical_digest(data))
    except RecursionError:  # deeper than anything that was written
        return False


def _canonical_digest(data: dict[str, Any]) -> str:
    """Return the SHA-256 of an object as canonical JSON: sorted keys, no spaces, ASCII."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parse_numbers_as_text(text: str) -> Any:
    """Parse JSON, keeping the digits of numbers: one edited digit may leave a float the same."""
    return json.loads(text, parse_float=_as_text, parse_int=_as_text)


def _as_text(number: str) -> dict[str, str]:
    return {"number": number}  # no string, which an edit could make of it by quotation marks


def _open(path: Path) -> BufferedReader:
    """Open a regular file; one that would block, such as a pipe, is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _explain(path, error) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DamagedError(path, "a folder" if stat.S_ISDIR(mode) else "not a regular file")
    return os.fdopen(descriptor, "rb")


def _check_size(path: Path, file: BufferedReader, artifact: Artifact) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != artifact.size:
        raise DamagedError(
            path, f"{size:,} of {artifact.size:,} bytes" if size else f"empty, 0 of {artifact.size:,} bytes"
        )


def _digest_of(path: Path, file: BufferedReader) -> str:
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _explain(path, error) from None


def _explain(path: Path, error: OSError) -> DataError:
    if damage := _IS_DAMAGE.get(error.errno or 0):
        return DamagedError(path, damage)
    return UnreadableError(f"{path}: cannot be read: {error.strerror or error}; make it readable")
