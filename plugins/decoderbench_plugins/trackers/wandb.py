"""Weights & Biases as a tracker: each attempt to train a cell is a W&B run in a project named after the experiment.

    decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.wandb

Runs are grouped by variant: the seeds of one row of the table. W&B's own settings apply, such as WANDB_MODE=offline. If
the process dies, W&B marks the run as crashed; the next attempt at the cell is a new run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from decoderbench import hookimpl

try:
    import wandb
except ImportError as error:
    raise ImportError(f"tracker wandb needs Weights & Biases; install decoderbench[wandb] ({error})") from error

if TYPE_CHECKING:
    from decoderbench import Cell, RunRecord

MAX_NAME_LENGTH = 128  # the server refuses longer names


class WandbTracker:
    """Sends the cells of one run to W&B, whose local files are in the results directory."""

    def __init__(self) -> None:
        self.directory = Path()
        self.run: wandb.Run | None = None  # of the current cell

    @hookimpl
    def run_started(self, directory: Path) -> None:
        """Store the folder for W&B's local files."""
        self.directory = directory.absolute()

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Open a W&B run for the cell, without closing other runs of this process.

        The terminal output is not copied to it, because it is about the whole grid.
        """
        self.close(exit_code=1)
        self.run = wandb.init(
            project=cell.experiment,
            name=cell.title[:MAX_NAME_LENGTH],
            group=cell.variant_title[:MAX_NAME_LENGTH],
            dir=str(self.directory),
            config={"cell_id": cell.cell_id, **cell.model_dump(mode="json")},
            reinit="create_new",
            settings=wandb.Settings(console="off", quiet=True),
        )

    @hookimpl
    def cell_validated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Add a point to each curve, except for undefined scores."""
        if self.run is None:
            return  # `cell_started` failed, and that has been reported
        self.run.log({name: score for name, score in scores.items() if name != "step" and score is not None}, step=step)

    @hookimpl
    def cell_finished(self, record: RunRecord) -> None:
        """Add the final numbers, or the reason why there are none, to the summary and close the W&B run."""
        if self.run is None:
            return
        final = {f"{record.cell.scored_split}/{name}": value for name, value in record.metrics.items()}
        costs = record.cost.model_dump(exclude={"latency_ms_by_length"})
        final |= {f"cost/{name}": value for name, value in costs.items()}
        numbers = {name: value for name, value in final.items() if value is not None}
        self.run.summary.update({"status": record.status, "reason": record.reason, **numbers})
        self.close(exit_code=0 if record.status == "done" else 1)

    @hookimpl
    def run_finished(self) -> None:
        """Close the W&B run as failed if the run was interrupted during a cell."""
        self.close(exit_code=1)

    def close(self, exit_code: int) -> None:
        """Close the W&B run of the current cell, if one is open."""
        run, self.run = self.run, None
        if run is not None:
            run.finish(exit_code=exit_code)


@hookimpl
def register_observers() -> Iterable[object]:
    """Create the tracker of one run."""
    return [WandbTracker()]
