"""MLflow as a tracker: each attempt to train a cell is an MLflow run, in an MLflow experiment of the experiment's name.

    decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.mlflow

MLflow's own setting MLFLOW_TRACKING_URI determines where runs are stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from decoderbench import hookimpl

try:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
except ImportError as error:
    raise ImportError(f"tracker mlflow needs MLflow; install decoderbench[mlflow] ({error})") from error

if TYPE_CHECKING:
    from decoderbench import Cell, RunRecord

MAX_PARAMS = 100  # per request


class MLflowTracker:
    """Sends the cells of one run to MLflow."""

    def __init__(self) -> None:
        self.client: MlflowClient | None = None  # None until connected
        self.directory = ""
        self.run_id: str | None = None  # of the current cell

    @hookimpl
    def run_started(self, directory: Path) -> None:
        """Connect to MLflow."""
        self.client, self.directory = MlflowClient(), str(directory.absolute())

    @hookimpl
    def cell_started(self, cell: Cell) -> None:
        """Open an MLflow run for the cell.

        Runs that earlier attempts at this cell in this results directory left open are closed as killed: their process
        died.
        """
        self.close("KILLED")
        if self.client is None:
            return  # `run_started` failed, and that has been reported
        found = self.client.get_experiment_by_name(cell.experiment)
        experiment_id = self.client.create_experiment(cell.experiment) if found is None else found.experiment_id
        query = f"tags.cell_id = '{cell.cell_id}' and attributes.status = 'RUNNING'"
        for earlier in self.client.search_runs([experiment_id], query):
            if earlier.data.tags["results"] == self.directory:
                self.client.set_terminated(earlier.info.run_id, "KILLED")
        tags = {"cell_id": cell.cell_id, "variant": cell.variant_title, "results": self.directory}
        self.run_id = self.client.create_run(experiment_id, run_name=cell.title, tags=tags).info.run_id
        flat = pd.json_normalize(cell.model_dump(mode="json")).iloc[0].dropna()  # nested tables become a.b.c
        params = [Param(str(name), str(value)) for name, value in flat.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])

    @hookimpl
    def cell_validated(self, step: int, scores: Mapping[str, float | None]) -> None:
        """Add a point to each curve."""
        self._log(scores, step)

    @hookimpl
    def cell_finished(self, record: RunRecord) -> None:
        """Add the final numbers, or the reason why there are none, and close the MLflow run."""
        if self.client is None or self.run_id is None:
            return
        final = {f"{record.cell.scored_split}/{name}": value for name, value in record.metrics.items()}
        costs = record.cost.model_dump(exclude={"latency_ms_by_length"})
        final |= {f"cost/{name}": value for name, value in costs.items()}
        self._log(final, record.kept_step or 0)
        for name, text in (("status", record.status), ("reason", record.reason)):
            self.client.set_tag(self.run_id, name, text)
        self.close("FINISHED" if record.status == "done" else "FAILED")

    @hookimpl
    def run_finished(self) -> None:
        """Close the MLflow run as killed if the run was interrupted during a cell."""
        self.close("KILLED")

    def close(self, status: str) -> None:
        """Close the MLflow run of the current cell, if one is open."""
        run_id, self.run_id = self.run_id, None
        if self.client is not None and run_id is not None:
            self.client.set_terminated(run_id, status)

    def _log(self, numbers: Mapping[str, float | None], step: int) -> None:
        """Add a point for each defined number."""
        if self.client is None or self.run_id is None:
            return  # `cell_started` failed, and that has been reported
        now = round(time.time() * 1000)  # milliseconds
        metrics = [
            Metric(name, value, now, step) for name, value in numbers.items() if name != "step" and value is not None
        ]
        self.client.log_batch(self.run_id, metrics=metrics)


@hookimpl
def register_observers() -> Iterable[object]:
    """Create the tracker of one run."""
    return [MLflowTracker()]
