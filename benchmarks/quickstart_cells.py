"""The cells of `quickstart.toml`, or others on its images, as trainers: what the benchmarks of training measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.config.merging import merge
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.planning.prepare import prepare
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.local_context import LocalContext
from decoderbench.training.trainer import Trainer

QUICKSTART = Path(__file__).parents[1] / "experiments" / "quickstart.toml"
MANY, FEW = 2048, 128


@dataclass(frozen=True)
class Cells:
    """The feasible cells of an experiment, by the label of their decoder, and their dataset on a device."""

    by_decoder: dict[str, Cell]
    registry: Registry
    dataset: ResidentDataset

    def trainer(self, cell: Cell) -> Trainer:
        """Return a trainer that has taken no step. It writes no files."""
        return Trainer(cell, LocalContext(cell, self.registry, self.dataset, Path("unused"), environment={}))


@cache
def installed_components() -> Registry:
    return Registry(build_plugin_manager())


def load_cells(device: torch.device, *, small: bool, grid: dict[str, Any] | None = None) -> Cells:
    """Return the cells of quickstart, or those of another grid, on many or few training images."""
    data = merge(
        load_experiment(QUICKSTART).as_given(), {"dataset": {"train": FEW if small else MANY, "val": 10, "test": 10}}
    )
    if grid is not None:
        data["grid"] = grid
    registry = installed_components()
    prepared = prepare(Experiment(**data), registry=registry)
    dataset = ResidentDataset(prepared.inputs.images, prepared.inputs.audit, device)
    feasible = {cell.decoder.label: cell for cell in prepared.cells if not cell.infeasible}
    return Cells(feasible, registry, dataset)
