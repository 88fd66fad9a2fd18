"""The cells of the experiment files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.config.overrides import merge
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PlanCells = Callable[[str], tuple[Cell, ...]]


def cell_planner(registry: Registry) -> PlanCells:
    """Return a function that plans an experiment file by name; it plans each file once."""

    @cache
    def plan_cells(name: str) -> tuple[Cell, ...]:
        experiment = load_experiment(EXPERIMENTS / f"{name}.toml")
        if experiment.dataset.use == "rendered_words":  # drawing 100,000 texts takes seconds; 1000 show the same
            experiment = Experiment(**merge(experiment.as_given(), {"dataset": {"train": 1000}}))
        if experiment.image.resize == "keep":  # a probe of each width takes seconds; two widths show the same
            experiment = Experiment(**merge(experiment.as_given(), {"image": {"buckets": 2}}))
        return prepare(experiment, registry=registry, base_dir=EXPERIMENTS).cells

    return plan_cells
