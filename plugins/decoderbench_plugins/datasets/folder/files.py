"""The files of a folder of images: which there are, and which names must not be opened."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import splitext

from decoderbench import DataError

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SHOWN = 10  # names listed in a message


def require_folder(option: str, folder: Path) -> Path:
    """Return the folder, or raise `DataError` naming the option that leads to it."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; check the option {option} of the dataset")
    return folder


def walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield the files in a folder by relative name; true for a regular file, false for a link; no hidden ones."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.is_file(follow_symlinks=False) and _is_utf8(entry.name)


def find_problem(folder: Path, name: str) -> str | None:
    """Return the reason why `name` must not be opened, or None. The file is not opened."""
    if not _is_utf8(name):
        return "is not valid UTF-8"
    if name.startswith(("/", "../")) or name == "..":
        return "leaves the folder"
    try:
        target = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing, a cycle of links, a NUL character
        return "does not exist"
    if not target.is_relative_to(folder.resolve()):
        return "is a link that leaves the folder"
    return None if target.is_file() else "is not a regular file"


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file; raise `DataError` if it is not one."""
    if not file.is_file():
        raise DataError(f"{file} is not a regular file")
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file} line {line} is not UTF-8; save the file as UTF-8") from error


def _is_utf8(name: str) -> bool:
    return name.isascii() or name.encode(errors="ignore").decode() == name


def is_image(name: str) -> bool:
    """Return whether a name ends like that of an image."""
    return splitext(name)[1].lower() in IMAGE_SUFFIXES


def first_names(names: Sequence[str]) -> str:
    """Return the first names as text for a message."""
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def hash_file(path: str) -> str:
    """Return the sha256 of a file as hex digits."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # twice as fast as Path
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror}") from error
