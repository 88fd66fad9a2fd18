"""Files that a results folder and the image cache do not need, and their removal. No torch here.

Nothing is removed that a table is made of, that a running process works on, or that takes more than a fresh decoding of
images to get again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decoderbench.data.cache_folders import SECONDS_KEPT
from decoderbench.data.image_store import read_store
from decoderbench.errors import DataError
from decoderbench.files.locks import holding, is_held
from decoderbench.files.storage import delete, explaining, find_leftovers
from decoderbench.records import leases
from decoderbench.records.record_files import RESULT, set_aside_files
from decoderbench.records.results_directory import REPORT_FOLDERS, ResultsDirectory

DAYS_UNUSED = 30
"""A store of images and a fingerprint that nobody has opened for so long can be removed."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be removed.

    Attributes:
        path: the file or folder.
        kind: what it is, as in "cell of earlier settings".
        hold: keeps others from using it, and yields False if one does.
    """

    path: Path
    kind: str
    hold: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True)

    @property
    def size(self) -> int:
        """Bytes of all files in it."""
        files = self.path.rglob("*") if self.path.is_dir() and not self.path.is_symlink() else [self.path]
        total = 0
        for file in files:
            with suppress(OSError):
                total += file.lstat().st_size
        return total

    def remove(self) -> bool:
        """Remove it; return False if another process is using it.

        Raises:
            StorageError: it cannot be removed.
        """
        with self.hold() as held:
            if held:
                self._remove()
        return held

    def _remove(self) -> None:
        with explaining(self.path, doing="remove"):
            if self.path.is_symlink() or not self.path.is_dir():
                delete(self.path)
            else:
                delete(self.path / RESULT)  # first, so that no half of a cell counts as a result
                shutil.rmtree(self.path)


def find_in_results(directory: ResultsDirectory) -> Iterator[Removable]:
    """Yield cells of earlier settings, packs that no cell starts from now, renamed damaged files, and temporary files.

    Raises:
        OtherFormatError, DataError: the folder has no plan, or one that cannot be read.
    """
    plan = directory.read_plan()
    known = {cell.cell_id for cell in (*plan.tuning, *plan.cells)}
    yield from _aside(directory.path)
    for folder in (directory.path, *(directory.path / name for name in REPORT_FOLDERS)):
        yield from (Removable(path, "temporary file") for path in find_leftovers(folder))
    starts = {directory.start_file(cell.start.digest) for cell in (*plan.tuning, *plan.cells) if cell.start is not None}
    for file in sorted(directory.path.glob("starts/*.zip")):
        if file not in starts:
            yield Removable(file, "pack of earlier settings")
    yield from (Removable(path, "temporary file") for path in find_leftovers(directory.path / "starts"))
    for folder in sorted(directory.path.glob(f"{leases.FOLDER}/*.rw")):
        if not (directory.path / "cells" / folder.name.removesuffix(".rw")).exists():
            yield Removable(folder, "lease of a cell that is gone")
    for folder in sorted(path for path in directory.path.glob("cells/*") if path.is_dir()):
        if directory.leases.is_held(folder):  # by heartbeats: `hold` will tell
            continue
        hold = partial(directory.hold, folder)
        if folder.name not in known:
            yield Removable(folder, "cell of earlier settings", hold)
        else:
            yield from (Removable(one.path, one.kind, hold) for one in _aside(folder))
            yield from (Removable(path, "temporary file", hold) for path in find_leftovers(folder, all_of_them=True))


def find_in_cache(cache: Path, used: set[str]) -> Iterator[Removable]:
    """Yield stores of images and fingerprints that are unused, damaged or of another version of decoderbench.

    Args:
        cache: the folder of the cache.
        used: data hashes whose stores stay, however old they are.
    """
    for folder in sorted(path for path in cache.glob("images/*") if path.is_dir()):
        lock = folder.with_suffix(".lock")
        if kind := "" if is_held(lock) else _kind_of_store(folder, used):
            yield Removable(folder, kind, partial(holding, lock))
    leftovers = find_leftovers(cache / "fingerprints")
    yield from (Removable(path, "temporary file") for path in leftovers)
    for file in sorted(cache.glob("fingerprints/*.json")):
        if _days_since(file) > DAYS_UNUSED:
            yield Removable(file, f"fingerprint, unused for {_days_since(file):.0f} days")


def _aside(folder: Path) -> Iterator[Removable]:
    return (Removable(folder / name, "damaged file, renamed") for name in set_aside_files(folder))


def _kind_of_store(folder: Path, used: set[str]) -> str:
    """Return why a folder of the cache can be removed; an empty string if it cannot."""
    if folder.suffix == ".damaged":
        return "damaged images, renamed"
    if folder.suffix == ".building":
        return "interrupted decoding" if _days_since(folder) * 24 * 3600 > SECONDS_KEPT else ""
    if folder.name in {data_hash[:32] for data_hash in used}:
        return ""
    try:
        read_store(folder)
    except DataError as error:
        return f"images that cannot be used: {error}"
    days = _days_since(folder)
    return f"images, unused for {days:.0f} days" if days > DAYS_UNUSED else ""


def _days_since(path: Path) -> float:
    """Return the days since a file, or the newest file in a folder, was modified; 0 if that cannot be read."""
    newest = 0.0
    with suppress(OSError):
        newest = max(one.stat().st_mtime for one in (path, *(path.iterdir() if path.is_dir() else ())))
    return (time.time() - newest) / 86400 if newest else 0.0
