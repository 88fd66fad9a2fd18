"""A results folder that is merged: its plan, and its results with every file compared. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decoderbench.errors import DataError
from decoderbench.files.integrity import DamagedError
from decoderbench.records.pack import damage_of_copy
from decoderbench.records.record_files import damaged_artifacts, missing_artifacts, read_result
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord


@dataclass(frozen=True)
class Source:
    """A results folder.

    Attributes:
        directory: the folder.
        plan: its plan.
        records: its results by the id of their cell, trials of tuning included.
    """

    directory: ResultsDirectory
    plan: Plan
    records: Mapping[str, RunRecord]

    def __str__(self) -> str:
        return str(self.directory.path)

    @classmethod
    def read(cls, directory: ResultsDirectory) -> Source:
        """Read plan and results, and compare every file with the sha256 that its record states. Nothing is changed.

        Raises:
            DataError: the folder has no plan, or something in it is damaged, missing, or of a format that is not read.
        """
        plan, records = directory.read_plan(), dict[str, RunRecord]()
        fix = f"decoderbench verify {directory.path} --fix, then run its cell again"
        for cell in (*plan.cells, *plan.tuning):
            folder = directory.cell_directory(cell)
            try:
                record = read_result(folder)
                damage = damaged_artifacts(folder, record, thoroughly=True)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                damage = [error]
            if damage:
                raise DataError(f"{damage[0]}; {fix}")
            if missing := missing_artifacts(folder, record):
                raise DataError(f"{folder / missing[0]}: missing; copy the folder with all its files")
            records[cell.cell_id] = record
        for digest in {cell.start.digest for cell in plan.cells if cell.start is not None}:
            file = directory.start_file(digest)
            if file.exists() and (harm := damage_of_copy(file)):
                raise DataError(f"{harm}; {fix}")
        return cls(directory, plan, records)
