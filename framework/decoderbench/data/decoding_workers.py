"""The workers that decode the images of a dataset into one file of pixels.

No torch here: workers are forked, and torch does not support forking well.
"""

from __future__ import annotations

import hashlib
import mmap
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from decoderbench.data.contrast import find_lost_contrast, is_transparent
from decoderbench.data.dataset import Dataset
from decoderbench.data.image_decoding import scaled_width, to_pixels
from decoderbench.data.image_reading import collected_warnings, read_image
from decoderbench.data.worker_processes import can_fork, forking_despite_threads, forking_pool, usable_cores
from decoderbench.errors import DataError
from decoderbench.exception_text import to_printable_line
from decoderbench.options import ImageOptions

MAX_ROWS = 64  # that a worker decodes at a time
MAX_SECONDS = 0.5  # after which a worker returns what it has, so that slow images are not lost in an interruption
Results = Generator[tuple[int, "Decoded"], None, None]


@dataclass(frozen=True)
class Decoded:
    """The results of decoding consecutive rows, apart from the pixels.

    Attributes:
        pixel_hashes: sha256 of the pixels after resizing, in row order; empty for unreadable images.
        widths: columns of each image, in row order; 1 for unreadable images.
        unreadable: row -> reason; the pixels of such a row are zero.
        squeezed: rows of images that exceeded the width at their aspect ratio and were squeezed to it; empty with
            `stretch`.
        transparent: rows of images with transparent pixels, which were composited on white.
        no_contrast: row -> why its pixels show nothing to read.
        warned: row -> the first warning while it was decoded.
    """

    pixel_hashes: list[str] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    squeezed: set[int] = field(default_factory=set)
    transparent: set[int] = field(default_factory=set)
    no_contrast: dict[int, str] = field(default_factory=dict)
    warned: dict[int, str] = field(default_factory=dict)

    def place(self, start: int, part: Decoded) -> None:
        """Put the results of rows `start`, `start` + 1, ... in the place of those rows."""
        rows = slice(start, start + len(part.widths))
        self.pixel_hashes[rows] = part.pixel_hashes
        self.widths[rows] = part.widths
        self.unreadable.update(part.unreadable)
        self.squeezed.update(part.squeezed)
        self.transparent.update(part.transparent)
        self.no_contrast.update(part.no_contrast)
        self.warned.update(part.warned)

    def forget(self, row: int) -> None:
        """Remove the results of a readable row, which is then decoded again."""
        self.pixel_hashes[row] = ""
        self.squeezed.discard(row)
        self.transparent.discard(row)
        self.no_contrast.pop(row, None)
        self.warned.pop(row, None)


@dataclass(frozen=True)
class _RowDecoder:
    """Decodes rows of a dataset into their slots in a file with room for (N, C, H, W).

    It returns the results of the first rows only, possibly of none, after `MAX_SECONDS` and when told to stop. With
    `keep`, an image narrower than W fills only the start of its slot.

    Attributes:
        stop: a byte shared with forked workers, not zero to stop. It has no lock, which a killed worker could hold.
    """

    dataset: Dataset
    options: ImageOptions
    file: Path
    offset: int
    stop: mmap.mmap

    def __call__(self, rows: range) -> Decoded:
        slot = self.options.channels * self.options.height * self.options.width
        decoded = Decoded()
        deadline = time.monotonic() + MAX_SECONDS
        # Pixels are written, not mapped: on a full disk a write raises, while a mapped page kills the process.
        with self.file.open("r+b") as file:
            for row in rows:
                if self.stop[0] or time.monotonic() > deadline:
                    break
                with collected_warnings() as warned:
                    content = self._decode_row(row, decoded)
                if warned and row not in decoded.unreadable:
                    decoded.warned[row] = to_printable_line(warned[0])
                file.seek(self.offset + row * slot)
                file.write(content)
        return decoded

    def _decode_row(self, row: int, decoded: Decoded) -> bytes:
        """Return the pixels of a row and add its results."""
        options = self.options
        try:
            image = read_image(self.dataset, row)
            pixels = to_pixels(image, options)
            transparent = is_transparent(image)
            no_contrast = find_lost_contrast(image, pixels, options)
        except DataError as error:
            decoded.unreadable[row] = str(error)
            decoded.pixel_hashes.append("")
            decoded.widths.append(1)
            # An interrupted build may have written pixels there.
            return bytes(options.channels * options.height * options.width)
        if options.resize != "stretch" and scaled_width(image, options) > options.width:
            decoded.squeezed.add(row)
        if transparent:
            decoded.transparent.add(row)
        if no_contrast:
            decoded.no_contrast[row] = no_contrast
        content = pixels.tobytes()
        decoded.pixel_hashes.append(hashlib.sha256(content).hexdigest())
        decoded.widths.append(pixels.shape[2])
        return content


