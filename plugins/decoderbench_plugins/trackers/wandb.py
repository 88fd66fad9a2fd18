"""Weights & Biases as a tracker: each attempt to train a cell is a run of the project that is named as the experiment.

    decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.wandb

Runs are grouped by the row of the table that their seeds share. W&B's own settings hold, such as WANDB_MODE=offline. A
run whose process died W&B calls crashed; the cell's next attempt is a run of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from decoderbench import hookimpl

try:
    import wandb
except ImportError as error:
    raise ImportError(f"tracker wandb needs Weights & Biases; install decoderbench[wandb] ({error})") from error

if TYPE_CHECKING:
    from decoderbench import Cell, RunRecord

LONGEST_NAME = 128  # the server refuses longer ones
under_way = SimpleNamespace(directory=Path(), run=None)


@hookimpl
def run_started(directory: Path) -> None:
    """Take the folder that W&B may write to; what another run in this process left open is closed as failed."""
    close(exit_code=1)
    under_way.directory = directory.absolute()


@hookimpl
def cell_started(cell: Cell) -> None:
    """Open a run beside those that the user has open; the terminal shows the whole grid and is not copied to it."""
    close(exit_code=1)
    under_way.run = wandb.init(
        project=cell.experiment,
        name=cell.title[:LONGEST_NAME],
        group=cell.variant_title[:LONGEST_NAME],
        dir=str(under_way.directory),
        config={"cell_id": cell.cell_id, **cell.model_dump(mode="json")},
        reinit="create_new",
        settings=wandb.Settings(console="off", quiet=True),
    )


@hookimpl
def cell_validated(step: int, scores: Mapping[str, float | None]) -> None:
    """Add a point to each curve; a score that is not defined has none."""
    if under_way.run is None:
        return  # it could not be opened, which was reported then
    under_way.run.log(
        {name: score for name, score in scores.items() if name != "step" and score is not None}, step=step
    )


@hookimpl
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Add the final numbers, or why there are none, to the run's summary and close it."""
    if record.status == "infeasible":
        cell_started(cell)  # nobody else calls it: such a cell is not run
    if under_way.run is None:
        return
    final = {f"test/{name}": value for name, value in record.metrics.items()}
    final |= {f"cost/{name}": value for name, value in record.cost.model_dump().items()}
    numbers = {name: value for name, value in final.items() if value is not None}
    under_way.run.summary.update({"status": record.status, "reason": record.reason, **numbers})
    close(exit_code=0 if record.status == "done" else 1)


def close(exit_code: int) -> None:
    """Close the run that is open, if one is."""
    run, under_way.run = under_way.run, None
    if run is not None:
        run.finish(exit_code=exit_code)
