"""Images on their way to a recognizer: decoded in parallel, in batches of one width each. No torch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from decoderbench.data.image_decoding import decode_image_file, errors_of_images, scaled_width, to_pixels
from decoderbench.data.image_reading import collected_warnings
from decoderbench.data.width_buckets import WIDTH_STEP, pad_right
from decoderbench.data.worker_processes import usable_cores
from decoderbench.errors import DataError
from decoderbench.exception_text import to_printable_line
from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

ImageSource = Path | str | Image.Image | np.ndarray[Any, np.dtype[np.uint8]] | Callable[[], Image.Image]
"""A file by its path, an image of Pillow in any mode, pixels (H, W), (H, W, 3) or (H, W, 4), or a function that returns
the image of a dataset, which is turned as the dataset says."""

MAX_PER_TASK = 128
"""Images that a process decodes per task."""

MAX_WAITING = 4
"""An image waits for others of its width until so many batches of images have come after it."""


@dataclass(frozen=True)
class DecodedImage:
    """One image as pixels, or why it cannot be read.

    Attributes:
        index: its place among all images, from 0.
        pixels: (C, H, W); None if it cannot be read.
        problem: why not; empty if it can.
        note: what a warning said while it was decoded, or that it was squeezed; empty if nothing.
    """

    index: int
    pixels: NDArray[np.uint8] | None
    problem: str = ""
    note: str = ""


@dataclass(frozen=True)
class ImageBatch:
    """Images of one width, padded on the right.

    Attributes:
        images: B of them.
        pixels: (B, C, H, W).
        columns: (B,) the columns of each before it was padded.
    """

    images: list[DecodedImage]
    pixels: NDArray[np.uint8]
    columns: NDArray[np.int64]


def decode_images(
    images: Iterable[ImageSource], options: ImageOptions, *, ahead: int, executor: Executor | None = None
) -> Iterator[DecodedImage]:
    """Yield images in order, at most `ahead` of them decoded before they are asked for.

    Args:
        images: taken one by one, so they may be a generator of any length.
        options: the size and channels that they are converted to.
        ahead: so many images may wait.
        executor: decodes several images per task; by default threads do, one image per task and one thread per usable
            core. One of processes does not compete with this process for Python's lock, and needs images that can be
            pickled, as paths can.

    Raises:
        DataError: a process of the executor died.
    """
    size = 1 if executor is None else max(1, min(MAX_PER_TASK, ahead // 4))
    given, waiting = iter(images), deque[Future[list[DecodedImage]]]()
    parts = zip(count(step=size), iter(lambda: list(islice(given, size)), []), strict=False)
    with nullcontext(executor) if executor else ThreadPoolExecutor(usable_cores(), "decode") as pool:
        try:
            for start, part in islice(parts, ahead // size):
                waiting.append(pool.submit(_decode_all, start, part, options))
            while waiting:
                decoded = waiting.popleft().result()
                for start, part in islice(parts, 1):
                    waiting.append(pool.submit(_decode_all, start, part, options))
                yield from decoded
        except BrokenExecutor as error:
            raise DataError(
                "a process died while decoding images: an image library crashed, or memory ran out; decode in this "
                "process instead: --workers 0"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def batches_by_width(
    images: Iterable[DecodedImage], width_of: Callable[[int], int], batch_size: int
) -> Iterator[ImageBatch | DecodedImage]:
    """Yield batches of one width each, and images that cannot be read as they are.

    A batch is yielded when it is full, at the end, or when `MAX_WAITING` batches of images have come after its first.

    Args:
        images: in order of their index.
        width_of: returns the width to which an image of so many columns is padded.
        batch_size: the most images of a batch.
    """
    waiting: dict[int, list[DecodedImage]] = {}
    for image in images:
        if image.pixels is None:
            yield image
            continue
        width = width_of(image.pixels.shape[2])
        waiting.setdefault(width, []).append(image)
        if len(waiting[width]) == batch_size:
            yield _stack(waiting.pop(width), width)
        oldest = next(iter(waiting), None)  # widths come into the dictionary with their first image, so in its order
        if oldest is not None and image.index - waiting[oldest][0].index >= MAX_WAITING * batch_size:
            yield _stack(waiting.pop(oldest), oldest)
    for width in sorted(waiting):
        yield _stack(waiting[width], width)


def bucket_width(columns: int, bucket_widths: Sequence[int], options: ImageOptions) -> int:
    """Return the width to which an image is padded: that of the narrowest bucket that holds it.

    An image wider than those of all buckets has a bucket of its own, as wide as `choose_widths` would make it.
    """
    fitting = (width for width in bucket_widths if width >= columns)
    return next(fitting, min(-(-columns // WIDTH_STEP) * WIDTH_STEP, options.width))


def _decode_all(start: int, images: Sequence[ImageSource], options: ImageOptions) -> list[DecodedImage]:
    return [_decode(start + place, image, options) for place, image in enumerate(images)]


def _decode(index: int, source: ImageSource, options: ImageOptions) -> DecodedImage:
    try:
        with collected_warnings() as warned:
            image = _open(source)
            pixels = to_pixels(image, options)
            width = scaled_width(image, options)
    except DataError as error:
        return DecodedImage(index, None, problem=to_printable_line(str(error)))
    squeezed = options.resize != "stretch" and width > options.width
    notes = [f"squeezed from a width of {width:,} pixels to {options.width:,}"] if squeezed else []
    return DecodedImage(index, pixels, note="; ".join([*notes, *map(to_printable_line, warned[:1])]))


@errors_of_images()
def _open(source: ImageSource) -> Image.Image:
    """Return an image by the rules of training, turned as its EXIF orientation requires."""
    if isinstance(source, Path | str):
        image = decode_image_file(Path(source))
    elif callable(source):
        image = source()
    else:
        image = ImageOps.exif_transpose(Image.fromarray(source) if isinstance(source, np.ndarray) else source)
    if 0 in image.size:
        raise DataError("image has no pixels")
    return image


def _stack(images: list[DecodedImage], width: int) -> ImageBatch:
    pixels = [image.pixels for image in images if image.pixels is not None]
    columns = np.array([each.shape[2] for each in pixels], dtype=np.int64)
    return ImageBatch(images, np.stack([pad_right(each, width) for each in pixels]), columns)
