"""A folder of images with labels in a table, in sidecar files or in the file names."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, final

from PIL.Image import Image
from pydantic import field_validator

from decoderbench import ComponentConfig, DataError, Dataset, Sample

from .files import SHOWN, find_problem, first_names, hash_file, is_image, require_folder, walk
from .labels import TAB_FILES, Row, read_csv, read_file_names, read_sidecars, read_tab
from .splits import SPLITS, assign_splits


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
        return _digest([(s.key, s.label, s.split, hash_file(f"{self._folder}/{s.key}")) for s in self._samples])

    def stamp(self) -> str | None:
        status = [os.stat(f"{self._folder}/{s.key}") for s in self._samples]  # noqa: PTH116  # faster than Path
        newest = max(max(s.st_mtime, s.st_ctime) for s in status)
        if newest > time.time() - 2:
            return None  # another change could get the same time
        files = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in status]
        rows = [(s.key, s.label, s.split, file) for s, file in zip(self._samples, files, strict=True)]
        return _digest([str(self._folder.resolve()), rows])

    def notes(self) -> Sequence[str]:
        others = sorted(set(filter(is_image, self._files)) - {sample.key for sample in self._samples})
        return [f"images without a label are excluded: {len(others):,} ({first_names(others)})"] if others else []

    @cached_property
    def _root(self) -> Path:
        return require_folder("path", self.base_dir / Path(self.config.path).expanduser())

    @cached_property
    def _folder(self) -> Path:
        if self.config.images is None and not (self._root / "images").is_dir():
            return self._root
        return require_folder("images", self._root / (self.config.images or "images"))

    @cached_property
    def _files(self) -> dict[str, bool]:
        """The files in the folder of images, by relative name; true for a regular file, false for a link."""
        return dict(walk(str(self._folder), ""))

    @cached_property
    def _samples(self) -> list[Sample]:
        rows = sorted(self._rows(), key=lambda row: row.name)
        if not rows:
            raise DataError(f"dataset folder {self._root} has no labeled images")
        self._refuse_bad_names(rows)
        splits = assign_splits(rows, self.config, self.deal_splits)
        for split, fraction in zip(SPLITS, self.config.fractions, strict=True):
            if fraction > 0 and split not in splits:
                raise DataError(
                    f"split {split!r} received none of the {len(rows):,} samples in {self._root}; "
                    "add samples or groups, or change fractions"
                )
        return [Sample(row.name, row.label, split) for row, split in zip(rows, splits, strict=True)]

    def _rows(self) -> Iterator[Row]:
        table, kind = self._root / "labels.csv", self.config.labels
        tables = [self._root / name for name in TAB_FILES if (self._root / name).exists()]
        if kind == "csv" or (kind == "auto" and table.exists()):
            return read_csv(table)
        if self.config.split_column or self.config.group_column:
            raise DataError(f"split_column and group_column need a labels.csv, and {self._root} has none")
        if kind == "tab" or (kind == "auto" and tables):
            return read_tab(tables[0] if tables else self._root / TAB_FILES[0])
        if kind == "gt_txt" or (kind == "auto" and any(name.endswith(".gt.txt") for name in self._files)):
            return read_sidecars(self._folder, self._files)
        return read_file_names(filter(is_image, self._files), re.compile(self.config.filename_pattern))

    def _refuse_bad_names(self, rows: Sequence[Row]) -> None:
        problems, seen = [], dict[str, str]()
        for row in rows:
            if row.name in seen:
                problems.append(f"{row.place}: {row.name!r} is already named in {seen[row.name]}")
            elif not self._files.get(row.name) and (reason := find_problem(self._folder, row.name)):
                problems.append(f"{row.place}: {row.name!r} {reason}")
            seen[row.name] = row.place
        if problems:
            raise DataError(
                f"{len(problems):,} names do not each denote one image in {self._folder}; "
                "correct the names or the option images:" + "".join(f"\n  {problem}" for problem in problems[:SHOWN])
            )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
