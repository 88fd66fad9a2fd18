"""The files of a folder of images: which there are, and which names must not be opened."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from decoderbench import ARCHIVE_SUFFIXES, IMAGE_SUFFIXES, UNSUPPORTED_IMAGE_SUFFIXES, DataError

SHOWN = 10  # names listed in a message
MAX_SHOWN = 200  # characters of a line or name in a message
MAX_BYTES = 2**30  # of a file of labels; more is no list of labels, and would fill the memory
MAX_LINE = 1_000_000
CHUNK = 2**20  # bytes hashed at a time
RESULTS = {"plan.json", "cells"}  # in each folder of results, which is in a folder of images if that is worked in


class Tree(NamedTuple):
    """The files below a folder, without hidden ones and results."""

    files: dict[
        str, bool
    ]  # by name relative to the folder; true for a regular file, false for a link and the like, and
    # for an empty folder that is called like a file
    linked_folders: list[str]  # links to folders, which are not followed
    results: list[str]  # folders that a run has written, which are not read


def require_folder(option: str, folder: Path) -> Path:
    """Return the folder, or raise `DataError` naming the option that leads to it."""
    if folder.is_file() and suffix_of(folder.name) in ARCHIVE_SUFFIXES:
        raise DataError(f"{folder} is an archive, which is not read; unpack it yourself and give the folder")
    if not folder.is_dir():
        literal = "; $ is taken literally, no variable is replaced" if "$" in str(folder) else ""
        raise DataError(f"{folder} is not a folder; check the option {option} of the dataset{literal}")
    return folder


def list_files(folder: str, *, follow_links: bool) -> Tree:
    """Return the files below a folder; with `follow_links`, a link counts as what it leads to."""
    files: dict[str, bool] = {}
    linked: list[str] = []
    results: list[str] = []
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(folder, "", (os.path.realpath(folder),))]
    while waiting:
        inner, prefix, entered = waiting.pop()
        with os.scandir(inner) as scanned:
            entries = list(scanned)
        if prefix and RESULTS.issubset(entry.name for entry in entries):
            results.append(prefix)
            continue
        if suffix_of(prefix.removesuffix("/")) and all(entry.name.startswith(".") for entry in entries):
            files[prefix.removesuffix("/")] = False
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{name}/", entered))
            elif not _leads_to_folder(entry):
                files[name] = _is_file(entry, follow_links) and is_utf8(entry.name)
            elif follow_links:
                target = os.path.realpath(entry.path)
                if any(f"{one}/".startswith(f"{target}/") for one in (*entered, os.path.realpath(inner))):
                    raise DataError(f"{folder}: the link {name!r} leads back to a folder that holds it; remove it")
                waiting.append((entry.path, f"{name}/", (*entered, target)))
            else:
                linked.append(name)
    return Tree(files, sorted(linked), sorted(results))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def _is_file(entry: os.DirEntry[str], follow_links: bool) -> bool:
    try:
        return entry.is_file(follow_symlinks=follow_links)
    except OSError:
        return False


def find_problem(folder: Path, name: str, *, follow_links: bool) -> str | None:
    """Return the reason why `name` must not be opened, or None. The file is not opened."""
    if not is_utf8(name):
        return "is not valid UTF-8"
    if name.startswith(("/", "../")) or name == "..":
        return "leaves the folder"
    try:
        target = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing, a cycle of links, a NUL character
        return "is a link that leads nowhere" if os.path.islink(folder / name) else "does not exist"  # noqa: PTH114
    if not follow_links and not target.is_relative_to(folder.resolve()):
        return "is a link that leaves the folder; set dataset.follow_links = true to allow such links"
    return None if target.is_file() else "is not a regular file"


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file; raise `DataError` if it is not one."""
    require_file(file)
    data = file.read_bytes()
    if suffix_of(file.name) != ".json" and (start := _find_long_line(data)) is not None:
        line = data.count(b"\n", 0, start) + 1
        raise DataError(f"{file} line {line} has more than {MAX_LINE:,} bytes; it is no file of labels, or damaged")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file} line {line} is not UTF-8; save the file as UTF-8") from error


def _find_long_line(data: bytes) -> int | None:
    """Return where a line of more than `MAX_LINE` bytes starts; None if there is none."""
    start = 0
    while len(data) - start > MAX_LINE:
        end = max(data.rfind(mark, start, start + MAX_LINE + 1) for mark in (b"\n", b"\r"))
        if end < 0:
            return start
        start = end + 1
    return None


def require_file(file: Path) -> None:
    """Raise `DataError` unless this is a regular file, which can be read without waiting, of at most `MAX_BYTES`."""
    if not file.is_file():
        raise DataError(f"{file} {'is not a regular file' if os.path.lexists(file) else 'does not exist'}")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise DataError(f"{file} has {size:,} bytes; a file of labels may have {MAX_BYTES:,}: divide it")


def list_some(problems: Sequence[str], what: str) -> str:
    """Return one problem as it is, and several as their number, what they are, and the first of them, one per line."""
    if len(problems) == 1:
        return problems[0]
    more = f"\n  and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    return f"{len(problems):,} {what}:" + "".join(f"\n  {problem}" for problem in problems[:SHOWN]) + more


def show(text: str) -> str:
    """Return text from data in quotes for a message, cut off where it is long."""
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!r}... ({len(text):,} characters)"


def is_utf8(name: str) -> bool:
    """Return whether a file name is text."""
    return name.isascii() or name.encode(errors="ignore").decode() == name


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, such as `.png`."""
    stem, _, suffix = name[name.rfind("/") + 1 :].rpartition(".")  # as splitext, which is slower
    return f".{suffix.lower()}" if stem else ""


def is_image(name: str) -> bool:
    """Return whether a name ends like that of an image that is read."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_unsupported_image(name: str) -> bool:
    """Return whether a name ends like that of an image that is not read here."""
    return suffix_of(name) in UNSUPPORTED_IMAGE_SUFFIXES


def looks_like_image(name: str) -> bool:
    """Return whether a name ends like that of an image, whether or not it can be read here."""
    return is_image(name) or is_unsupported_image(name)


def first_names(names: Sequence[str], shown: int = SHOWN) -> str:
    """Return the first names as text for a message."""
    return ", ".join(map(show, names[:shown])) + (", ..." if len(names) > shown else "")


def count_by_suffix(names: Iterable[str]) -> str:
    """Return how many names have each suffix, with the first of each, such as "412 .heic ('a.heic', ...)"."""
    names = sorted(names)
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(suffix_of(name), name)
    counts = Counter(map(suffix_of, names))
    return ", ".join(
        f"{count:,} {suffix or 'without suffix'} ({first[suffix]!r}{', ...' if count > 1 else ''})"
        for suffix, count in counts.most_common()
    )


def hash_file(path: str) -> str:
    """Return the sha256 of a regular file as hex digits."""
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  # faster than Path; a pipe would block
            raise DataError(f"image {path} is not a regular file")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # twice as fast as Path
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror}") from error
