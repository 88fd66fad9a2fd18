"""Labeled images: from sidecar files, from the file names, or from the names of folders."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from posixpath import basename, dirname, splitext
from typing import NamedTuple

from decoderbench import DataError

from .files import count_by_suffix, first_names, is_image, list_some, looks_like_image, read_text

PROGRESS_STEP = 500  # files between two reports of progress
Progress = Callable[[int, int], None]
Report = Callable[[str], None]  # `Dataset.report_problem`


class Row(NamedTuple):
    """A labeled image, before it has a split."""

    name: str  # of the image, relative to the folder of images
    label: str
    place: str  # where the label is, for messages
    table: str = ""  # file that holds the label, relative to the folder; empty if the label is the file name
    columns: Mapping[str, str] = {}  # other columns of the table
    group: str = ""  # samples of one group stay together; empty: the sample is its own group


def read_sidecars(
    folder: Path, files: Mapping[str, bool], suffix: str, progress: Progress, report: Report
) -> Iterator[Row]:
    """Yield the images that have a file with that suffix beside them, which holds the label."""
    problems: list[str] = []
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
                try:
                    label = read_text(folder / sidecar).removesuffix("\n").removesuffix("\r")
                except DataError as error:
                    problems.append(str(error))
                else:
                    yield Row(name, label, sidecar, sidecar, group=sidecar)
                break
    if problems:
        report(list_some(problems, f"{suffix} files cannot be read"))
    if unused and suffix == ".gt.txt":
        names = first_names(sorted(unused))
        stems = {sidecar[: -len(suffix)] for sidecar in unused}
        others = [
            name for name in files if looks_like_image(name) and splitext(name)[0] in stems and not is_image(name)
        ]
        unread = f"; images that cannot be read here: {count_by_suffix(others)}" if others else ""
        report(f"{len(unused):,} .gt.txt files in {folder} are links or have no image: {names}{unread}")


def sidecars_of(files: Iterable[str], suffix: str) -> dict[str, str]:
    """Return the files with a suffix, in upper or lower case, by their names without it."""
    return {name[: -len(suffix)]: name for name in files if name.lower().endswith(suffix)}


def read_file_names(names: Iterable[str], pattern: re.Pattern[str], report: Report) -> Iterator[Row]:
    """Yield the images whose names hold their labels."""
    others: list[str] = []
    for name in sorted(names):
        match = pattern.search(splitext(basename(name))[0])
        if match is None or match["label"] is None:
            others.append(name)
        else:
            yield Row(name, match["label"], "file name")
    if others:
        report(
            f"file name {others[0]!r} does not match dataset.filename_pattern {pattern.pattern!r}{_nor(others)}; set "
            "another"
        )


def read_folder_names(names: Iterable[str], report: Report) -> Iterator[Row]:
    """Yield the images, labeled by the names of the folders that hold them."""
    others: list[str] = []
    for name in sorted(names):
        label = basename(dirname(name))
        if label:
            yield Row(name, label, "folder")
        else:
            others.append(name)
    if others:
        report(f"image {others[0]!r} is in no folder that could be its label{_nor(others)}; check dataset.labels")


def _nor(names: list[str]) -> str:
    return f", nor do {len(names) - 1:,} others ({first_names(names[1:], 3)})" if len(names) > 1 else ""
