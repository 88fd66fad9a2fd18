"""The folder of an experiment's results: its plan, and results/<experiment>/cells/<slug>-<hash>/ of each cell.

A cell is done when its `result.json` exists: it is written last and atomically. After any interruption, running the
experiment again trains only the cells without a result. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, count
from pathlib import Path

from pydantic import ValidationError

from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError, DataError
from decoderbench.locks import holding, is_held, refuse_unsafe_locks
from decoderbench.records import FORMAT, Plan, RunRecord
from decoderbench.storage import delete, explaining, remove_leftovers, rename, sync_folder, write_atomically

logger = logging.getLogger("decoderbench")


class OtherFormatError(DataError):
    """A results file has a format that this version cannot read; the file is left unchanged."""


class ResultsDirectory:
    """The results folder of one experiment: its plan, and the artifacts of each cell."""

    def __init__(self, path: str | Path, *, locking: bool = True) -> None:
        """Name a results folder; nothing is read or written.

        Args:
            path: the folder.
            locking: lock the cells; False if no other process uses the folder and its filesystem has no safe locks.
        """
        self.path, self.locking = Path(path), locking

    def begin(self) -> None:
        """Prepare for a run: refuse unsafe locks, and delete the temporary files that killed processes left.

        Raises:
            ConfigError: locks do not keep other processes away; nothing has been written.
        """
        if self.locking:
            refuse_unsafe_locks(self.path)
        remove_leftovers(self.path)
        for folder in {path.parent for path in self.path.glob("cells/*/.*.tmp")}:
            with self._locking(folder, 0.0):  # which deletes them unless another process works there
                pass

    def cell_directory(self, cell: Cell) -> Path:
        """Return the folder of a cell's artifacts."""
        return self.path / "cells" / cell.cell_id

    def refuse_other_experiment(self, name: str) -> None:
        """Raise if results of the experiment called `name` cannot be added to this folder.

        Raises:
            ConfigError: it is a file, or holds the results of another experiment.
            OtherFormatError: its plan was written by another version of decoderbench.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError([f"--results {self.path}: is not a folder; give another"])
        try:
            owner = self.read_plan().experiment
        except OtherFormatError:
            raise
        except DataError:
            return  # there is no plan, or a corrupt one that the run overwrites
        if owner != name:
            raise ConfigError(
                [f"--results {self.path}: holds results of experiment {owner!r}, not {name!r}; give another folder"]
            )

    def refuse_other_data(self, origin: str, data_hash: str) -> None:
        """Raise if this folder holds the results of another file or folder, with other data, of the same name.

        A file or folder that was moved goes on with its results, and so does one whose data have changed.

        Raises:
            ConfigError: both differ.
        """
        try:
            plan = self.read_plan()
        except DataError:
            return
        if plan.origin and origin not in ("", plan.origin) and data_hash not in {cell.data_hash for cell in plan.cells}:
            raise ConfigError(
                [
                    f"--results {self.path}: holds results of another experiment file or folder that is called "
                    f"{plan.experiment!r} too, with other data; give another folder"
                ]
            )

    def count_other_results(self, cells: Sequence[Cell]) -> int:
        """Return the number of results in this folder that belong to none of `cells`."""
        known = {cell.cell_id for cell in cells}
        return sum(path.parent.name not in known for path in self.path.glob("cells/*/result.json"))

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`, which determines the rows of tables and their order."""
        write_atomically(self.path / "plan.json", plan.model_dump_json(indent=1).encode())

    def read_plan(self) -> Plan:
        """Read `plan.json`; raise `DataError` if it is missing or corrupt."""
        path = self.path / "plan.json"
        try:
            content = path.read_bytes()
            _refuse_other_format(path, content)
            return Plan.model_validate_json(content)
        except FileNotFoundError:
            raise DataError(f"{self.path}: no plan.json; give the results folder of a run") from None
        except NotADirectoryError:
            raise DataError(f"{self.path}: is not a folder; give the results folder of a run") from None
        except ValidationError:
            raise DataError(f"{path}: corrupt, not a plan; run the experiment again to rewrite it") from None

    def read(self, cell: Cell) -> RunRecord | None:
        """Return a cell's record, or None if it has none.

        A corrupt record is renamed to `.damaged`, a warning is logged and None is returned.

        Raises:
            OtherFormatError: the record was written by another version of decoderbench.
            DataError: the record is that of another cell.
        """
        path = self.cell_directory(cell) / "result.json"
        try:
            content = path.read_bytes()
            _refuse_other_format(path, content)
            record = RunRecord.model_validate_json(content)
        except FileNotFoundError:
            return None
        except ValidationError:
            renamed = _unused(path.with_suffix(".json.damaged"))
            rename(path, renamed)
            logger.warning("%s: corrupt, not a record; renamed to %s, the cell will run again", path, renamed.name)
            return None
        if record.cell.cell_id != cell.cell_id:
            raise DataError(f"{path}: is the record of cell {record.cell.cell_id}; move the file to that folder")
        return record

    def publish(self, record: RunRecord) -> None:
        """Write `cell.json` and `result.json` of a record's cell, which makes the cell done."""
        directory = self.cell_directory(record.cell)
        write_atomically(directory / "cell.json", record.cell.model_dump_json(indent=1).encode())
        with explaining(directory):
            for folder in (directory.parent, self.path, self.path.parent):
                sync_folder(folder)  # a process may have created it and been killed before it could do this
        write_atomically(directory / "result.json", record.model_dump_json(indent=1).encode())

    def delete_result(self, cell: Cell) -> None:
        """Delete the result and the traceback of a cell, so that it runs again."""
        delete(*(self.cell_directory(cell) / name for name in ("result.json", "traceback.txt")))

    @contextmanager
    def lease(self, cell: Cell, *, timeout: float = 0.0) -> Iterator[bool]:
        """Lock a cell for this process; yield False if another process still holds the lock after `timeout` seconds.

        The operating system releases the lock of a process that dies, so no lock has to be removed by hand. Temporary
        files that it left are deleted.
        """
        with self._locking(self.cell_directory(cell), timeout) as held:
            yield held

    def is_leased(self, cell: Cell) -> bool:
        """Return whether a process holds the lock of a cell, as far as this machine can see. Changes nothing."""
        return is_held(self.cell_directory(cell) / "lock")

    @contextmanager
    def _locking(self, directory: Path, timeout: float) -> Iterator[bool]:
        with holding(directory / "lock", timeout=timeout) if self.locking else nullcontext(True) as held:
            if held:
                remove_leftovers(directory, all_of_them=True)
            yield held


def digest_of_path(path: Path) -> str:
    """Return a digest of the absolute path of a file or folder: results tell where they come from, not whose."""
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _unused(path: Path) -> Path:
    """Return a path, or with a number behind it if there is such a file already."""
    names = chain([path], (path.with_name(f"{path.name}-{number}") for number in count(2)))
    return next(name for name in names if not name.exists())


def _refuse_other_format(path: Path, content: bytes) -> None:
    """Raise `OtherFormatError` if a file states another format; ignore files that are not JSON objects."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(data, dict) and (given := data.get("format", 1)) != FORMAT:
        raise OtherFormatError(
            f"{path}: has format {given!r}, this decoderbench reads format {FORMAT}; the file is left unchanged; use "
            f"the decoderbench that wrote it, or run the experiment again with --results FOLDER"
        )
