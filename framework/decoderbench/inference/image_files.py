"""Which image files somebody means by files, folders and lines of standard input. No torch here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from decoderbench.data.image_formats import IMAGE_SUFFIXES
from decoderbench.errors import DataError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class ImageFiles:
    """The files to read, and what lies beside them.

    Attributes:
        paths: the files that were named, those of a folder sorted by their paths.
        others: number of files in folders that are no images, by suffix; hidden ones are not counted.
    """

    paths: tuple[Path, ...]
    others: Counter[str]

    def note(self) -> str:
        """Return what was not read as a line; empty if that is nothing."""
        ordered = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        counts = (f"{count:,} {suffix or 'without suffix'}" for suffix, count in ordered)
        return f"files in folders that are no images and are not read: {', '.join(counts)}" if self.others else ""


def find_image_files(named: Sequence[str], lines: Iterable[str] = ()) -> ImageFiles:
    """Return the images that files and folders mean; `-` stands for `lines`, one path per line.

    A file that is named is read whatever its suffix. A folder means the files in it, at any depth, whose suffix is that
    of an image. A path that does not exist stays in the list, for its row gives the reason.

    Raises:
        DataError: there is no image.
    """
    paths: list[Path] = []
    others = Counter[str]()
    for name in named:
        if name == STANDARD_INPUT:
            given = (line.rstrip("\r\n") for line in lines)
            paths += [Path(line) for line in given if line]
        elif (folder := Path(name)).is_dir():
            suffixes = {path: path.suffix.lower() for path in sorted(_files_in(folder))}
            paths += [path for path, suffix in suffixes.items() if suffix in IMAGE_SUFFIXES]
            others.update(suffix for suffix in suffixes.values() if suffix not in IMAGE_SUFFIXES)
        else:
            paths.append(folder)
    if not paths:
        what = ", ".join(named) or "nothing"
        beside = f"; {note}" if (note := ImageFiles((), others).note()) else ""
        raise DataError(f"{what}: no image there{beside}; name files, or a folder of images")
    return ImageFiles(tuple(paths), others)


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder at any depth, hidden ones left out; links to folders are followed, each once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}; make it readable") from None

    entered: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - os.walk gives texts
        known = (status.st_dev, status.st_ino) in entered
        entered.add((status.st_dev, status.st_ino))
        folders[:] = [] if known else sorted(name for name in folders if not name.startswith("."))
        yield from () if known else (Path(place, name) for name in names if not name.startswith("."))
