"""The contract of datasets, the sources of labeled images. No torch here, so that workers start fast."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, get_args

from decoderbench.data.image_decoding import decode_image_file
from decoderbench.errors import DataError
from decoderbench.options import ComponentConfig

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["train", "val", "test"]
"""The part of the data that a sample belongs to."""

SPLITS: tuple[Split, ...] = get_args(Split)


Progress = Callable[[int, int], None]
"""Called with the number of items done and their total."""

ReportProblem = Callable[[str], None]
"""Called with a problem of data that no code allows; it raises `DataError`, unless problems are collected."""


def refuse(problem: str) -> None:
    """Raise `DataError`: the `ReportProblem` of everything but an audit of data."""
    raise DataError(problem)


@dataclass(frozen=True, slots=True)
class Sample:
    """One labeled image.

    Attributes:
        key: identifies it to people, such as a file name.
        label: its text.
        split: the part that it belongs to.
        group: the photograph, page or writer that it shares with other images, whose errors are then not independent of
            each other: intervals count groups. Empty: the image is a group of its own. It changes no number of a cell,
            so it belongs to no fingerprint.
    """

    key: str
    label: str
    split: Split
    group: str = ""


class Dataset(ABC):
    """A source of labeled images in three splits.

    The constructor is cheap and reads no data. Samples are listed once. Images are then loaded in parallel, in forked
    or threaded workers, unless the cache of decoded images already holds them.

    Args:
        config: an instance of the class's own `Config`.
        base_dir: the folder that relative paths in the config start from: that of the experiment file, or the
            working directory.

    Attributes:
        report_progress: call it now and then in `samples` and `fingerprint` if they read many files; what it raises
            must propagate.
        report_problem: call it in `samples` with each problem that leaves other samples usable, rather than raise
            `DataError`, and leave out what has it; so `decoderbench audit` can name all problems at once. It raises
            `DataError` in all other commands.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]

    def __init__(self, config: Any, base_dir: Path) -> None:
        self.config = config
        self.base_dir = base_dir
        self.report_progress: Progress = lambda done, total: None
        self.report_problem: ReportProblem = refuse

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """Return all samples, always in the same order; raise `DataError` if the labels cannot be read."""

    @abstractmethod
    def load_image(self, index: int) -> Image:
        """Return the image of `samples()[index]`, fully decoded; raise `DataError` if that fails.

        Whatever else it raises is reported as a `DataError` too (`read_image`).
        Any Pillow mode is accepted. `decode` reads an image file by the rules that are common to all datasets.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hex digest that changes whenever any key, label, split or pixel may have changed.

        It is independent of where the files are.
        """

    def stamp(self) -> str | None:
        """Return a cheap hex digest that changes whenever `fingerprint` may have changed, or None if there is none.

        Sizes and modification times of files make such a stamp. It saves reading all the data again: the fingerprint
        is stored under its stamp, beside the cache of images.
        """
        return None

    def label_source(self) -> str:
        """Return where the labels come from, for people, such as "labels.csv, columns filename and label"."""
        return f"dataset {self.name}"

    def split_source(self) -> str:
        """Return how samples got their splits, for people, such as "given by folders train, val, test"."""
        return f"given by dataset {self.name}"

    def notes(self) -> Sequence[str]:
        """Return sentences about the data for people to read, such as the number of images without a label."""
        return ()

    @staticmethod
    def deal_splits(groups: Sequence[str], fractions: Sequence[float], *, seed: int) -> list[Split]:
        """Return a random split for each sample; all samples of a group get the same split.

        Groups are sorted by a seeded hash of their names and cut at the fractions. The result is therefore independent
        of the order of samples, and the size of a split deviates from its fraction by at most one group.

        Args:
            groups: the group of each sample; give each sample its own group to split by sample.
            fractions: fractions of train, val and test, which sum to 1.
            seed: seed of the hash; another seed gives another order.
        """
        sizes = Counter(groups)
        bounds = list(accumulate(fractions))[:-1]
        split_of: dict[str, Split] = {}
        before = 0
        for group in sorted(sizes, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest()):
            split_of[group] = SPLITS[bisect(bounds, (before + sizes[group] / 2) / len(groups))]
            before += sizes[group]
        return [split_of[group] for group in groups]

    @staticmethod
    def decode(source: Path | BinaryIO) -> Image:
        """Return an image file fully decoded, and rotated as its EXIF orientation requires.

        The format is detected from the content; the file name counts for .tga and .dib only.

        Raises:
            DataError: the image has too many pixels, or several frames; or the file is missing, damaged, or not an
                image in an accepted format.
        """
        return decode_image_file(source)
