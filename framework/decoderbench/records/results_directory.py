"""The folder of an experiment's results: its plan, and results/<experiment>/cells/<slug>-<hash>/ of each cell.

A cell is done when its `result.json` exists: it is written last and atomically. After any interruption, running the
experiment again trains only the cells without a result. No torch here.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from decoderbench.config.cell import Cell
from decoderbench.errors import ConfigError, DataError
from decoderbench.files.integrity import DamagedError
from decoderbench.files.storage import delete, explaining, remove_leftovers, rename, sync_folder, write_atomically
from decoderbench.options import ImageOptions
from decoderbench.records.leases import Lease, Leases
from decoderbench.records.record_files import (
    CHECKPOINTS,
    MAX_PLAN,
    PLAN,
    RESULT,
    OtherFormatError,
    collect_artifacts,
    damaged_artifacts,
    delete_checkpoints,
    encode,
    name_aside,
    read_and_check,
    read_plan,
    set_aside_files,
)
from decoderbench.records.schema import FORMAT, Plan, RunRecord

logger = logging.getLogger("decoderbench")

OF_A_RESULT = (
    "traceback.txt",
    "predictions.parquet",
    "val_predictions.parquet",
    "alignments.npz",
    "weights.safetensors",
)
"""Files of a result that would be recorded as those of the next one, if that fails."""

LOGS = "logs"
"""The folder in which executors keep what their jobs print; a report links its files."""

REPORT_FOLDERS = ("tables", "figures")
"""The folders of a report's files; `report.md` is beside them."""


