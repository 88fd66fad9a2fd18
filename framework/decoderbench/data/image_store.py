"""All decoded images of a dataset, as read from a folder of the cache; `image_cache` builds these folders.

The images are memory-mapped, so that opening a store is fast and processes share its memory. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from decoderbench.data.dataset import Split
from decoderbench.data.width_buckets import assign_buckets
from decoderbench.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


STORE_VERSION = 5
"""Version of the files of a store. Pixels have one of their own: `image_cache.PIXELS_VERSION`."""


class OtherVersionError(DataError):
    """A folder holds a store of another version, which is decoded again."""


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a dataset, memory-mapped; row i is sample i.

    Attributes:
        directory: its folder; `read_store` opens it again without the dataset.
        buckets: the images of each bucket, (N_b, C, H, W_b) uint8, in order of width; a single bucket unless widths
            vary. Mapped copy-on-write, so that `torch.from_numpy` accepts them without a copy.
        widths: (N,) columns of each image before it was padded to the width of its bucket.
        bucket_of: (N,) the bucket of each row.
        index_in_bucket: (N,) the index of each row in its bucket.
        keys: N keys of samples.
        labels: N labels.
        splits: N splits.
        pixel_hashes: N sha256 of the pixels after resizing; empty for unreadable images.
        unreadable: row -> reason; the pixels of such a row are zero.
        squeezed: rows of images that exceeded the width at their aspect ratio and were squeezed to it, ascending.
        transparent: rows of images with transparent pixels, which were composited on white, ascending.
        no_contrast: row -> why its pixels show nothing to read.
        warned: row -> the first warning while it was decoded.
        data_hash: hex digest of the dataset's fingerprint and the image options.
    """

    directory: Path
    buckets: tuple[NDArray[np.uint8], ...]
    widths: NDArray[np.int64]
    bucket_of: NDArray[np.int64]
    index_in_bucket: NDArray[np.int64]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[Split, ...]
    pixel_hashes: tuple[str, ...]
    unreadable: dict[int, str]
    squeezed: tuple[int, ...]
    transparent: tuple[int, ...]
    no_contrast: dict[int, str]
    warned: dict[int, str]
    data_hash: str

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def images(self) -> NDArray[np.uint8]:
        """All images of a store with a single bucket, (N, C, H, W); row i is sample i."""
        (images,) = self.buckets
        return images

    @property
    def bucket_widths(self) -> list[int]:
        """The width of each bucket, ascending."""
        return [images.shape[3] for images in self.buckets]

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W), without its padding."""
        image = self.buckets[self.bucket_of[row]][self.index_in_bucket[row]]
        return cast("NDArray[np.uint8]", image[:, :, : self.widths[row]])

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of the readable images of `split`, ascending."""
        rows = (row for row, split_of_row in enumerate(self.splits) if split_of_row == split)
        return np.fromiter((row for row in rows if row not in self.unreadable), dtype=np.int64)


def read_store(directory: Path) -> ImageStore:
    """Open an existing store by its folder alone, without the dataset.

    Raises:
        OtherVersionError: it is complete, but of another version.
        DataError: it is missing or corrupt.
    """
    try:
        digest, _, body = (directory / "meta.json").read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("meta.json: sha256 mismatch")
        meta: dict[str, Any] = json.loads(body)
        if meta.get("version") != STORE_VERSION:
            raise OtherVersionError(f"image cache {directory} is of another version")
        images = tuple(map_images(directory / name, shape) for name, shape in meta["buckets"])
        widths = np.array(meta["widths"], dtype=np.int64)
        bucket_of, index_in_bucket = assign_buckets(widths, [bucket.shape[3] for bucket in images])
        return ImageStore(
            directory=directory,
            buckets=images,
            widths=widths,
            bucket_of=bucket_of,
            index_in_bucket=index_in_bucket,
            keys=tuple(meta["keys"]),
            labels=tuple(meta["labels"]),
            splits=tuple(meta["splits"]),
            pixel_hashes=tuple(meta["pixel_hashes"]),
            unreadable=dict(meta["unreadable"]),
            squeezed=tuple(meta["squeezed"]),
            transparent=tuple(meta["transparent"]),
            no_contrast=dict(meta["no_contrast"]),
            warned=dict(meta["warned"]),
            data_hash=meta["data_hash"],
        )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"image cache {directory} cannot be used: {error}") from error


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write the metadata of a store, with a digest that `read_store` checks."""
    body = json.dumps({"version": STORE_VERSION, **meta}).encode()
    (directory / "meta.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def map_images(file: Path, shape: list[int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Map a `.npy` file of images; raise `ValueError` or `OSError` unless it holds uint8 of this shape, complete."""
    images = cast("np.memmap[Any, np.dtype[np.uint8]]", np.load(file, mmap_mode="c"))
    if list(images.shape) != shape or images.dtype != np.uint8:
        raise ValueError(f"{file.name}: {images.dtype} {images.shape} instead of uint8 {shape}")
    if file.stat().st_size != images.offset + images.nbytes:
        raise ValueError(f"{file.name}: its size differs from that in its header")
    return images
