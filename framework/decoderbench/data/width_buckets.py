"""Buckets of images of similar width, each image padded to the width of its bucket.

A batch is therefore one array although widths vary, and the padding of an image depends on the dataset alone, never on
the other images of a batch. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH_STEP = (
    16  # bucket widths are multiples of it: fewer shapes, and no partial column with encoders that reduce by 16
)


def choose_widths(widths: Sequence[int], options: ImageOptions) -> list[int]:
    """Return the width of each bucket, ascending, such that buckets hold about equally many images.

    Args:
        widths: the columns of each image, at most `options.width`.
        options: the largest number of buckets, and the largest width.
    """
    quantiles = np.quantile(widths, np.arange(1, options.buckets + 1) / options.buckets, method="inverted_cdf")
    rounded = -(-quantiles.astype(np.int64) // WIDTH_STEP) * WIDTH_STEP
    return sorted({min(int(width), options.width) for width in rounded})


def assign_buckets(
    widths: NDArray[np.int64], bucket_widths: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each image the narrowest bucket that holds it, (N,), and its index in that bucket, (N,)."""
    bucket_of = np.searchsorted(bucket_widths, widths)
    index_in_bucket = np.zeros_like(bucket_of)
    for bucket in range(len(bucket_widths)):
        rows = np.flatnonzero(bucket_of == bucket)
        index_in_bucket[rows] = np.arange(len(rows))
    return bucket_of, index_in_bucket


def write_buckets(
    slots: Path, offset: int, widths: Sequence[int], options: ImageOptions, directory: Path
) -> list[tuple[str, list[int]]]:
    """Write one `.npy` file (N_b, C, H, W_b) per bucket; return the name and the shape of each.

    Args:
        slots: a file of N slots of size (C, H, W); slot i starts with the (C, H, widths[i]) pixels of image i.
        offset: position of the first slot in the file, in bytes.
        widths: the columns of each image.
        options: height, channels, largest width and largest number of buckets.
        directory: the folder to write to.

    Raises:
        OSError: a file cannot be written.
    """
    column = options.channels * options.height
    bucket_widths = choose_widths(widths, options)
    bucket_of, _ = assign_buckets(np.asarray(widths, dtype=np.int64), bucket_widths)
    files: list[tuple[str, list[int]]] = []
    with slots.open("rb") as source:
        for bucket, width in enumerate(bucket_widths):
            rows = np.flatnonzero(bucket_of == bucket)
            name, shape = f"images-{bucket}.npy", (len(rows), options.channels, options.height, width)
            # Writes the header and a sparse file of the right size. The pixels are then written, not mapped: on a full
            # disk a write raises, while a mapped page kills the process.
            start = np.lib.format.open_memmap(directory / name, mode="w+", dtype=np.uint8, shape=shape).offset
            with (directory / name).open("r+b") as target:
                target.seek(start)
                for row in rows.tolist():
                    source.seek(offset + row * column * options.width)
                    pixels = np.frombuffer(source.read(column * widths[row]), dtype=np.uint8)
                    target.write(pad_right(pixels.reshape(options.channels, options.height, -1), width).tobytes())
            files.append((name, list(shape)))
    return files


def pad_right(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return pixels (C, H, W) padded to `width` by repeating the last column."""
    if pixels.shape[2] == width:
        return pixels
    return np.pad(pixels, ((0, 0), (0, 0), (0, width - pixels.shape[2])), mode="edge")
