"""A folder of images with labels in tables, in sidecar files, in the file names or in the names of folders."""

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, final

from PIL.Image import Image
from pydantic import BeforeValidator, field_validator, model_validator

from decoderbench import ARCHIVE_SUFFIXES, ComponentConfig, DataError, Dataset, Sample

from .files import count_by_suffix, hash_file, is_image, list_files, require_folder, suffix_of
from .groups import declared_groups
from .labels import PROGRESS_STEP
from .names import ImageNames
from .notes import labeled_images, list_notes, report_left_out
from .sources import Place, Source, find_labels
from .split_lists import Lists, read_lists
from .split_words import SPLITS
from .splits import Assignment, assign_splits

UNDECIDED = "not decided, so that all samples count as train"
Files = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]


@final
class Folder(Dataset):
    """Images in a folder, labeled by a table, by sidecar files, by their names or by their folders.

    Labels are text and are not changed: `007` and `NA` are labels, and whitespace at the ends is kept. Images without a
    label are excluded and counted; every other mismatch is an error. Links must not lead out of the folder of images,
    unless `follow_links` allows them.
    """

    name = "folder"

    class Config(ComponentConfig):
        """Options of `folder`."""

        path: str
        """The folder, relative to the experiment file."""
        labels: Literal["auto", "table", "csv", "tab", "gt_txt", "txt", "filename", "folder"] = "auto"
        """table: tables of file names and labels, wherever they are: csv, tsv, txt, json, jsonl, parquet, xlsx. csv:
        labels.csv with columns filename and label. tab: labels.txt, labels.tsv, label.txt or gt.txt, each line a file
        name, a tab and a label. gt_txt: x.gt.txt beside x.png or x.bin.png. txt: x.txt beside x.png. filename: the file
        names themselves. folder: the name of the folder of each image. auto: the tables or .gt.txt files that are
        there, else the file names if no file looks like labels."""
        labels_file: Files = ()
        """The table of labels, or a list of tables, relative to path."""
        name_column: str | None = None
        """Header of the column of file names, relative to the folder of images, the table or the root; without a
        header, the number of the column, from 1. Default: a usual header such as file_name, if only one is there."""
        label_column: str | None = None
        """Header or number of the column of labels. Default: a usual header such as text, if only one is there."""
        filename_pattern: str = r"^(?P<label>[^_]+)"
        """Regular expression to search for in a file name without its suffix; its group `label` is the label. The
        default is the part before the first underscore: 226md.png and 226md_2.png both have the label 226md."""
        images: str | None = None
        """Folder of images, relative to path; default: images/ if it exists, else path itself."""
        follow_links: bool = False
        """Allow links that lead out of the folder, and read the folders that links lead to."""
        split: Literal["auto", "given", "dealt"] = "auto"
        """given: the split that names say, in this order: a column of the table (split, subset, ...), list files
        (train.txt), names of label files (rec_gt_train.txt), folders (train/), names of images (train_1.png). dealt:
        samples are dealt by fractions; names do not count. auto: given if names divide the samples, else dealt; a given
        split is refused if groups, such as pages, are in several parts. In any case it is refused if names contradict
        each other or reach only some samples. dev is val; eval is val beside a test, else it is test."""
        split_column: str | None = None
        """Column with the values train, val and test, in any common spelling, where its name does not say so."""
        test_from: Literal["train", "val"] | None = None
        """Part to deal test from, if the given split has none. A missing val is dealt from train without it. Shares are
        those of the two parts in fractions, and groups stay together."""
        group_column: str | None = None
        """Column of the table, such as a photograph, page or writer; all samples with the same value are in the same
        split, unless it is given, and intervals of scores count groups."""
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

        @model_validator(mode="after")
        def _check_split(self) -> Self:
            if self.split == "dealt" and (self.split_column is not None or self.test_from is not None):
                raise ValueError("split = 'dealt' excludes split_column and test_from, which need a given split")
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def load_image(self, index: int) -> Image:
        return self.decode(self._folder / self._samples[index].key)

    def fingerprint(self) -> str:
        rows, total = [], len(self._samples)
        for number, sample in enumerate(self._samples, start=1):
            rows.append((sample.key, sample.label, sample.split, hash_file(f"{self._folder}/{sample.key}")))
            if number % PROGRESS_STEP == 0 or number == total:
                self.report_progress(number, total)
        return _digest(rows)

    def stamp(self) -> str | None:
        status = [os.stat(f"{self._folder}/{s.key}") for s in self._samples]  # noqa: PTH116  # faster than Path
        newest = max(max(s.st_mtime, s.st_ctime) for s in status)
        if newest > time.time() - 2:
            return None  # another change could get the same time
        files = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in status]
        rows = [(s.key, s.label, s.split, file) for s, file in zip(self._samples, files, strict=True)]
        return _digest([str(self._folder.resolve()), rows])

    def label_source(self) -> str:
        return self._labels.description

    def split_source(self) -> str:
        return self._assignment.source

    def notes(self) -> Sequence[str]:
        keys = {sample.key for sample in self._samples}
        return [*list_notes(self._place, self._labels, keys, self._lists), *self._assignment.notes]

    @cached_property
    def _root(self) -> Path:
        return require_folder("path", self.base_dir / Path(self.config.path).expanduser())

    @cached_property
    def _folder(self) -> Path:
        if self.config.images is None and not (self._root / "images").is_dir():
            return self._root
        return require_folder("images", self._root / (self.config.images or "images"))

    @cached_property
    def _place(self) -> Place:
        root, folder = Path(os.path.abspath(self._root)), Path(os.path.abspath(self._folder))  # noqa: PTH100  # links stay
        tree = list_files(str(root), follow_links=self.config.follow_links)
        images = tree if folder == root else list_files(str(folder), follow_links=self.config.follow_links)
        return Place(root, folder, tree, images, ImageNames(str(root), str(folder), images.files))

    @cached_property
    def _labels(self) -> Source:
        source = find_labels(self.config, self._place, self.report_progress, self.report_problem)
        if not source.rows:
            files = [name for name in self._place.tree.files if not is_image(name)]
            unread = count_by_suffix(files)
            others = f"; {source.description} names none" if source.files else ""
            others += f"; other files there: {unread}" if unread else ""
            for suffix, other in ((".mdb", "lmdb"), (".parquet", "hf")):
                others += (
                    f"; {suffix} files with images are read with dataset.use = {other!r}" if suffix in unread else ""
                )
            if ARCHIVE_SUFFIXES.intersection(map(suffix_of, files)):
                others += "; archives are not read: unpack them yourself"
            move = others or "; give one with images, and labels in a table, in .gt.txt files or in file names"
            raise DataError(f"dataset folder {self._root} has no labeled images{move}")
        rows = labeled_images(source, self._place, self.report_problem, follow_links=self.config.follow_links)
        report_left_out(source, self._place, self.config, self.report_problem)
        if not rows:
            raise DataError(f"dataset folder {self._root} has no image of its own for any label")
        return source._replace(rows=sorted(rows, key=lambda row: row.name))

    @cached_property
    def _lists(self) -> Lists:
        return read_lists(self._place.root, self._place.tree.files, self._place.names, self._labels.files)

    @cached_property
    def _assignment(self) -> Assignment:
        rows = self._labels.rows
        try:
            return assign_splits(rows, self._lists, self.config, self.deal_splits)
        except DataError as error:
            self.report_problem(str(error))
            return Assignment(["train"] * len(rows), UNDECIDED, [])

    @cached_property
    def _samples(self) -> list[Sample]:
        rows, splits = self._labels.rows, self._assignment.splits
        for split, fraction in zip(SPLITS, self.config.fractions, strict=True):
            if fraction > 0 and split not in splits and self._assignment.source != UNDECIDED:
                self.report_problem(
                    f"split {split!r} received none of the {len(rows):,} samples in {self._root}; "
                    "add samples or groups, or change fractions"
                )
        groups = declared_groups(rows, self.config.group_column)
        rows_of_samples = zip(rows, splits, groups, strict=True)
        return [Sample(row.name, row.label, split, group) for row, split, group in rows_of_samples]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
