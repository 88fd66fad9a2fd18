"""The labels of images: read from tables, from sidecar files, or from the file names."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from posixpath import basename, normpath, splitext
from typing import NamedTuple

from decoderbench import DataError

from .files import first_names, is_image, read_text

TAB_FILES = ("labels.txt", "labels.tsv", "label.txt", "gt.txt")


class Row(NamedTuple):
    """A labeled image, before it has a split."""

    name: str  # of the image, relative to the folder of images
    label: str
    place: str  # where the label is, for messages
    table: str = ""  # file that holds the label, relative to the folder; empty if the label is the file name
    columns: Mapping[str, str] = {}  # other columns of the table
    group: str = ""  # samples of one group stay together; empty: the sample is its own group


def read_csv(file: Path) -> Iterator[Row]:
    """Yield the rows of a table with the columns filename and label."""
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        for column in ("filename", "label"):
            if columns.count(column) != 1:
                raise DataError(f"{file} must have one column {column!r}; its columns: {', '.join(columns)}")
        for record in reader:
            place = f"{file.name} line {reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{place} has a different number of fields than the header; quote fields with commas")
            name = normpath(record["filename"])
            yield Row(name, record["label"], place, file.name, record)
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num + 1} is not CSV: {error}") from error


def read_tab(file: Path) -> Iterator[Row]:
    """Yield the rows of a table of file names and labels, separated by tabs."""
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        line = line.removesuffix("\r")
        name, tab, label = line.partition("\t")
        if not line:
            continue
        if not tab:
            raise DataError(
                f"{file} line {number} is not a file name, a tab and a label: {line!r}; check the option labels"
            )
        name = normpath(name)
        yield Row(name, label, f"{file.name} line {number}", file.name)


def read_sidecars(folder: Path, files: dict[str, bool]) -> Iterator[Row]:
    """Yield the images that have a file `.gt.txt` beside them."""
    unused = {name for name in files if name.endswith(".gt.txt")}
    for name in sorted(filter(is_image, files)):
        inner = name.removesuffix(basename(name))
        for stem in (splitext(name)[0], inner + basename(name).split(".")[0]):
            sidecar = f"{stem}.gt.txt"
            if files.get(sidecar):
                unused.discard(sidecar)
                label = read_text(folder / sidecar).removesuffix("\n").removesuffix("\r")
                yield Row(name, label, sidecar, sidecar, group=sidecar)
                break
    if unused:
        names = first_names(sorted(unused))
        raise DataError(f"{len(unused):,} .gt.txt files in {folder} are links or have no image: {names}")


def read_file_names(names: Iterable[str], pattern: re.Pattern[str]) -> Iterator[Row]:
    """Yield the images whose names hold their labels."""
    for name in sorted(names):
        match = pattern.search(splitext(basename(name))[0])
        if match is None or match["label"] is None:
            raise DataError(f"file name {name!r} does not match filename_pattern {pattern.pattern!r}")
        yield Row(name, match["label"], "file name")