def decode(
    dataset: Dataset, options: ImageOptions, rows: Sequence[range], file: Path, offset: int, *, workers: int | None
) -> Results:
    """Decode rows of a dataset into the slots that start at `offset` of `file`, in any order.

    Yield the first row and the results of consecutive rows once their pixels have been written. Closing the generator
    stops the workers; it takes as long as one image.

    Args:
        dataset: the source of the images; its samples must have been listed before.
        options: size and channels that images are converted to.
        rows: the rows to decode, as ranges.
        file: an existing file with room for (N, C, H, W) uint8.
        offset: position of the first slot in the file, in bytes.
        workers: number of processes, or of threads where forking is unavailable; default: one per usable core.
            With 1, this process decodes.

    Raises:
        DataError: a worker process died.
        OSError: the file cannot be written.
    """
    decoder = _RowDecoder(dataset, options, file, offset, mmap.mmap(-1, 1))
    workers = workers or usable_cores()
    size = max(1, min(MAX_ROWS, sum(map(len, rows)) // (4 * workers)))
    chunks = [run[start : start + size] for run in rows for start in range(0, len(run), size)]
    return _decode_in_parallel(decoder, chunks, workers) if workers > 1 else _decode_in_turn(decoder, chunks)


def _decode_in_turn(decoder: _RowDecoder, chunks: list[range]) -> Results:
    for chunk in chunks:
        left = chunk
        while left:
            part = decoder(left)
            yield left.start, part
            left = left[len(part.widths) :]


def _decode_in_parallel(decoder: _RowDecoder, chunks: list[range], workers: int) -> Results:
    """Decode chunks, yield in order of completion."""
    executor, decode_chunk = _start_workers(decoder, workers)
    chunk_of: dict[Future[Decoded], range] = {}
    finished: SimpleQueue[Future[Decoded]] = SimpleQueue()

    def submit(chunk: range) -> None:
        future = executor.submit(decode_chunk, chunk)
        chunk_of[future] = chunk
        future.add_done_callback(finished.put)

    try:
        with forking_despite_threads():
            for chunk in chunks:
                submit(chunk)
        while chunk_of:
            future = finished.get()
            chunk, part = chunk_of.pop(future), future.result()
            if left := chunk[len(part.widths) :]:
                submit(left)
            yield chunk.start, part
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died while decoding images: an image library crashed, or memory ran out; "
            "use fewer workers"
        ) from error
    finally:
        decoder.stop[0] = 1
        executor.shutdown(cancel_futures=True)


def _start_workers(decoder: _RowDecoder, workers: int) -> tuple[Executor, Callable[[range], Decoded]]:
    """Return an executor and the function to submit to it."""
    # With fork, plugins loaded from files exist in the children, and scripts need no main guard.
    if can_fork():
        return forking_pool(workers, _set_up_worker, decoder), _decode_in_worker
    return ThreadPoolExecutor(workers), decoder


_worker_decoder: _RowDecoder


def _set_up_worker(decoder: _RowDecoder) -> None:
    global _worker_decoder
    _worker_decoder = decoder


def _decode_in_worker(rows: range) -> Decoded:
    return _worker_decoder(rows)
