"""TensorBoard as a tracker: each cell is one of its runs, so that curves and final numbers can be compared.

decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.tensorboard
tensorboard --logdir results/quickstart
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from decoderbench import hookimpl

try:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams
except ImportError as error:
    raise ImportError(f"tracker tensorboard needs TensorBoard; install decoderbench[tensorboard] ({error})") from error

if TYPE_CHECKING:
    from decoderbench import Cell, RunRecord

under_way = SimpleNamespace(folder=Path(), writer=None)  # where the cells of this run go, and the one that is open


@hookimpl
def run_started(directory: Path) -> None:
    """Take the folder of this run; what another run in this process left open is closed."""
    under_way.folder = directory / "tensorboard"
    close()


@hookimpl
def cell_started(cell: Cell) -> None:
    """Start the cell's curves anew: those of an attempt that was cut off, or failed, would run into them."""
    close()
    shutil.rmtree(under_way.folder / cell.cell_id, ignore_errors=True)
    under_way.writer = SummaryWriter(str(under_way.folder / cell.cell_id))


@hookimpl
def cell_validated(step: int, scores: Mapping[str, float | None]) -> None:
    """Add a point to each curve; a score that is not defined has none."""
    if under_way.writer is None:
        return  # it could not be opened, which was reported then
    for name, score in scores.items():
        if name != "step" and score is not None:
            under_way.writer.add_scalar(name, score, step)
    under_way.writer.flush()


@hookimpl
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Add what the cell is and its final numbers, or why there are none."""
    if record.status == "infeasible":
        cell_started(cell)  # nobody else calls it: such a cell is not run
    if under_way.writer is None:
        return
    if record.status != "done":
        under_way.writer.add_text(record.status, f"{cell.title}: {record.reason}")
    else:
        stages = dict(zip(("rectifier", "encoder", "bridge", "decoder"), cell.variant, strict=True))
        final = {f"test/{name}": value for name, value in record.metrics.items()}
        final |= {f"cost/{name}": value for name, value in record.cost.model_dump().items()}
        # The table takes its columns from one of the cells, so each has all of them.
        numbers = {name: math.nan if value is None else value for name, value in final.items()}
        # Written by hand, as add_hparams opens a run of its own for them.
        for summary in hparams(stages | {"seed": cell.seed}, numbers):  # type: ignore[no-untyped-call]
            under_way.writer.file_writer.add_summary(summary)
        for name, value in numbers.items():
            under_way.writer.add_scalar(name, value, record.kept_step)
    close()


def close() -> None:
    """Close the cell that is open, if one is."""
    writer, under_way.writer = under_way.writer, None
    if writer is not None:
        writer.close()
