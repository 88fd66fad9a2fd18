"""CellOutput: what the process of a cell prints, kept in `output.txt` of the cell."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

from decoderbench.errors import PendingCellsError
from decoderbench.files.storage import open_to_append

logger = logging.getLogger("decoderbench")

OUTPUT_BYTES = 8 * 2**20
"""How much of what a cell prints is kept."""

TAIL_BYTES = 20_000
"""How much of the end of it becomes the traceback of a cell whose process died."""


class CellOutput:
    """Appends what a process prints to a file, up to a limit, and remembers the end of it.

    A file that cannot be written costs the output, never the cell.
    """

    def __init__(self, path: Path | None) -> None:
        """Write nothing yet; without a path only the end is remembered."""
        self.path = path
        self._file: BinaryIO | None = None
        self._size, self._tail = 0, b""

    def append(self, content: bytes) -> None:
        """Add what was printed."""
        self._tail = (self._tail + content)[-TAIL_BYTES:]
        kept = content[: max(0, OUTPUT_BYTES - self._size)]
        self._size += len(content)
        if kept:
            self._write(kept)

    def tail(self) -> str:
        """Return the end of what was printed."""
        return self._tail.decode(errors="backslashreplace")

    def close(self, *, announce: bool = False) -> None:
        """Close the file, and note in it how much is missing; `announce` logs where it is if there is one."""
        if self._file is not None:
            if self._size > OUTPUT_BYTES:
                self._write(f"\n... {self._size - OUTPUT_BYTES:,} further bytes are not kept\n".encode())
            self._file.close()
            self._file = None
            if announce:
                logger.info("a cell has printed %d bytes; see %s", self._size, self.path)

    def _write(self, content: bytes) -> None:
        if self.path is None:
            return
        try:
            if self._file is None:
                self._file = open_to_append(self.path)
            self._file.write(content)
        except (OSError, PendingCellsError) as error:
            logger.warning("%s: the output of the cell is lost: %s", self.path, error)
            self.path = None
