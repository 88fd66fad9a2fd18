"""A folder of images with labels in a table, in sidecar files or in the file names."""

import csv
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from posixpath import basename, normpath, splitext
from typing import Literal, NamedTuple, final

from PIL.Image import Image
from pydantic import field_validator

from decoderbench import ComponentConfig, DataError, Dataset, Sample, Split, hookimpl

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TAB_FILES = ("labels.txt", "labels.tsv", "label.txt", "gt.txt")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {**{split: split for split in SPLITS}, "valid": "val", "validation": "val"}
SHOWN = 10  # names listed in a message


class _Row(NamedTuple):
    name: str
    label: str
    split: str
    group: str
    place: str  # where the label is, for messages


@final
class Folder(Dataset):
    """Images in a folder, labeled by `labels.csv`, a tab-separated table, `.gt.txt` sidecars or their names.

    Labels are text and are not changed: `007` and `NA` are labels, and whitespace at the ends is kept. Images without a
    label are excluded and counted; every other mismatch is an error. Links must not lead out of the folder of images.
    """

    name = "folder"

    class Config(ComponentConfig):
        """Options of `folder`."""

        path: str
        """The folder, relative to the experiment file."""
        labels: Literal["auto", "csv", "tab", "gt_txt", "filename"] = "auto"
        """csv: labels.csv with columns filename and label. tab: labels.txt, labels.tsv, label.txt or gt.txt, each line
        a file name, a tab and a label. gt_txt: x.gt.txt beside x.png or x.bin.png. filename: the file names themselves.
        auto: the first of these that exists. File names are relative to the folder of images."""
        filename_pattern: str = r"^(?P<label>[^_]+)"
        """Regular expression to search for in a file name without its suffix; its group `label` is the label. The
        default is the part before the first underscore: 226md.png and 226md_2.png both have the label 226md."""
        images: str | None = None
        """Folder of images, relative to path; default: images/ if it exists, else path itself."""
        split_column: str | None = None
        """Column of labels.csv with the values train, val (or valid, validation) and test. If no row has val, part of
        train becomes val, by group, in the proportion of their fractions."""
        group_column: str | None = None
        """Column of labels.csv; all samples with the same value are in the same split."""
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
        """Shares of train, val and test, exact to within one sample, or one group."""
        split_seed: int = 0
        """Another seed assigns samples, or groups, to other splits."""

        @field_validator("fractions")
        @classmethod
        def _check_sum(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
            if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
                raise ValueError(f"shares of train, val and test must sum to 1, given {list(fractions)}")
            return fractions

        @field_validator("filename_pattern")
        @classmethod
        def _check_pattern(cls, pattern: str) -> str:
            try:
                assert "label" in re.compile(pattern).groupindex, "it has no group named label"
            except (AssertionError, re.error) as error:
                raise ValueError(f"must be a regular expression such as '(?P<label>[^_]+)': {error}") from error
            return pattern

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def load_image(self, index: int) -> Image:
        return self.decode(self._folder / self._samples[index].key)

    def fingerprint(self) -> str:
        return _digest([(s.key, s.label, s.split, _sha256(f"{self._folder}/{s.key}")) for s in self._samples])

    def stamp(self) -> str | None:
        status = [os.stat(f"{self._folder}/{s.key}") for s in self._samples]  # noqa: PTH116  # faster than Path
        newest = max(max(s.st_mtime, s.st_ctime) for s in status)
        if newest > time.time() - 2:
            return None  # another change could get the same time
        files = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in status]
        rows = [(s.key, s.label, s.split, file) for s, file in zip(self._samples, files, strict=True)]
        return _digest([str(self._folder.resolve()), rows])

    def notes(self) -> Sequence[str]:
        others = sorted(set(filter(_is_image, self._files)) - {sample.key for sample in self._samples})
        return [f"images without a label are excluded: {len(others):,} ({_first_names(others)})"] if others else []

    @cached_property
    def _root(self) -> Path:
        return _require_folder("path", self.base_dir / Path(self.config.path).expanduser())

    @cached_property
    def _folder(self) -> Path:
        if self.config.images is None and not (self._root / "images").is_dir():
            return self._root
        return _require_folder("images", self._root / (self.config.images or "images"))

    @cached_property
    def _files(self) -> dict[str, bool]:
        """The files in the folder of images, by relative name; true for a regular file, false for a link."""
        return dict(_walk(str(self._folder), ""))

    @cached_property
    def _samples(self) -> list[Sample]:
        rows = sorted(self._rows(), key=lambda row: row.name)
        if not rows:
            raise DataError(f"dataset folder {self._root} has no labeled images")
        self._refuse_bad_names(rows)
        splits = self._splits(rows)
        for split, fraction in zip(SPLITS, self.config.fractions, strict=True):
            if fraction > 0 and split not in splits:
                raise DataError(
                    f"split {split!r} received none of the {len(rows):,} samples in {self._root}; "
                    "add samples or groups, or change fractions"
                )
        return [Sample(row.name, row.label, split) for row, split in zip(rows, splits, strict=True)]

    def _rows(self) -> Iterator[_Row]:
        table, kind = self._root / "labels.csv", self.config.labels
        tables = [self._root / name for name in TAB_FILES if (self._root / name).exists()]
        if kind == "csv" or (kind == "auto" and table.exists()):
            return _read_csv(table, self.config.split_column, self.config.group_column)
        if self.config.split_column or self.config.group_column:
            raise DataError(f"split_column and group_column need a labels.csv, and {self._root} has none")
        if kind == "tab" or (kind == "auto" and tables):
            return _read_tab(tables[0] if tables else self._root / TAB_FILES[0])
        if kind == "gt_txt" or (kind == "auto" and any(name.endswith(".gt.txt") for name in self._files)):
            return _read_sidecars(self._folder, self._files)
        return _read_file_names(filter(_is_image, self._files), re.compile(self.config.filename_pattern))

    def _refuse_bad_names(self, rows: Sequence[_Row]) -> None:
        problems, seen = [], dict[str, str]()
        for row in rows:
            if row.name in seen:
                problems.append(f"{row.place}: {row.name!r} is already named in {seen[row.name]}")
            elif not self._files.get(row.name) and (reason := _find_problem(self._folder, row.name)):
                problems.append(f"{row.place}: {row.name!r} {reason}")
            seen[row.name] = row.place
        if problems:
            raise DataError(
                f"{len(problems):,} names do not each denote one image in {self._folder}; "
                "correct the names or the option images:" + "".join(f"\n  {problem}" for problem in problems[:SHOWN])
            )

    def _splits(self, rows: Sequence[_Row]) -> list[Split]:
        config, column = self.config, self.config.split_column
        if column is None:
            return self.deal_splits([row.group for row in rows], config.fractions, seed=config.split_seed)
        for row in rows:
            if row.split.lower() not in SPLIT_NAMES:
                allowed = ", ".join(SPLIT_NAMES)
                raise DataError(f"{row.place}: column {column!r} has value {row.split!r}; allowed: {allowed}")
        given = [SPLIT_NAMES[row.split.lower()] for row in rows]
        train, val, _ = config.fractions
        if "val" not in given and val > 0:
            groups = [row.group for row, split in zip(rows, given, strict=True) if split == "train"]
            shares = (train / (train + val), val / (train + val), 0.0)
            dealt = iter(self.deal_splits(groups, shares, seed=config.split_seed))
            given = [next(dealt) if split == "train" else split for split in given]
        first: dict[str, Split] = {}  # the first split of each group
        pairs = zip(rows, given, strict=True)
        if divided := sorted({row.group for row, split in pairs if first.setdefault(row.group, split) != split}):
            raise DataError(
                f"{len(divided):,} groups of column {config.group_column!r} are in several splits of column "
                f"{column!r}: {_first_names(divided)}; set only one of split_column and group_column"
            )
        return given


