"""The images of a build that is under way, on disk, so that the next build continues where this one was interrupted.

The folder of a build holds `images.npy`, where workers write the pixels of row i to slot i, and a log. The first line
of the log tells what is built, each other line which rows have been decoded. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np

from decoderbench.data.decoding_workers import Decoded
from decoderbench.data.image_store import map_images


class BuildLog:
    """Keeps the decoded images of a build; a context manager.

    If the process is killed, all rows in the log have their pixels, because these are written first. After a power cut
    the log may be ahead of the pixels, or end in garbage. Therefore each line starts with its digest, nothing is read
    from the first wrong line on, and the pixels of each row are hashed before they are used again.

    Unreadable images have no pixels and are tried again: their files are the same, or the fingerprint would differ, but
    the reason may have been temporary, such as a lost connection.

    Attributes:
        images: the file of pixels.
        file: the log.
        shape: (N, C, H, W) of the images.
        offset: position of the first slot in `images`, in bytes.
        decoded: the results of all rows, `pixel_hashes` being empty for those not decoded yet.
        done: number of decoded rows.
    """

    def __init__(self, directory: Path, facts: dict[str, Any], shape: tuple[int, int, int, int]) -> None:
        """Continue the build in `directory` if it has the same facts and shape, else start it there.

        Args:
            directory: the folder of the build; anything else in it is removed.
            facts: all that pixels depend on, as JSON data.
            shape: (N, C, H, W) of the images.

        Raises:
            OSError: the folder cannot be written.
        """
        self.images, self.file, self.shape = directory / "images.npy", directory / "decoded.log", shape
        header = _line([facts, shape])
        try:
            self.offset, self.decoded = self._read(header)
        except (OSError, ValueError):  # in doubt, start over
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            # Writes the header and extends the file to its size, as a sparse file.
            self.offset = np.lib.format.open_memmap(self.images, mode="w+", dtype=np.uint8, shape=shape).offset
            self.decoded = _nothing(shape[0])
            self.file.write_bytes(header)
        for file in set(directory.iterdir()) - {self.images, self.file}:
            file.unlink()
        self.done = sum(map(bool, self.decoded.pixel_hashes))
        self._log = self.file.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._log.close()

    def add(self, start: int, part: Decoded) -> None:
        """Log the results of rows `start`, `start` + 1, ...; their pixels must have been written.

        Raises:
            OSError: the log cannot be written.
        """
        rows = [sorted(part.squeezed), sorted(part.transparent)]
        reasons = [sorted(part.no_contrast.items()), sorted(part.warned.items())]
        self._log.write(_line([start, part.pixel_hashes, part.widths, rows, reasons]))
        self._log.flush()
        self.decoded.place(start, part)
        self.done += len(part.widths)

    def missing(self) -> list[range]:
        """Return the rows that have not been decoded, as ranges in order."""
        rows = np.flatnonzero([not digest for digest in self.decoded.pixel_hashes])
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        return [range(int(run[0]), int(run[-1]) + 1) for run in runs if run.size]

    def _read(self, header: bytes) -> tuple[int, Decoded]:
        """Return the offset and the results of an earlier build.

        Raises:
            OSError, ValueError: there is none, or it cannot be continued.
        """
        images = map_images(self.images, list(self.shape))
        decoded = _nothing(len(images))
        with self.file.open("rb") as log:
            if log.readline() != header:
                raise ValueError(f"{self.file} is the log of another build")
            end = len(header)
            for line in log:
                digest, _, body = line.partition(b" ")
                if digest != _digest(body):
                    break
                start, pixel_hashes, widths, rows, reasons = json.loads(body)
                part = Decoded(pixel_hashes, widths, {}, set(rows[0]), set(rows[1]), dict(reasons[0]), dict(reasons[1]))
                decoded.place(start, part)
                end += len(line)
        os.truncate(self.file, end)
        pixels, slot, column = images.data.cast("B"), images[0].size, images[0, :, :, 0].size
        for row, (recorded, width) in enumerate(zip(decoded.pixel_hashes, decoded.widths, strict=True)):
            start = row * slot
            if recorded and recorded != hashlib.sha256(pixels[start : start + width * column]).hexdigest():
                decoded.forget(row)
        return images.offset, decoded


def _nothing(count: int) -> Decoded:
    return Decoded([""] * count, [1] * count)


def _line(content: list[Any]) -> bytes:
    body = json.dumps(content).encode() + b"\n"
    return _digest(body) + b" " + body


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
