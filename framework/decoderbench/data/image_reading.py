"""Reading the image of a sample: the one place where a dataset's `load_image` is called. No torch here."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from decoderbench.data.dataset import Dataset
from decoderbench.data.image_decoding import errors_of_images
from decoderbench.errors import DataError


def read_image(dataset: Dataset, row: int) -> Image.Image:
    """Return the image of a sample, fully decoded.

    Raises:
        DataError: it cannot be read, whatever the dataset or Pillow raised.
    """
    with errors_of_images():
        image = dataset.load_image(row)
        if not isinstance(image, Image.Image):
            raise TypeError(f"load_image of dataset {dataset.name!r} returned {type(image).__name__}, not a PIL image")
        if 0 in image.size:
            raise DataError("image has no pixels")
        image.load()
    return image


class _Collector:
    """Collects warnings by thread. Python's own `catch_warnings` mixes up threads, and workers may be threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_thread: dict[int, list[str]] = {}

    def start(self) -> list[str]:
        with self._lock:
            if not self._of_thread:
                self._catching = warnings.catch_warnings()
                self._catching.__enter__()
                self._show: Callable[..., None] = warnings.showwarning
                warnings.simplefilter("always")
                warnings.showwarning = self._collect
            return self._of_thread.setdefault(threading.get_ident(), [])

    def stop(self) -> None:
        with self._lock:
            del self._of_thread[threading.get_ident()]
            if not self._of_thread:
                self._catching.__exit__(None, None, None)

    def _collect(self, message: Warning | str, *where: Any, **more: Any) -> None:
        if (collected := self._of_thread.get(threading.get_ident())) is None:
            self._show(message, *where, **more)
        else:
            collected.append(str(message))


_collector = _Collector()


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what this thread warns of, instead of showing it: Pillow warns of damage that it can live with."""
    try:
        yield _collector.start()
    finally:
        _collector.stop()
