"""The packs that cells start from, as part of the results, and what of them fits each row."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from decoderbench.config.cell import Cell
from decoderbench.exception_text import describe_error
from decoderbench.files.integrity import read_bytes
from decoderbench.files.storage import write_atomically
from decoderbench.planning.starts import Start
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry
from decoderbench.training.start import build_started, read_start

logger = logging.getLogger("decoderbench")


def keep_starts(
    starts: Sequence[Start], cells: Sequence[Cell], registry: Registry, directory: ResultsDirectory
) -> None:
    """Copy packs into the results, where the processes of cells read them, and log what of them fits each row.

    A row whose recognizer cannot be built, or that nothing fits, fails when it is trained; here it is a warning.

    Raises:
        StorageError: a copy cannot be written.
        DataError: a pack has changed since the cells were planned.
    """
    for start in starts:
        file = directory.start_file(start.point.digest)
        write_atomically(file, read_bytes(start.path))
        read_start(file, start.point)
    rows = {cell.variant: cell for cell in cells if cell.start is not None and not cell.infeasible}
    for cell in rows.values():
        assert cell.start is not None
        title = f"{cell.variant_title} starts from {cell.start.title}"
        try:
            with preserving_global_state():
                pack = read_start(directory.start_file(cell.start.digest), cell.start)
                report = build_started(cell, registry, torch.device("cpu"), pack)[1]
                assert report is not None
                lines = report.lines()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            logger.warning("%s: %s", title, describe_error(error))
            continue
        for line in lines:
            logger.info("%s: %s", title, line)
