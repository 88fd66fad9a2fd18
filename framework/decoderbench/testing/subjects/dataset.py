"""A dataset under check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decoderbench.data.dataset import Dataset
from decoderbench.testing.subjects.base import Subject

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 24


@dataclass
class DatasetSubject(Subject):
    """A dataset class and its options."""

    def build(self) -> Dataset:
        """Construct the dataset."""
        dataset: Dataset = self.cls(self.config, self.base_dir)
        return dataset

    def outcomes(self) -> Iterator[bytes]:
        dataset = self.build()
        samples = dataset.samples()
        yield repr(samples).encode()
        yield dataset.fingerprint().encode()
        for index in select_indices(len(samples)):
            yield image_digest(dataset.load_image(index))


def select_indices(count: int) -> list[int]:
    """Return at most `MAX_IMAGES` evenly distributed indices into a list of `count` items."""
    return sorted({index * count // MAX_IMAGES for index in range(MAX_IMAGES)}) if count else []


def image_digest(image: Image) -> bytes:
    """Return a digest of the mode, size and pixels of an image."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).digest()
