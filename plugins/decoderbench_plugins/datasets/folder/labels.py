"""Labeled images: from sidecar files, from the file names, or from the names of folders."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from posixpath import basename, dirname, splitext
from typing import NamedTuple

from decoderbench import DataError

from .files import count_by_suffix, first_names, is_image, looks_like_image, read_text

PROGRESS_STEP = 500  # files between two reports of progress
Progress = Callable[[int, int], None]


class Row(NamedTuple):
    """A labeled image, before it has a split."""

    name: str  # of the image, relative to the folder of images
    label: str
    place: str  # where the label is, for messages
    table: str = ""  # file that holds the label, relative to the folder; empty if the label is the file name
    columns: Mapping[str, str] = {}  # other columns of the table
    group: str = ""  # samples of one group stay together; empty: the sample is its own group


def read_sidecars(folder: Path, files: Mapping[str, bool], suffix: str, progress: Progress) -> Iterator[Row]:
    """Yield the images that have a file with that suffix beside them, which holds the label."""
    sidecars = sidecars_of(files, suffix)
    unused = set(sidecars.values())
    images = sorted(filter(is_image, files))
    for number, name in enumerate(images):
        if number % PROGRESS_STEP == 0:
            progress(number, len(images))
        inner = name.removesuffix(basename(name))
        for stem in (splitext(name)[0], inner + basename(name).split(".")[0]):
            sidecar = sidecars.get(stem)
            if sidecar and files[sidecar]:
                unused.discard(sidecar)
                label = read_text(folder / sidecar).removesuffix("\n").removesuffix("\r")
                yield Row(name, label, sidecar, sidecar, group=sidecar)
                break
    if unused and suffix == ".gt.txt":
        names = first_names(sorted(unused))
        stems = {sidecar[: -len(suffix)] for sidecar in unused}
        others = [
            name for name in files if looks_like_image(name) and splitext(name)[0] in stems and not is_image(name)
        ]
        unread = f"; images that cannot be read here: {count_by_suffix(others)}" if others else ""
        raise DataError(f"{len(unused):,} .gt.txt files in {folder} are links or have no image: {names}{unread}")


def sidecars_of(files: Iterable[str], suffix: str) -> dict[str, str]:
    """Return the files with a suffix, in upper or lower case, by their names without it."""
    return {name[: -len(suffix)]: name for name in files if name.lower().endswith(suffix)}


def read_file_names(names: Iterable[str], pattern: re.Pattern[str]) -> Iterator[Row]:
    """Yield the images whose names hold their labels."""
    for name in sorted(names):
        match = pattern.search(splitext(basename(name))[0])
        if match is None or match["label"] is None:
            raise DataError(
                f"file name {name!r} does not match dataset.filename_pattern {pattern.pattern!r}; set another"
            )
        yield Row(name, match["label"], "file name")


def read_folder_names(names: Iterable[str]) -> Iterator[Row]:
    """Yield the images, labeled by the names of the folders that hold them."""
    for name in sorted(names):
        label = basename(dirname(name))
        if not label:
            raise DataError(f"image {name!r} is in no folder that could be its label; check dataset.labels")
        yield Row(name, label, "folder")
