"""Every hook of decoderbench, and the markers to declare and implement them.

Facts of pluggy to keep in mind: hooks are called with keyword arguments only; an implementation may leave out
arguments that it does not need, but an argument with a default value is never passed; implementations are
called last registered first, so nothing here may depend on order; a misspelled hook name is an error here,
because the plugin manager calls `check_pending()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from decoderbench.config.cell import Cell
    from decoderbench.data.dataset import Dataset
    from decoderbench.metrics import Metric
    from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
    from decoderbench.records import RunRecord
    from decoderbench.training.trainer import CellContext

PROJECT = "decoderbench"
API_VERSION = 1
"""Raised when a plugin that was right has to change. A module may name the one it is for as `DECODERBENCH_API`."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# Loading: called once each, while the plugin manager and the registry are built.


@hookspec
def plugin_modules() -> Iterable[str]:
    """Name further modules to import and register as plugins.

    Called by the plugin manager for a plugin that arrives as a package. A module that fails to import is
    reported in one line and left out; the others stay.

    Returns: dotted module names. None means none.

    Example: `return [module.name for module in pkgutil.walk_packages(__path__, __name__ + ".")]`
    """


@hookspec
def register_rectifiers() -> Iterable[type[Rectifier]]:
    """Offer rectifiers, images to images that are easier to read.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Rectifier`. None means none.

    Example: `return [TPS]`
    """


@hookspec
def register_encoders() -> Iterable[type[Encoder]]:
    """Offer encoders, images to feature maps.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Encoder`. None means none.

    Example: `return [TimmCNN]`
    """


@hookspec
def register_bridges() -> Iterable[type[Bridge]]:
    """Offer bridges, feature maps to the memory that a decoder reads.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Bridge`. None means none.

    Example: `return [MeanHeight]`
    """


@hookspec
def register_decoders() -> Iterable[type[Decoder]]:
    """Offer decoders, memory to text.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Decoder`. None means none.

    Example: `return [AttentionLSTM]`
    """


@hookspec
def register_datasets() -> Iterable[type[Dataset]]:
    """Offer datasets, sources of labeled images.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Dataset`. None means none.

    Example: `return [Folder]`
    """


@hookspec
def register_metrics() -> Iterable[type[Metric]]:
    """Offer metrics: further numbers to score transcriptions with, one column of `cells.csv` each.

    Called by the registry. A name that another plugin has registered already is refused, naming both.

    Returns: classes derived from `Metric`. None means none.

    Example: `return [FirstCharacterRight]`
    """


# Running: called for every cell.


@hookspec(firstresult=True)
def run_cell(cell: Cell, context: CellContext) -> RunRecord | None:
    """Train and evaluate one cell.

    Called by the runner, once for each feasible cell without a result. Stops at the first answer that is not
    None; the core answers last (`trylast`), so another trainer can take cells over. An exception becomes a
    failed record with its reason; the other cells go on.

    Args:
        cell: what to train.
        context: data, device, registry and the directory that this cell may write to.

    Returns: the record, or None to leave the cell to the next plugin.

    Example, to measure without replacing: an implementation with `@hookimpl(wrapper=True)` that yields once.
    """


@hookspec
def run_started(cells: Sequence[Cell], directory: Path) -> None:
    """Observe that a run starts. An observer that raises is reported and harms nothing.

    Args:
        cells: those that the run will go through; cells that have a result already are not among them.
        directory: where the results of the run lie; an observer may keep files of its own in it.

    Example: put up a progress bar of `len(cells)`; keep `directory / "tracker"` to write to.
    """


@hookspec
def cell_started(cell: Cell) -> None:
    """Observe that a cell starts. An observer that raises is reported and never harms the cell.

    Example: open a run in a tracker under `cell.cell_id`.
    """


@hookspec
def cell_progressed(cell: Cell, step: int, loss: float) -> None:
    """Observe training, about twice a second. An observer that raises is reported and never harms the cell.

    Args:
        cell: the cell under way.
        step: optimizer steps taken so far.
        loss: nats per character of a recent batch.

    Example: move a progress bar.
    """


@hookspec
def cell_validated(cell: Cell, step: int, scores: Mapping[str, float]) -> None:
    """Observe a validation. An observer that raises is reported and never harms the cell.

    Args:
        cell: the cell under way.
        step: optimizer steps taken so far.
        scores: a row of the cell's `history.jsonl`: metrics on the validation split, loss, learning rate.

    Example: log `scores` to a tracker.
    """


@hookspec
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Observe that a cell has its record, whatever its status. An observer that raises harms nothing.

    Example: print one line.
    """


# Reporting.


@hookspec
def report_columns(record: RunRecord) -> Mapping[str, object]:
    """Add columns to the tidy frame and to `cells.csv`.

    Called for every record when a frame is built, without torch and without the weights. A column that
    exists already is refused.

    Returns: column names and values. None means none.

    Example: `return {"kept_step": record.kept_step}`
    """