def _require_folder(option: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; check the option {option} of the dataset")
    return folder


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.is_file(follow_symlinks=False) and _is_utf8(entry.name)


def _find_problem(folder: Path, name: str) -> str | None:
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


def _read_csv(file: Path, split_column: str | None, group_column: str | None) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(_read_text(file), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        for column in filter(None, ("filename", "label", split_column, group_column)):
            if columns.count(column) != 1:
                raise DataError(f"{file} must have one column {column!r}; its columns: {', '.join(columns)}")
        for record in reader:
            place = f"{file.name} line {reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{place} has a different number of fields than the header; quote fields with commas")
            name = normpath(record["filename"])
            group = record[group_column] if group_column else name
            yield _Row(name, record["label"], record[split_column] if split_column else "", group, place)
    except csv.Error as error:
        raise DataError(f"{file} line {reader.line_num + 1} is not CSV: {error}") from error


def _read_tab(file: Path) -> Iterator[_Row]:
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        line = line.removesuffix("\r")
        name, tab, label = line.partition("\t")
        if not line:
            continue
        if not tab:
            raise DataError(
                f"{file} line {number} is not a file name, a tab and a label: {line!r}; check the option labels"
            )
        name = normpath(name)
        yield _Row(name, label, "", name, f"{file.name} line {number}")


def _read_sidecars(folder: Path, files: dict[str, bool]) -> Iterator[_Row]:
    unused = {name for name in files if name.endswith(".gt.txt")}
    for name in sorted(filter(_is_image, files)):
        inner = name.removesuffix(basename(name))
        for stem in (splitext(name)[0], inner + basename(name).split(".")[0]):
            sidecar = f"{stem}.gt.txt"
            if files.get(sidecar):
                unused.discard(sidecar)
                label = _read_text(folder / sidecar).removesuffix("\n").removesuffix("\r")
                yield _Row(name, label, "", sidecar, sidecar)
                break
    if unused:
        names = _first_names(sorted(unused))
        raise DataError(f"{len(unused):,} .gt.txt files in {folder} are links or have no image: {names}")


def _read_file_names(names: Iterable[str], pattern: re.Pattern[str]) -> Iterator[_Row]:
    for name in sorted(names):
        match = pattern.search(splitext(basename(name))[0])
        if match is None or match["label"] is None:
            raise DataError(f"file name {name!r} does not match filename_pattern {pattern.pattern!r}")
        yield _Row(name, match["label"], "", name, "file name")


def _read_text(file: Path) -> str:
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


def _is_image(name: str) -> bool:
    return splitext(name)[1].lower() in IMAGE_SUFFIXES


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def _sha256(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # twice as fast as Path
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror}") from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `folder`."""
    return [Folder]
