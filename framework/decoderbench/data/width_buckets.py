"""Buckets: images of similar width lie together, each padded to the widest of its bucket.

So a batch is one array although lines are as long as they are, and what an image is padded to depends on the data
set alone, never on the batch that it happens to be in. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH_STEP = 16  # a bucket's width is a multiple: fewer shapes, and whole cells for encoders that reduce by 16


def choose_widths(widths: Sequence[int], options: ImageOptions) -> list[int]:
    """Return the width of each bucket, ascending, such that about equally many images fall into each.

    Args:
        widths: the columns of each image, at most `options.width`.
        options: how many buckets there may be, and the largest width.
    """
    quantiles = np.quantile(widths, np.arange(1, options.buckets + 1) / options.buckets, method="inverted_cdf")
    rounded = -(-quantiles.astype(np.int64) // WIDTH_STEP) * WIDTH_STEP
    return sorted({min(int(width), options.width) for width in rounded})


def places(widths: NDArray[np.int64], bucket_widths: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bucket of each image, (N,), the narrowest that holds it, and its place in that bucket, (N,)."""
    bucket_of = np.searchsorted(bucket_widths, widths)
    place_of = np.zeros_like(bucket_of)
    for bucket in range(len(bucket_widths)):
        rows = np.flatnonzero(bucket_of == bucket)
        place_of[rows] = np.arange(len(rows))
    return bucket_of, place_of


def write_buckets(
    slots: Path, offset: int, widths: Sequence[int], options: ImageOptions, directory: Path
) -> list[tuple[str, list[int]]]:
    """Write one `.npy` file (N_b, C, H, W_b) a bucket; return the name and the shape of each.

    Args:
        slots: a file with room for (N, C, H, W); in slot i lie the (C, H, widths[i]) pixels of image i.
        offset: where the first slot begins.
        widths: the columns of each image.
        options: height, channels, largest width and number of buckets.
        directory: where the files go.

    Raises:
        OSError: a file cannot be written.
    """
    column = options.channels * options.height
    bucket_widths = choose_widths(widths, options)
    bucket_of, _ = places(np.asarray(widths, dtype=np.int64), bucket_widths)
    files: list[tuple[str, list[int]]] = []
    with slots.open("rb") as source:
        for bucket, width in enumerate(bucket_widths):
            rows = np.flatnonzero(bucket_of == bucket)
            name, shape = f"images-{bucket}.npy", (len(rows), options.channels, options.height, width)
            # Makes the header and a sparse file of the right size; written, not mapped, as a full disk must raise.
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
    """Return pixels (C, H, W) with their last column repeated up to `width`."""
    return np.pad(pixels, ((0, 0), (0, 0), (0, width - pixels.shape[2])), mode="edge")
