"""An experiment of four cells that take a second together, with its images in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from helpers.folders import make, table
from helpers.running import TINY_PLUGIN, to_toml

EXPERIMENT: dict[str, Any] = {
    "name": "grid",
    "dataset": {"use": "folder", "path": "data"},
    "image": {"height": 16, "width": 32},
    "training": {"steps": 6, "batch_size": 8, "validate_every": 3, "precision": "float32"},
    "grid": {
        "seeds": [0, 1],
        "encoder": {"tiny": {"use": "tiny_cnn"}},
        "bridge": {"columns": {"use": "mean_height"}},
        "decoder": {
            "loop": {"use": "lstm_cell", "hidden_dim": 8},
            "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
        },
    },
}
RUN = ("--device", "cpu", "--executor", "inline", "-p", str(TINY_PLUGIN))


def write_images(folder: Path) -> None:
    """Write `data`: 30 images of one character each, a third per split."""
    names = [f"{number}.png" for number in range(30)]
    rows = [[name, "01"[index % 2], ("train", "val", "test")[index % 3]] for index, name in enumerate(names)]
    table(make(folder / "data", names), rows, ("filename", "label", "split"))
    for number, name in enumerate(names):
        Image.linear_gradient("L").rotate(12 * number).resize((32, 16)).save(folder / "data" / "images" / name)


def write_grid(folder: Path, seeds: int = 2) -> None:
    """Write the experiment `grid.toml` and its images."""
    write_images(folder)
    (folder / "grid.toml").write_text(
        to_toml(EXPERIMENT | {"grid": EXPERIMENT["grid"] | {"seeds": list(range(seeds))}})
    )
