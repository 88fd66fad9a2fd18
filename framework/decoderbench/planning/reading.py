"""Reading of datasets: progress for observers, early ends, and exceptions of datasets. No torch here."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DataError, DecoderBenchError
from decoderbench.exception_text import describe_error
from decoderbench.registry.global_state import OBSERVERS_MAY_CHANGE, undoing_changes

if TYPE_CHECKING:
    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.plugin_manager import Plugins

logger = logging.getLogger("decoderbench")

SECONDS_BETWEEN_REPORTS = 0.1


@contextmanager
def reading(dataset: Dataset, plugins: Plugins, deadline: Deadline = NO_DEADLINE) -> Iterator[None]:
    """Report to observers in the block how far the dataset has read.

    Raises:
        DataError: as `naming_dataset`.
        PendingCellsError: the deadline passed while the dataset was reading.
    """
    reported, items = float("-inf"), 0

    def report(done: int, total: int) -> None:
        nonlocal reported, items
        if done < total and time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS:
            reported, items = time.monotonic(), total
            plugins.notify("data_read", done=done, total=total)
            deadline.check(f"with {done:,} of {total:,} items of the dataset read")

    with naming_dataset(dataset.name):
        before, dataset.report_progress = dataset.report_progress, report
        try:
            yield
        finally:
            dataset.report_progress = before  # workers that load images must not call observers, nor end the run
    if items:
        plugins.notify("data_read", done=items, total=items)


@contextmanager
def naming_dataset(name: str) -> Iterator[None]:
    """Turn an exception of the dataset in the block into a `DataError` that names it, unless it is a user error.

    Global state that the dataset changes is restored, and a warning names it.

    Raises:
        DataError: the block raised anything else, `SystemExit` included.
    """

    def report(change: str) -> None:
        logger.warning("dataset %s %s", name, change)

    try:
        with undoing_changes(report, keeping=OBSERVERS_MAY_CHANGE):  # observers are called in the block
            yield
    except (DecoderBenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise DataError(f"dataset {name!r} cannot be read: {describe_error(error)}") from error
