"""Every hook of decoderbench, and the markers to declare and implement them.

Facts about pluggy: hooks are called with keyword arguments only. An implementation may omit arguments that it does not
need, but an argument with a default value is never passed. Implementations are called last registered first, so
nothing here depends on their order. A misspelled hook name is an error, because the plugin manager calls
`check_pending()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from decoderbench.config.cell import Cell
    from decoderbench.data.audit import Audit
    from decoderbench.data.dataset import Dataset
    from decoderbench.metrics import Metric
    from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
    from decoderbench.records.schema import RunRecord
    from decoderbench.registry.context import CellContext
    from decoderbench.registry.executor import Executor

PROJECT = "decoderbench"
API_VERSION = 4
"""Incremented on changes that break existing plugins. A module may name the version it needs as `DECODERBENCH_API`."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method as the implementation of the hook of the same name."""


# Loading: called once each, while the plugin manager and the registry are built.


@hookspec
def plugin_modules() -> Iterable[str]:
    """Name further modules to import and register as plugins.

    Called by the plugin manager, for a plugin that is a package. A module that fails to import is reported in one line
    and disabled; the others are registered.

    Returns: dotted module names. None means none.

    Example: `return [module.name for module in pkgutil.walk_packages(__path__, __name__ + ".")]`
    """


@hookspec
def register_rectifiers() -> Iterable[type[Rectifier]]:
    """Register rectifiers, which map images to images that are easier to read.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Rectifier`. None means none.

    Example: `return [TPS]`
    """


@hookspec
def register_encoders() -> Iterable[type[Encoder]]:
    """Register encoders, which map images to feature maps.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Encoder`. None means none.

    Example: `return [TimmCNN]`
    """


@hookspec
def register_bridges() -> Iterable[type[Bridge]]:
    """Register bridges, which map feature maps to the memory that a decoder reads.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Bridge`. None means none.

    Example: `return [MeanHeight]`
    """


@hookspec
def register_decoders() -> Iterable[type[Decoder]]:
    """Register decoders, which map a memory to text.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Decoder`. None means none.

    Example: `return [AttentionLSTM]`
    """


@hookspec
def register_datasets() -> Iterable[type[Dataset]]:
    """Register datasets, sources of labeled images.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Dataset`. None means none.

    Example: `return [Folder]`
    """


@hookspec
def register_metrics() -> Iterable[type[Metric]]:
    """Register metrics: further numbers to score transcriptions with, one column of `tables/cells.csv` each.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Done cells get the numbers of new and edited metrics from their predictions.

    Returns: classes derived from `Metric`. None means none.

    Example: `return [FirstCharacterRight]`
    """


@hookspec
def register_executors() -> Iterable[type[Executor]]:
    """Register executors, which decide in which processes cells run: `--executor NAME` chooses one.

    Called by the registry. A name that another plugin has registered is refused, and both are named.

    Returns: classes derived from `Executor`. None means none.

    Example: `return [Local]`
    """


# Running: the state of an observer belongs to an object, so each run gets objects of its own.


@hookspec
def register_observers() -> Iterable[object]:
    """Create observers for one run: objects whose methods, marked with `@hookimpl`, implement the hooks below.

    Called once at the start of each run. The objects are registered as plugins for the length of that run.

    Returns: new objects. None means none.

    Example: `return [TensorBoardTracker()]`
    """


@hookspec
def data_audited(audit: Audit, settings: Sequence[str]) -> None:
    """Observe the result of the data audit, before the first cell. An observer that raises is reported and ignored.

    Called once for each of the data if settings of the grid have several.

    Args:
        audit: counts, label lengths, charset and problems of the data; `audit.lines()` is its summary as text.
        settings: labels of the settings that have these data; none if all cells share them.

    Example: print `audit.lines(settings)`.
    """


@hookspec
def data_read(done: int, total: int) -> None:
    """Observe the reading of a dataset: its labels, then its files for the fingerprint, each counted from 0.

    Called at most ten times per second, before a run starts and so not for objects of `register_observers`, and only
    for datasets that report their progress. An observer that raises is reported and ignored.

    Args:
        done: items read so far.
        total: items to read.

    Example: move a progress bar.
    """


@hookspec
def images_decoded(done: int, total: int) -> None:
    """Observe the decoding of images, which happens once per dataset and image size.

    Called many times while a cache of decoded images is built, before a run starts and so not for objects of
    `register_observers`; never if there is one. An observer that raises is reported and ignored.

    Args:
        done: images decoded so far.
        total: images to decode.

    Example: move a progress bar.
    """


@hookspec
def run_started(cells: Sequence[Cell], directory: Path) -> None:
    """Observe that a run starts. An observer that raises is reported and ignored.

    Called twice for an experiment with tuning: for the trials, and for the cells with the values that were chosen.

    Args:
        cells: the cells to run; cells that have a result already are not among them.
        directory: where the results of the run are; an observer may keep files of its own there.

    Example: show a progress bar of `len(cells)`; create `directory / "tracker"`.
    """


@hookspec
def cell_started(cell: Cell) -> None:
    """Observe that a cell starts. An observer that raises is reported and never fails the cell.

    Called before `cell_finished` for every cell, also for one that cannot be trained.

    Example: open a run in a tracker under `cell.cell_id`.
    """


@hookspec
def cell_progressed(cell: Cell, step: int, loss: float) -> None:
    """Observe training, about twice per second. An observer that raises is reported and never fails the cell.

    Args:
        cell: the cell that is being trained.
        step: optimizer steps taken so far.
        loss: nats per character of a recent batch.

    Example: move a progress bar.
    """


@hookspec
def cell_validated(cell: Cell, step: int, scores: Mapping[str, float]) -> None:
    """Observe a validation. An observer that raises is reported and never fails the cell.

    Args:
        cell: the cell that is being trained.
        step: optimizer steps taken so far.
        scores: the numbers of a row of the cell's `history.jsonl`: metrics on the validation split, loss, learning
            rate.

    Example: log `scores` to a tracker.
    """


@hookspec(firstresult=True)
def run_cell(cell: Cell, context: CellContext) -> RunRecord | None:
    """Train and evaluate one cell.

    Called once for each feasible cell without a result, in the process that the executor runs the cell in, where
    observers are not; what they see is sent to the process of the run. Stops at the first result that is not None. The
    built-in trainer is called last (`trylast`), so another trainer can take cells over. An exception becomes a record
    with status `failed` and a reason; the run goes on.

    Args:
        cell: what to train.
        context: builds the recognizer, yields the batches, evaluates, reports progress, and makes the record.

    Returns: this cell's RunRecord, or None to let another plugin run it; a wrapper returns the result of its `yield`.

    Example, to measure without replacing: an implementation with `@hookimpl(wrapper=True)` that yields once.
    """


@hookspec
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Observe that a cell has its record, whatever its status. An observer that raises is reported and ignored.

    Example: print one line.
    """


@hookspec
def run_finished() -> None:
    """Observe that a run ends, also if it is interrupted. An observer that raises is reported and ignored.

    Called last, once per run. If the run was interrupted during a cell, `cell_finished` was not called for it.

    Example: close the run of a tracker that is still open.
    """


# Reporting.


@hookspec
def report_columns(record: RunRecord) -> Mapping[str, object]:
    """Add columns to the table of cells, `tables/cells.csv`.

    Called for every record when a table is built, without torch and without the weights. A column that exists already
    is refused.

    Returns: column names and values: text, numbers of any class, truth values, None. None means none.

    Example: `return {"kept_step": record.kept_step}`
    """
