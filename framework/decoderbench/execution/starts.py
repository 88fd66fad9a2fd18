"""The packs that cells start from, as part of the results, and what of them fits each row."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from decoderbench.config.cell import Cell
from decoderbench.exception_text import describe_error
from decoderbench.pack import read_pack
from decoderbench.planning.starts import Start
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry
from decoderbench.results_directory import ResultsDirectory
from decoderbench.storage import write_atomically
from decoderbench.training.local_context import build_recognizer
from decoderbench.training.start import start_from

logger = logging.getLogger("decoderbench")


def keep_starts(
    starts: Sequence[Start], cells: Sequence[Cell], registry: Registry, directory: ResultsDirectory
) -> None:
    """Copy packs into the results, where the processes of cells read them, and log what of them fits each row.

    A row whose recognizer cannot be built, or that nothing fits, fails when it is trained; here it is a warning.

    Raises:
        StorageError: a copy cannot be written.
    """
    for start in starts:
        write_atomically(directory.start_file(start.point.digest), start.path.read_bytes())
    rows = {cell.variant: cell for cell in cells if cell.start is not None and not cell.infeasible}
    for cell in rows.values():
        assert cell.start is not None
        title = f"{cell.variant_title} starts from {cell.start.title}"
        try:
            with preserving_global_state():
                recognizer = build_recognizer(cell, registry, torch.device("cpu"), with_weights=False)
                pack = read_pack(directory.start_file(cell.start.digest))
                lines = start_from(recognizer, cell, registry, pack).lines()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            logger.warning("%s: %s", title, describe_error(error))
            continue
        for line in lines:
            logger.info("%s: %s", title, line)
