"""Deaths: how many jobs have died with a cell, such as those that Slurm ends for the memory that the cell takes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


class Deaths:
    """A folder with a file for each cell that a job has begun and not ended. It can be pickled."""

    def __init__(self, folder: Path, retries: int) -> None:
        """Count nothing yet.

        Args:
            folder: where all jobs of a run write, and its arrays one after the other.
            retries: how many jobs may die with a cell before that counts as too many.
        """
        self.folder, self.retries = folder, retries

    def begin(self, cell_id: str, job_id: str) -> Path:
        """Count a job that begins a cell, until its file is deleted: it may have died with the cell."""
        file = self.folder / f"{cell_id}@{job_id}@{uuid4().hex[:8]}"
        with suppress(OSError):  # a full disk: then nothing is counted
            file.touch()
        return file

    def open(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def refresh(self) -> None:
        """Let a network filesystem list the folder anew, as it does once a file was created there."""
        self.begin("", "").unlink(missing_ok=True)

    def too_many(self) -> dict[str, list[str]]:
        """Return the cells that more jobs have begun and not ended than `retries`, each with these jobs.

        One of them may be running it.
        """
        begun: dict[str, list[str]] = {}
        for name in self._names():
            cell_id, job_id, _ = name.rsplit("@", 2)
            begun.setdefault(cell_id, []).append(job_id)
        return {cell_id: sorted(jobs) for cell_id, jobs in begun.items() if len(jobs) > self.retries}

    def count(self) -> int:
        """Return how many jobs have begun a cell and not ended it; once all jobs have ended, they have died."""
        return len(self._names())

    def close(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
