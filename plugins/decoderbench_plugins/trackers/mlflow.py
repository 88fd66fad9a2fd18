"""MLflow as a tracker: each attempt to train a cell is a run of the MLflow experiment that is named as the experiment.

    decoderbench run experiments/quickstart.toml -p decoderbench_plugins.trackers.mlflow

Where it tracks is MLflow's own setting, MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
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

MOST_PARAMS = 100  # in one request
under_way = SimpleNamespace(client=None, directory="", run_id=None)


@hookimpl
def run_started(directory: Path) -> None:
    """Connect; what another run in this process left open is closed as killed."""
    close("KILLED")
    under_way.client = None  # if connecting fails
    under_way.client, under_way.directory = MlflowClient(), str(directory.absolute())


@hookimpl
def cell_started(cell: Cell) -> None:
    """Open a run, and close as killed what attempts of this cell in this folder, whose process died, left open."""
    close("KILLED")
    client: MlflowClient | None = under_way.client
    if client is None:
        return  # which was reported when the run started
    experiment = client.get_experiment_by_name(cell.experiment)
    place = client.create_experiment(cell.experiment) if experiment is None else experiment.experiment_id
    for left in client.search_runs([place], f"tags.cell_id = '{cell.cell_id}' and attributes.status = 'RUNNING'"):
        if left.data.tags["results"] == under_way.directory:
            client.set_terminated(left.info.run_id, "KILLED")
    tags = {"cell_id": cell.cell_id, "variant": cell.variant_title, "results": under_way.directory}
    under_way.run_id = client.create_run(place, run_name=cell.title, tags=tags).info.run_id
    flat = pd.json_normalize(cell.model_dump(mode="json")).iloc[0].dropna()  # a.b.c for tables in tables
    params = [Param(str(name), str(value)) for name, value in flat.items()]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(under_way.run_id, params=params[start : start + MOST_PARAMS])


@hookimpl
def cell_validated(step: int, scores: Mapping[str, float | None]) -> None:
    """Add a point to each curve."""
    if under_way.run_id is None:
        return  # it could not be opened, which was reported then
    log(scores, step)


@hookimpl
def cell_finished(cell: Cell, record: RunRecord) -> None:
    """Add the final numbers, or why there are none, and close the run."""
    if record.status == "infeasible":
        cell_started(cell)  # nobody else calls it: such a cell is not run
    if under_way.run_id is None:
        return
    log({f"test/{name}": value for name, value in record.metrics.items()}, record.kept_step or 0)
    log({f"cost/{name}": value for name, value in record.cost.model_dump().items()}, record.kept_step or 0)
    for name, text in (("status", record.status), ("reason", record.reason)):
        under_way.client.set_tag(under_way.run_id, name, text)
    close("FINISHED" if record.status == "done" else "FAILED")


def log(numbers: Mapping[str, float | None], step: int) -> None:
    """Add a point for each number that is defined."""
    now = round(time.time() * 1000)  # milliseconds
    metrics = [
        Metric(name, value, now, step) for name, value in numbers.items() if name != "step" and value is not None
    ]
    under_way.client.log_batch(under_way.run_id, metrics=metrics)


def close(status: str) -> None:
    """Close the run that is open, if one is."""
    run_id, under_way.run_id = under_way.run_id, None
    if run_id is not None:
        under_way.client.set_terminated(run_id, status)


atexit.register(close, "KILLED")  # interrupted in the middle of a cell
