"""What libtiff says about a damaged image: it prints to file descriptor 2, naming no file. No torch here."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

MAX_BYTES = 10_000
_lock = threading.Lock()


@contextmanager
def collected_libtiff_messages(image: ImageFile.ImageFile) -> Iterator[list[str]]:
    """Collect the lines that libtiff prints while `image` is decoded, if it decodes it; the list is filled at the end.

    Standard error of the whole process is diverted meanwhile, so one such image is decoded at a time. Without this, a
    fax whose lines are damaged is read, and nobody knows which one it was.
    """
    messages: list[str] = []
    if not any(tile[0] == "libtiff" for tile in image.tile):
        yield messages
        return
    with _lock, tempfile.TemporaryFile() as file:
        shown = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            file.seek(0)
            messages.extend(dict.fromkeys(file.read(MAX_BYTES).decode(errors="replace").splitlines()))
