"""The workers that decode the images of a dataset into one array of pixels.

No torch here: workers are forked, and torch does not support forking well.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from decoderbench.data.dataset import Dataset
from decoderbench.data.image_decoding import scaled_width, to_pixels
from decoderbench.errors import DataError
from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    pass

MAX_CHUNK = 64  # rows that a worker decodes at a time
Results = Generator[tuple[range, "Decoded"], None, None]


@dataclass(frozen=True)
class Decoded:
    """The results of decoding a range of rows, apart from the pixels.

    Attributes:
        pixel_hashes: sha256 of the pixels after resizing, in row order; empty for unreadable images.
        widths: columns of each image, in row order; 1 for unreadable images.
        unreadable: row -> reason; the pixels of such a row are zero.
        squeezed: rows of images that exceeded the width at their aspect ratio and were squeezed to it; empty with
            `stretch`.
    """

    pixel_hashes: list[str] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    squeezed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _RowDecoder:
    """Decodes rows of a dataset into their slots in a file with room for (N, C, H, W).

    With `keep`, an image narrower than W fills only the start of its slot.
    """

    dataset: Dataset
    options: ImageOptions
    file: Path
    offset: int

    def __call__(self, rows: range) -> Decoded:
        slot = self.options.channels * self.options.height * self.options.width
        decoded = Decoded()
        # Pixels are written, not mapped: on a full disk a write raises, while a mapped page kills the process.
        with self.file.open("r+b") as file:
            for row in rows:
                try:
                    image = self.dataset.load_image(row)
                    pixels = to_pixels(image, self.options)
                except Exception as error:  # noqa: BLE001  # Pillow raises nearly anything on a corrupt file
                    kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
                    decoded.unreadable[row] = re.sub(r"<_io.BytesIO object at \w+>", "from its bytes", f"{kind}{error}")
                    decoded.pixel_hashes.append("")
                    decoded.widths.append(1)
                else:
                    if self.options.resize != "stretch" and scaled_width(image, self.options) > self.options.width:
                        decoded.squeezed.append(row)
                    content = pixels.tobytes()
                    decoded.pixel_hashes.append(hashlib.sha256(content).hexdigest())
                    decoded.widths.append(pixels.shape[2])
                    file.seek(self.offset + row * slot)
                    file.write(content)
        return decoded


def decode_all(
    dataset: Dataset,
    options: ImageOptions,
    count: int,
    file: Path,
    offset: int,
    *,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Decoded:
    """Decode images 0 to `count` - 1 into the slots that start at `offset` of `file`.

    Args:
        dataset: the source of the images; its samples must have been listed before.
        options: size and channels that images are converted to.
        count: number of images.
        file: an existing file with room for (count, C, H, W) uint8.
        offset: position of the first slot in the file, in bytes.
        workers: number of processes, or of threads where forking is unavailable; default: one per usable core.
            With 1, this process decodes.
        progress: called with the number of images done and `count`.

    Raises:
        DataError: a worker process died.
        OSError: the file cannot be written.
    """
    decoder = _RowDecoder(dataset, options, file, offset)
    workers = workers or _usable_cores()
    size = max(1, min(MAX_CHUNK, count // (4 * workers)))
    chunks = [range(start, min(start + size, count)) for start in range(0, count, size)]
    results = _decode_in_parallel(decoder, chunks, workers) if workers > 1 else ((c, decoder(c)) for c in chunks)
    parts: dict[range, Decoded] = {}
    done = 0
    with closing(results):  # on an interruption, stops the workers before the exception propagates
        for chunk, part in results:
            parts[chunk] = part
            done += len(chunk)
            if progress:
                progress(done, count)
    merged = Decoded()
    for chunk in chunks:
        merged.pixel_hashes.extend(parts[chunk].pixel_hashes)
        merged.widths.extend(parts[chunk].widths)
        merged.unreadable.update(parts[chunk].unreadable)
        merged.squeezed.extend(parts[chunk].squeezed)
    return merged


def _decode_in_parallel(decoder: _RowDecoder, chunks: list[range], workers: int) -> Results:
    """Yield each chunk with its results, in order of completion."""
    executor, decode = _start_workers(decoder, workers)
    try:
        with warnings.catch_warnings():
            # The parent may have threads, such as torch's. The children use Pillow and NumPy only, never those threads.
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            futures = {executor.submit(decode, chunk): chunk for chunk in chunks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died while decoding images: an image library crashed, or memory ran out; "
            "use fewer workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_workers(decoder: _RowDecoder, workers: int) -> tuple[Executor, Callable[[range], Decoded]]:
    """Return an executor and the function to submit to it."""
    # With fork, plugins loaded from files exist in the children, and scripts need no main guard.
    if sys.platform == "linux" and not multiprocessing.current_process().daemon:
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(workers, fork, initializer=_set_up_worker, initargs=(decoder,))
        return pool, _decode_in_worker
    return ThreadPoolExecutor(workers), decoder


_worker_decoder: _RowDecoder


def _set_up_worker(decoder: _RowDecoder) -> None:
    global _worker_decoder
    _worker_decoder = decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which shuts the pool down
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # Without this, workers outlive a killed parent: each holds the other end of the pipe that it waits on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _decode_in_worker(rows: range) -> Decoded:
    return _worker_decoder(rows)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
