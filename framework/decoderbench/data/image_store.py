"""All decoded images of a dataset, as read from a folder of the cache; `image_cache` builds these folders.

The images are memory-mapped, so that opening a store is fast and processes share its memory. The metadata are checked
then, the pixels of each image when they are first used. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from decoderbench.data.cache_folders import set_aside
from decoderbench.data.dataset import Split
from decoderbench.data.width_buckets import assign_buckets
from decoderbench.errors import DataError, PendingCellsError
from decoderbench.files import integrity
from decoderbench.files.locks import holding
from decoderbench.files.storage import StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


STORE_VERSION = 5
"""Version of the files of a store. Pixels have one of their own: `image_cache.PIXELS_VERSION`."""


class OtherVersionError(DataError):
    """A folder holds a store of another version, which is decoded again."""


class DamagedImagesError(PendingCellsError):
    """Pixels are not those that were decoded. The run ends, no cell fails by it, and the next run decodes again."""


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a dataset, memory-mapped; row i is sample i.

    Attributes:
        directory: its folder; `read_store` opens it again without the dataset.
        buckets: the images of each bucket, (N_b, C, H, W_b) uint8, in order of width; a single bucket unless widths
            vary. Mapped copy-on-write, so that `torch.from_numpy` accepts them without a copy. Call `verify` before
            pixels are used.
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
        """All images of a store with a single bucket, (N, C, H, W), verified; row i is sample i."""
        (images,) = self.buckets
        self.verify(np.arange(len(self)))
        return images

    @property
    def bucket_widths(self) -> list[int]:
        """The width of each bucket, ascending."""
        return [images.shape[3] for images in self.buckets]

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W), verified and without its padding."""
        self.verify(np.array([row]))
        return self._padded(row)[:, :, : self.widths[row]]

    def verify(self, rows: NDArray[np.int64]) -> None:
        """Compare the pixels of `rows` with their hashes, those that this process has not compared before.

        Raises:
            DamagedImagesError: they differ; the store is renamed to `.damaged`.
        """
        for row in rows[~self._verified[rows]].tolist():
            if not self._is_intact(row):
                self._refuse(row)
            self._verified[row] = True

    @cached_property
    def _verified(self) -> NDArray[np.bool_]:
        return np.zeros(len(self), dtype=np.bool_)

    def _padded(self, row: int) -> NDArray[np.uint8]:
        return cast("NDArray[np.uint8]", self.buckets[self.bucket_of[row]][self.index_in_bucket[row]])

    def _is_intact(self, row: int) -> bool:
        image, width = self._padded(row), self.widths[row]
        if not (expected := self.pixel_hashes[row]):
            return not image.any()
        if width < image.shape[2]:
            padding, image = image[:, :, width:], np.ascontiguousarray(image[:, :, :width])
            if (padding != image[:, :, -1:]).any():
                return False
        return hashlib.sha256(image.data).hexdigest() == expected

    def _refuse(self, row: int) -> NoReturn:
        """Set the store aside, unless another process has done so or is decoding the images again, and raise."""
        what = f"the pixels of {self.keys[row]!r} in the image cache {self.directory} are damaged: sha256 mismatch"
        move = "another process has taken care of it"
        try:
            with holding(self.directory.with_suffix(".lock")) as held:
                if held and self.directory.exists() and not _has_intact(self.directory, row):
                    damaged = set_aside(self.directory)
                    move = f"it is renamed to {damaged.name}, and the next run decodes the images again"
        except StorageError as error:
            move = error.reason
        raise DamagedImagesError(f"{what}; {move}")


def read_store(directory: Path) -> ImageStore:
    """Open an existing store by its folder alone, without the dataset.

    Raises:
        OtherVersionError: it is complete, but of another version.
        DataError: it is missing or corrupt.
    """
    try:
        digest, _, body = integrity.read_bytes(directory / "meta.json").partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("meta.json: sha256 mismatch")
        meta: dict[str, Any] = json.loads(body)
        if meta.get("version") != STORE_VERSION:
            raise OtherVersionError(f"image cache {directory} is of another version")
        if meta["data_hash"][:32] != directory.stem:
            raise ValueError("it is that of other data")
        images = tuple(np.asarray(map_images(directory / name, shape)) for name, shape in meta["buckets"])
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
    except OtherVersionError:
        raise
    except (OSError, ValueError, KeyError, EOFError, DataError) as error:
        raise DataError(f"image cache {directory} cannot be used: {error}") from error


def _has_intact(directory: Path, row: int) -> bool:
    """Return whether the files of a store can be read, and a row is intact there."""
    try:
        return read_store(directory)._is_intact(row)
    except DataError:
        return False


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write the metadata of a store, with a digest that `read_store` checks."""
    body = json.dumps({"version": STORE_VERSION, **meta}).encode()
    (directory / "meta.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def map_images(file: Path, shape: list[int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Map a `.npy` file of images; raise `ValueError` or `OSError` unless it holds uint8 of this shape, complete."""
    if not file.is_file():
        raise ValueError(f"{file.name}: is missing, or no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            images = cast("np.memmap[Any, np.dtype[np.uint8]]", np.load(file, mmap_mode="c"))
    except (
        ValueError,
        TokenError,
        UserWarning,
    ) as error:  # a damaged header is read as one of Python 2, with a warning
        raise ValueError(f"{file.name}: {error}") from error
    if list(images.shape) != shape or images.dtype != np.uint8:
        raise ValueError(f"{file.name}: {images.dtype} {images.shape} instead of uint8 {shape}")
    if file.stat().st_size != images.offset + images.nbytes:
        raise ValueError(f"{file.name}: its size differs from that in its header")
    return images
