"""TensorBoard as a tracker: each cell is a TensorBoard run, so curves and final numbers can be compared.

decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.tensorboard
tensorboard --logdir results/quickstart
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from decoderbench import hookimpl

try:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams
except ImportError as error:
    raise ImportError(f"tracker tensorboard needs TensorBoard; install decoderbench[tensorboard] ({error})") from error

if TYPE_CHECKING:
    from decoderbench import Cell, RunRecord


class TensorBoardTracker:
    """Writes the cells of one run to the folder `tensorboard` beside the results."""

    def __init__(self) -> None:
        self.folder = Path()
        self.writer: SummaryWriter | None = None  # of the current cell

    @hookimpl
    def run_started(self, directory: Path) -> None:
        """Store the folder of this run."""
        self.folder = directory / "tensorboard"

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Open the cell's folder and delete the curves of an interrupted or failed attempt."""
        self.close()
        shutil.rmtree(self.folder / cell.cell_id, ignore_errors=True)
        self.writer = SummaryWriter(str(self.folder / cell.cell_id))

    @hookimpl
    def cell_validated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Add a point to each curve, except for undefined scores."""
        if self.writer is None:
            return  # `cell_started` failed, and that has been reported
        for name, score in scores.items():
            if name != "step" and score is not None:
                self.writer.add_scalar(name, score, step)
        self.writer.flush()

    @hookimpl
    def cell_finished(self, cell: Cell, record: RunRecord) -> None:
        """Add the stages and final numbers of the cell, or the reason why there are none."""
        if self.writer is None:
            return
        if record.status == "done":
            self._write_final(self.writer, cell, record)
        else:
            self.writer.add_text(record.status, f"{cell.title}: {record.reason}")
        self.close()

    @hookimpl
    def run_finished(self) -> None:
        """Close the folder if the run was interrupted during a cell."""
        self.close()

    def close(self) -> None:
        """Close the folder of the current cell, if one is open."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    def _write_final(self, writer: SummaryWriter, cell: Cell, record: RunRecord) -> None:
        stages = dict(zip(("rectifier", "encoder", "bridge", "decoder", "setting"), cell.variant, strict=True))
        final = {f"{record.cell.scored_split}/{name}": value for name, value in record.metrics.items()}
        costs = record.cost.model_dump(exclude={"latency_ms_by_length"})
        final |= {f"cost/{name}": value for name, value in costs.items()}
        # TensorBoard takes the columns of its table from one of the cells, so each cell has all of them.
        numbers = {name: math.nan if value is None else value for name, value in final.items()}
        # Written directly, because `add_hparams` would open a run of its own.
        for summary in hparams(stages | {"seed": cell.seed}, numbers):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # torch declares it as None
        for name, value in numbers.items():
            writer.add_scalar(name, value, record.kept_step)


@hookimpl
def register_observers() -> Iterable[object]:
    """Create the tracker of one run."""
    return [TensorBoardTracker()]
