"""The dataset contract: where labeled images come from. No torch here, so that workers start fast."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, get_args

from decoderbench.errors import DataError
from decoderbench.options import ComponentConfig

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

MAX_PIXELS = 4_000_000
# Named one by one: Pillow would run a PostScript interpreter on a file that asks for it.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labeled image: a key that names it to a person (a file name, say), its label and its split."""

    key: str
    label: str
    split: Split


class Dataset(ABC):
    """A source of labeled images in three splits.

    Constructing one is cheap and reads nothing. Samples are listed once; images are then loaded in parallel,
    in forked or threaded workers, and only when the cache of decoded images does not hold them yet.

    Args:
        config: the class's own `Config`.
        base_dir: relative paths in the config start here: the folder of the experiment file, or the
            working directory.
    """

    name: ClassVar[str]
    Config: ClassVar[type[ComponentConfig]]

    def __init__(self, config: Any, base_dir: Path) -> None:
        self.config = config
        self.base_dir = base_dir

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """Return every sample, always in the same order; raise `DataError` if the labels cannot be read."""

    @abstractmethod
    def load_image(self, index: int) -> Image:
        """Decode the image of `samples()[index]`, completely; raise `DataError` or `OSError` if it cannot be.

        Any Pillow mode will do; `decode` reads a file by the rules that hold for every dataset.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hex digest that differs whenever a key, label, split or pixel may, wherever they lie."""

    def stamp(self) -> str | None:
        """Return a hex digest that is cheap and changes whenever `fingerprint` may, or None if there is none.

        Where reading all the data takes long, sizes and times of files are such a stamp: the fingerprint that
        belongs to it is remembered beside the cache of images.
        """
        return None

    def notes(self) -> Sequence[str]:
        """Return sentences about the data that a person should read, such as images that no label names."""
        return ()

    @staticmethod
    def deal_splits(groups: Sequence[str], fractions: Sequence[float], *, seed: int) -> list[Split]:
        """Return a random split for each sample; samples of one group share theirs.

        Groups are put in the order of a seeded hash of their names and cut where the fractions end, so that
        the order of the samples is of no account and a split is off by no more than one group.

        Args:
            groups: the group of each sample; give every sample its own for a split by sample.
            fractions: shares of train, val and test, which sum to 1.
            seed: another seed, another order.
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
        """Decode an image file completely, upright as its EXIF orientation says.

        The content decides on the format, not the file name.

        Raises:
            DataError: more than `MAX_PIXELS` pixels, which the header tells before decoding; several frames.
            OSError: not an image of a format in `IMAGE_FORMATS`, or truncated. Pillow raises other exceptions
                too when a file is damaged.
        """
        from PIL import Image, ImageOps

        try:
            image = Image.open(source, formats=IMAGE_FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"image has more than {MAX_PIXELS:,} pixels; crop it or scale it down") from error
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"image has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; "
                    "crop it or scale it down"
                )
            if (frames := getattr(image, "n_frames", 1)) != 1:
                raise DataError(f"image has {frames} frames, a sample is one; save the frame that the label is of")
            image.load()
            return ImageOps.exif_transpose(image)
