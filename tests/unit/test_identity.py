"""A cell's id: what it is made of, and that no change of the code moves it unseen."""

from pathlib import Path

from decoderbench.config.experiment import AXES, load_experiment
from decoderbench.planning.grid import plan_cells, read_data
from decoderbench.registry.registry import Registry

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

IDS = {
    "timm-cnn-mean-height-lstm-cell-seed-0-6b1d68b75a7f",
    "timm-cnn-mean-height-lstm-ctc-seed-0-15ff752347b7",
    "timm-cnn-mean-height-attention-lstm-seed-0-a93100c56894",
    "timm-cnn-mean-height-lstm-ctc-seed-0-64a6bb88129c",
    "timm-cnn-mean-height-lstm-cell-seed-0-be27d7b1e98e",
    "timm-cnn-mean-height-lstm-cell-seed-1-c0c176ae497c",
    "timm-cnn-mean-height-lstm-cell-seed-2-9cb510ab55b5",
    "timm-cnn-mean-height-lstm-cell-seed-0-c6980e424312",
    "timm-cnn-mean-height-lstm-cell-seed-1-5aede30be9f2",
    "timm-cnn-mean-height-lstm-cell-seed-2-12d18ffdd5f6",
}


def test_ten_cell_ids_stay_as_they_are(registry: Registry) -> None:
    found = set()
    for name in ("quickstart", "question"):
        file = EXPERIMENTS / f"{name}.toml"
        experiment = load_experiment(file)
        cells = plan_cells(experiment, registry, read_data(experiment, registry, base_dir=file.parent, cache_dir=None))
        for cell in cells[:6]:
            # The sources of components and the libraries that draw the images have tests of their own.
            parts = {axis: getattr(cell, axis).model_copy(update={"source": "0" * 16}) for axis in AXES}
            found.add(cell.model_copy(update=parts | {"data_hash": "0" * 64}).cell_id)
    assert found == IDS
