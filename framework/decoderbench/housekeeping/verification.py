"""Every file of a results folder against the size and sha256 that its record states. No torch here."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from decoderbench.errors import DataError
from decoderbench.files.integrity import DamagedError, UnreadableError
from decoderbench.files.storage import StorageError, rename
from decoderbench.records.pack import damage_of_copy
from decoderbench.records.record_files import (
    PLAN,
    OtherFormatError,
    damaged_artifacts,
    missing_artifacts,
    name_aside,
    read_plan,
    read_result,
)
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import UNVERIFIED_FORMAT, RunRecord


@dataclass
class Verification:
    """What was found in a results folder.

    Attributes:
        cells: number of cells that have a result, damaged ones included.
        verified: number of files that are as they were written.
        damaged: the damage of the others.
        unverified: number of results of an earlier format, which states no sha256.
        missing: the files that a result stands for and that are not there.
        unread: plan and cells that cannot be read now, or only by another version.
        skipped: the cells that were not looked at, because a process is running them.
    """

    cells: int = 0
    verified: int = 0
    damaged: list[DamagedError] = field(default_factory=list)
    unverified: int = 0
    missing: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    def summary(self) -> str:
        """Return the counts as one line."""
        unread = f", {len(self.unread)} not readable" if self.unread else ""
        skipped = f", {len(self.skipped)} under way" if self.skipped else ""
        return (
            f"{_count(self.cells, 'cell')}, {_count(self.verified, 'file')} verified, {len(self.damaged)} damaged, "
            f"{self.unverified} unverified (older format), {len(self.missing)} missing{unread}{skipped}"
        )


def verify(directory: ResultsDirectory, *, fix: bool, report: Callable[[str], None]) -> Verification:
    """Compare every file of a results folder with what its record states, the cells of earlier settings included.

    Args:
        directory: the results folder.
        fix: rename damaged files to `.damaged`, and the results of their cells, so that these run again.
        report: gets one line per finding, as soon as it is found.

    Raises:
        DataError: the folder has no plan and no cells.
    """
    found = Verification()
    folders = sorted(path for path in directory.path.glob("cells/*") if path.is_dir())
    if not folders and not os.path.lexists(directory.path / PLAN):
        raise DataError(f"{directory.path}: no {PLAN} and no cells; give the results folder of a run")
    _verify_plan(directory, found, fix, report)
    for file in sorted(directory.path.glob("starts/*.zip")):
        _verify_start(file, found, fix, report)
    for folder in folders:
        with ExitStack() as stack:
            try:
                held = stack.enter_context(directory.hold(folder))
            except StorageError:
                if fix:
                    raise
                held = True  # nobody can lock or write there, as on a read-only filesystem
            if held:
                _verify_cell(directory, folder, found, fix, report)
            else:
                found.skipped.append(folder)
                report(f"{folder}: skipped, a process is running this cell")
    return found


def _verify_plan(directory: ResultsDirectory, found: Verification, fix: bool, report: Callable[[str], None]) -> None:
    path = directory.path / PLAN
    try:
        found.verified += read_plan(path).format != UNVERIFIED_FORMAT
    except FileNotFoundError:
        found.missing.append(path)
        report(f"{path}: missing; the run command writes it again")
    except DamagedError as error:
        found.damaged.append(error)
        report(str(error))
        if fix:
            rename(path, name_aside(path))
    except (OtherFormatError, UnreadableError) as error:
        found.unread.append(path)
        report(str(error))


def _verify_start(file: Path, found: Verification, fix: bool, report: Callable[[str], None]) -> None:
    """Compare a pack that cells start from with its own digests, and with the one that names it."""
    damage = damage_of_copy(file)
    if damage is None:
        found.verified += 1
        return
    found.damaged.append(damage)
    report(str(damage))
    if fix:
        rename(file, name_aside(file))


def _verify_cell(
    directory: ResultsDirectory, folder: Path, found: Verification, fix: bool, report: Callable[[str], None]
) -> None:
    record: RunRecord | None = None
    damage: list[DamagedError] = []
    missing: list[str] = []
    try:
        record = read_result(folder)
        damage, missing = damaged_artifacts(folder, record, thoroughly=True), missing_artifacts(folder, record)
    except FileNotFoundError:
        return
    except DamagedError as error:
        damage = [error]
    except (OtherFormatError, UnreadableError) as error:
        found.unread.append(folder)
        report(str(error))
    found.cells += 1
    found.damaged += damage
    found.missing += [folder / name for name in missing]
    if record is not None and record.format == UNVERIFIED_FORMAT:
        found.unverified += 1
    elif record is not None:
        found.verified += 1 + len(record.artifacts) - len(damage) - len(missing)
    for line in (*map(str, damage), *(f"{folder / name}: missing" for name in missing)):
        report(line)
    if damage and fix:
        directory.set_aside(folder, damage)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
