"""The images that a page of results shows: kept beside them by a run, since a report has no data set. No torch here."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from decoderbench.data.audit import Audit
from decoderbench.data.dataset import Split
from decoderbench.data.image_store import DamagedImagesError, ImageStore
from decoderbench.errors import DataError
from decoderbench.files.integrity import read_bytes
from decoderbench.files.storage import write_atomically

logger = logging.getLogger("decoderbench")

IMAGES = "images.parquet"
"""The file of a results folder with its images."""

NUM_TRAIN = 24
"""The number of images of the training split that are kept."""

MAX_BYTES = 1_200_000
"""The most bytes of all images together, so that the page stays below 3 MB."""

_MAX_HEIGHT, _MAX_WIDTH = 48, 480
_MAX_IMAGE = 200_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLUMNS = ["data_hash", "sample", "split", "label", "png"]


@dataclass(frozen=True)
class KeptImage:
    """An image of the page: its split and label, and the bytes of a PNG with its size in pixels."""

    split: str
    label: str
    png: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The image as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class ImageToKeep:
    """An image that a page may show, by the data hash of its cells: `pixels` are (C, H, W)."""

    data_hash: str
    key: str
    split: Split
    label: str
    pixels: NDArray[np.uint8]


def write_images(folder: Path, wanted: Sequence[tuple[str, str]], data: Mapping[str, tuple[ImageStore, Audit]]) -> None:
    """Write `images.parquet`: the wanted test images that are there, and some of the training split.

    Args:
        folder: that of the results.
        wanted: data hash and key of test images, the most needed first.
        data: store and audit of each data hash.

    Raises:
        StorageError: the file cannot be written.
    """
    images: list[ImageToKeep] = []
    for number, (name, (store, audit)) in enumerate(data.items()):
        places = {store.keys[row]: row for row in _tested(store, audit)}
        tested = [places[key] for of, key in wanted if of == name and key in places]
        chosen: list[tuple[int, Split]] = [(row, "test") for row in tested]
        chosen += [(row, "train") for row in (_of_training(store, audit) if not number else ())]
        try:
            images += [
                ImageToKeep(name, store.keys[row], split, audit.labels[row], store.pixels(row)) for row, split in chosen
            ]
        except DamagedImagesError as error:
            logger.warning("%s; the page shows texts without these images", error)
    keep_images(folder, images)


def keep_images(folder: Path, images: Iterable[ImageToKeep]) -> None:
    """Write `images.parquet` from images, the most needed first, up to `MAX_BYTES`.

    Raises:
        StorageError: the file cannot be written.
    """
    _write_rows(folder, ((i.data_hash, i.key, i.split, i.label, encode_image(i.pixels)) for i in images))


def merge_images(folder: Path, sources: Iterable[Path]) -> None:
    """Write `images.parquet` from those of other results, up to `MAX_BYTES`, those of the first ones first.

    Raises:
        StorageError: the file cannot be written.
    """
    kept: dict[tuple[str, str], KeptImage] = {}
    for source in sources:
        kept |= {key: image for key, image in read_images(source).items() if key not in kept}
    if kept:
        _write_rows(folder, [(*key, image.split, image.label, image.png) for key, image in kept.items()])


def _tested(store: ImageStore, audit: Audit) -> list[int]:
    """Return the rows that are scored as test images, with folds by any of them."""
    return [row for part in audit.parts() for row in part.rows(store, "test").tolist()]


def _of_training(store: ImageStore, audit: Audit) -> list[int]:
    """Return some rows of the training split, with folds of the first one."""
    rows = audit.parts()[0].rows(store, "train").tolist()
    return sorted(rows, key=lambda row: hashlib.sha256(store.keys[row].encode("utf-8", "replace")).digest())[:NUM_TRAIN]


def read_images(folder: Path) -> dict[tuple[str, str], KeptImage]:
    """Return the kept images by data hash and key; none if the file is missing, and a warning if it is damaged."""
    try:
        frame = pd.read_parquet(io.BytesIO(read_bytes(folder / IMAGES)))
        rows = list(frame[_COLUMNS].itertuples(index=False, name=None))
    except FileNotFoundError:
        return {}
    except (DataError, OSError, ValueError, KeyError):
        logger.warning("%s: cannot be read; the page shows texts without images", folder / IMAGES)
        return {}
    kept = {}
    for name, sample, split, label, png in rows:
        if isinstance(png, bytes) and (size := _size_of(png)):
            kept[str(name), str(sample)] = KeptImage(str(split), str(label), png, *size)
    return kept


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image, (C, H, W), as a small PNG: at most 48 pixels high, in 16 grays or 64 colors."""
    channels, height, width = pixels.shape
    image = Image.fromarray(pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = min(1.0, _MAX_HEIGHT / height, _MAX_WIDTH / width)
    if scale < 1:
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    if channels == 1:
        grays = Image.fromarray((np.asarray(image).astype(np.uint16) * 15 + 127) // 255).convert("P")
        grays.putpalette([gray for level in range(16) for gray in 3 * [level * 17]])
        grays.save(content, format="PNG", optimize=True, bits=4)
    else:
        image.quantize(64, dither=Image.Dither.NONE).save(content, format="PNG", optimize=True)
    return content.getvalue()


def _write_rows(folder: Path, rows: Iterable[tuple[str, str, str, str, bytes]]) -> None:
    """Write rows of `_COLUMNS` as long as there is room."""
    size = 0
    fitting = [row for row in rows if (size := size + len(row[-1])) <= MAX_BYTES]
    content = io.BytesIO()
    pd.DataFrame(fitting, columns=_COLUMNS).to_parquet(content, index=False)
    write_atomically(folder / IMAGES, content.getvalue())


def _size_of(png: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, or None if it is none or not one that `write_images` would keep."""
    if len(png) > _MAX_IMAGE or not png.startswith(_SIGNATURE) or png[12:16] != b"IHDR" or len(png) < 33:
        return None
    width, height = struct.unpack(">II", png[16:24])
    return (width, height) if 0 < width <= 4096 and 0 < height <= 4096 else None