class ResultsDirectory:
    """The results folder of one experiment: its plan, and the artifacts of each cell."""

    def __init__(self, path: str | Path, *, locking: bool = True) -> None:
        """Name a results folder; nothing is read or written.

        Args:
            path: the folder.
            locking: lock the cells; False if no other process uses the folder and its filesystem has no safe locks.
        """
        self.path, self.locking = Path(path), locking
        self.leases = Leases(self.path)
        self._held: dict[Path, Lease] = {}
        self._damage: dict[str, str] = {}

    def refuse_unsafe_leases(self) -> None:
        """Raise `ConfigError` if leases do not keep other processes away; nothing is written."""
        if self.locking:
            self.leases.refuse_unsafe()

    def begin(self) -> None:
        """Prepare for a run: refuse unsafe leases, and delete what killed processes left.

        That is temporary files, and checkpoints of cells that have a result.

        Raises:
            ConfigError: leases do not keep other processes away; nothing has been written.
        """
        self.refuse_unsafe_leases()
        if self.locking and (how := self.leases.describe()):
            logger.info(how)
        for folder in (self.path, *(self.path / name for name in REPORT_FOLDERS)):
            remove_leftovers(folder)
        with_leftovers = {path.parent for path in self.path.glob("cells/*/.*.tmp")}
        with_checkpoints = {path.parent for path in self.path.glob(f"cells/*/{CHECKPOINTS}")}
        for folder in with_leftovers | {folder for folder in with_checkpoints if (folder / RESULT).exists()}:
            with self.hold(folder) as held:  # which deletes temporary files unless another process works there
                if held and (folder / RESULT).exists():
                    delete_checkpoints(folder)

    def cell_directory(self, cell: Cell) -> Path:
        """Return the folder of a cell's artifacts."""
        return self.path / "cells" / cell.cell_id

    def list_logs(self) -> list[str]:
        """Return the files in which executors keep what their jobs print, by their paths in `logs`, sorted."""
        return sorted(path.relative_to(self.path / LOGS).as_posix() for path in (self.path / LOGS).glob("**/*.out"))

    def start_file(self, digest: str) -> Path:
        """Return the copy of a pack that cells start from."""
        return self.path / "starts" / f"{digest}.zip"

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

    def refuse_other_data(self, origin: str, data_hashes: Collection[str]) -> None:
        """Raise if this folder holds the results of another file or folder, with other data, of the same name.

        A file or folder that was moved goes on with its results, and so does one whose data have changed.

        Raises:
            ConfigError: both differ.
        """
        try:
            plan = self.read_plan()
        except DataError:
            return
        known = {cell.data_hash for cell in plan.cells}
        if plan.origin and origin not in ("", plan.origin) and known.isdisjoint(data_hashes):
            raise ConfigError(
                [
                    f"--results {self.path}: holds results of another experiment file or folder that is called "
                    f"{plan.experiment!r} too, with other data; give another folder"
                ]
            )

    def has_other_data(self, cells: Sequence[Cell]) -> bool:
        """Return whether the last run here had other labels, splits or pixels, at the same size of images."""
        before: dict[ImageOptions, set[str]] = {}
        now: dict[ImageOptions, set[str]] = {}
        try:
            for found, counted in ((before, self.read_plan().cells), (now, cells)):
                for cell in counted:
                    found.setdefault(cell.image, set()).add(cell.data_hash)
        except DataError:
            return False
        return any(image in before and before[image].isdisjoint(hashes) for image, hashes in now.items())

    def count_other_results(self, cells: Sequence[Cell]) -> int:
        """Return the number of results in this folder that belong to none of `cells`."""
        known = {cell.cell_id for cell in cells}
        return sum(path.parent.name not in known for path in self.path.glob(f"cells/*/{RESULT}"))

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`, which determines the rows of tables and their order. A damaged one is kept beside it.

        Raises:
            ConfigError: the plan is too large to be read again.
        """
        path, content = self.path / PLAN, encode(plan)
        if len(content) > MAX_PLAN:
            raise ConfigError(
                [f"grid: {len(plan.cells):,} cells make a plan of {len(content):,} bytes; divide the grid"]
            )
        try:
            read_plan(path)
        except (FileNotFoundError, OtherFormatError):
            pass
        except DamagedError as error:
            aside = name_aside(path)
            rename(path, aside)
            logger.warning("%s; renamed to %s and written anew", error, aside.name)
        write_atomically(path, content)

    def read_plan(self) -> Plan:
        """Read `plan.json`.

        Raises:
            OtherFormatError: it was written by another version of decoderbench.
            DataError: it is missing or damaged.
        """
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path}: is not a folder; give the results folder of a run")
        try:
            return read_plan(self.path / PLAN)
        except FileNotFoundError:
            raise DataError(f"{self.path}: no plan.json; give the results folder of a run") from None
        except DamagedError as error:
            raise DataError(f"{error}; run the experiment again to rewrite it") from None

    def read(self, cell: Cell) -> RunRecord | None:
        """Return a cell's record, or None if it has none. Of its files, only `result.json` is checked.

        A damaged one is renamed to `.damaged`, a warning is logged and None is returned. So is the record of a cell
        that another process is training.

        Raises:
            OtherFormatError: the record was written by another version of decoderbench.
            UnreadableError: the file cannot be read now.
        """
        return self._read(cell, lambda record: [])

    def check(self, cell: Cell) -> RunRecord | None:
        """Return a cell's record like `read`, with the files checked that tables, curves and metrics are made of.

        If one of them is damaged, it is renamed to `.damaged`, and so is the record: the cell has no result.
        """
        return self._read(cell, partial(damaged_artifacts, self.cell_directory(cell)))

    def reason_of_damage(self, cell: Cell) -> str:
        """Return why a cell has lost its record, naming the damaged files beside it; empty if there are none."""
        if (cause := self._damage.get(cell.cell_id)) is not None:
            return cause
        names = set_aside_files(self.cell_directory(cell))
        return f"an earlier result was damaged: {', '.join(names)}" if names else ""

    def publish(self, record: RunRecord) -> None:
        """Write `cell.json` and `result.json` of a record's cell, which makes the cell done.

        The record gets size and sha256 of each file that is in the cell's folder now. Its checkpoints are deleted.

        Raises:
            LostLeaseError: another process has taken the cell over; nothing was written.
        """
        directory = self.cell_directory(record.cell)
        self.check_lease(record.cell, thoroughly=True)
        write_atomically(directory / "cell.json", record.cell.model_dump_json(indent=1).encode())
        with explaining(directory):
            for folder in (directory.parent, self.path, self.path.parent):
                sync_folder(folder)  # a process may have created it and been killed before it could do this
        artifacts = collect_artifacts(directory)
        self.check_lease(record.cell, thoroughly=True)
        self.update(record.model_copy(update={"format": FORMAT, "artifacts": artifacts}))
        delete_checkpoints(directory)

    def update(self, record: RunRecord) -> None:
        """Write `result.json` alone: a record of the same files with other numbers."""
        write_atomically(self.cell_directory(record.cell) / RESULT, encode(record))

    def set_aside(self, folder: Path, damage: Sequence[DamagedError]) -> None:
        """Rename the damaged files of a cell's folder and its `result.json`, so that the cell runs again.

        The caller holds the lease of the cell.
        """
        paths = dict.fromkeys([folder / RESULT, *(error.path for error in damage)])  # the result first
        renamed = {path: name_aside(path) for path in paths if os.path.lexists(path)}
        for path, aside in renamed.items():
            rename(path, aside)
        for error in damage:
            logger.warning("%s; renamed to %s, the cell will run again", error, renamed[error.path].name)

    def delete_result(self, cell: Cell) -> None:
        """Delete the result of a cell and the files that the next one writes only if it gets as far.

        A cell with a result starts anew; one without goes on from its checkpoints, which stay.

        Raises:
            LostLeaseError: another process has taken the cell over; nothing was deleted.
        """
        self.check_lease(cell, thoroughly=True)  # the result may be that of the other process
        if (self.cell_directory(cell) / RESULT).exists():
            delete_checkpoints(self.cell_directory(cell))
        delete(*(self.cell_directory(cell) / name for name in (RESULT, *OF_A_RESULT)))

    def _read(self, cell: Cell, find_damage: Callable[[RunRecord], Sequence[DamagedError]]) -> RunRecord | None:
        folder = self.cell_directory(cell)
        record, damage = read_and_check(folder, find_damage)
        if not damage:
            return record
        self._damage[cell.cell_id] = _describe(folder, damage)
        with nullcontext(True) if folder in self._held else self.hold(folder) as held:
            record, damage = read_and_check(folder, find_damage) if held else (None, [])
            if damage:
                self.set_aside(folder, damage)
                return None
        del self._damage[cell.cell_id]  # another process has replaced the files, or is doing so
        return record

    @contextmanager
    def lease(self, cell: Cell, *, timeout: float = 0.0) -> Iterator[bool]:
        """Hold a cell for this process; yield False if another process still holds it after `timeout` seconds.

        What a process that dies has held is free again, so no file has to be removed by hand. Temporary files that it
        left are deleted.
        """
        with self.hold(self.cell_directory(cell), timeout=timeout) as held:
            yield held

    def check_lease(self, cell: Cell, *, thoroughly: bool = False) -> None:
        """Raise `LostLeaseError` if another process has taken over a cell that this one holds: `Lease.check`."""
        if (lease := self._held.get(self.cell_directory(cell))) is not None:
            lease.check(thoroughly=thoroughly)

    def left_by(self, cell: Cell) -> bytes:
        """Return what named the process that has left a cell without a word, before this one held it by heartbeats."""
        lease = self._held.get(self.cell_directory(cell))
        return b"" if lease is None else lease.left_by

    def is_leased(self, cell: Cell) -> bool:
        """Return whether a process of this machine holds the lock of a cell; nothing is created or changed."""
        return self.leases.is_held(self.cell_directory(cell))

    def is_free(self, cell: Cell) -> bool:
        """Return whether nobody holds a cell; it may be held for a moment to find that out."""
        return self.leases.is_free(self.cell_directory(cell))

    def refresh(self, cell: Cell) -> None:
        """Make sure that what another machine has just written of a cell is seen here.

        A network filesystem may answer for a minute that a file is missing which was not there before. It looks again
        once a file was created in the same folder.
        """
        if self.leases.by_heartbeats:
            folder = self.cell_directory(cell)
            with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=f".{os.getpid()}.tmp"):
                pass  # hidden, so that it becomes no part of a result

    @contextmanager
    def hold(self, folder: Path, *, timeout: float = 0.0) -> Iterator[bool]:
        """Hold the folder of a cell, as `lease` does."""
        with self.leases.hold(folder, timeout=timeout) if self.locking else nullcontext(Lease()) as lease:
            if lease is None:
                yield False
                return
            remove_leftovers(folder, all_of_them=True)
            self._held[folder] = lease
            try:
                yield True
            finally:
                del self._held[folder]


def _describe(folder: Path, damage: Sequence[DamagedError]) -> str:
    """Return the damage of files as a reason, as in "predictions.parquet damaged: sha256 mismatch"."""
    return "; ".join(f"{error.path.relative_to(folder).as_posix()} damaged: {error.damage}" for error in damage)
