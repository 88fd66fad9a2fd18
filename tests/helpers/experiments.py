"""The cells of the experiment files, and a file of one cell that is quick to plan."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.config.merging import merge
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PlanCells = Callable[[str], tuple[Cell, ...]]

TINY_TOML = """\
name = "tiny"

[dataset]
use = "synthetic_captcha"
charset = "01"
min_length = 1
max_length = 2
train = 64
val = 16
test = 20
width = 80
height = 40

[image]
height = 16
width = 32

[training]
steps = 2
batch_size = 8
learning_rate = 2e-3

[grid]
seeds = [0]

[grid.encoder]
tiny = { use = "tiny_cnn" }

[grid.bridge]
columns = { use = "mean_height" }

[grid.decoder]
ctc = { use = "lstm_ctc", hidden_dim = 8 }
"""


def cell_planner(registry: Registry, folder: Path) -> PlanCells:
    """Return a function that plans an experiment file by name, once for all processes that are given the folder."""

    @cache
    def plan_cells(name: str) -> tuple[Cell, ...]:
        file = folder / f"{name}.cells"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                file.write_text("\n".join(cell.model_dump_json() for cell in _plan(name, registry)), encoding="utf-8")
        return tuple(map(Cell.model_validate_json, file.read_text(encoding="utf-8").split("\n")))

    return plan_cells


def _plan(name: str, registry: Registry) -> tuple[Cell, ...]:
    experiment = load_experiment(EXPERIMENTS / f"{name}.toml")
    drawn = "train" in experiment.dataset.options
    if experiment.dataset.use == "rendered_words" or (drawn and experiment.image.resize == "keep"):
        few = {"train": 400, "val": 100, "test": 200}  # to draw 100,000 images takes minutes; these show the same
        experiment = Experiment(**merge(experiment.as_given(), {"dataset": few}))
    if experiment.image.resize == "keep":  # a probe of each width takes seconds; two widths show the same
        experiment = Experiment(**merge(experiment.as_given(), {"image": {"buckets": 2}}))
    return prepare(experiment, registry=registry, base_dir=EXPERIMENTS).cells


def micro_experiment(*, train: int, val: int, steps: int) -> dict[str, Any]:
    """Return an experiment whose two cells train in a tenth of a second, as plain data; test is as large as val."""
    return {
        "name": "micro",
        "dataset": {
            "use": "synthetic_captcha",
            "charset": "01",
            "min_length": 1,
            "max_length": 1,
            "train": train,
            "val": val,
            "test": val,
            "width": 80,
            "height": 40,
        },
        "image": {"height": 16, "width": 32},
        "training": {"steps": steps, "batch_size": 4, "validate_every": steps // 2, "precision": "float32"},
        "grid": {
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"ctc": {"use": "lstm_ctc", "hidden_dim": 4}, "loop": {"use": "lstm_cell", "hidden_dim": 4}},
        },
    }
