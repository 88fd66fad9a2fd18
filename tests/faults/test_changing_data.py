"""Data that change: before images are decoded, meanwhile, during training, and between two runs."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.folders import opened
from helpers.training import train
from PIL import Image

from decoderbench import DataError, Experiment, Registry, hookimpl
from decoderbench.data.image_cache import compute_data_hash, open_store
from decoderbench.options import ImageOptions
from decoderbench.planning.inputs import read_inputs
from decoderbench_plugins.datasets.folder import Folder, dataset

OPTIONS = ImageOptions(height=16, width=32)
Change = Callable[[Path], None]


def draw(file: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 32), dtype=np.uint8)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 30 images with their labels in their names."""
    (tmp_path / "set").mkdir()
    for number in range(30):
        draw(tmp_path / "set" / f"{number % 2}{number // 2 % 2}_{number}.png", number)
    return tmp_path / "set"


def replace(folder: Path) -> None:
    draw(folder / "00_0.png", 99)


def delete(folder: Path) -> None:
    (folder / "00_0.png").unlink()


def append(folder: Path) -> None:
    draw(folder / "11_99.png", 99)


def truncate(folder: Path) -> None:
    (folder / "00_0.png").write_bytes((folder / "00_0.png").read_bytes()[:90])


def label_anew(folder: Path) -> None:
    (folder / "00_0.png").rename(folder / "01_0.png")


CHANGES: list[Change] = [replace, delete, append, truncate, label_anew]


@pytest.fixture(params=["written just before", "old"])
def age(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written less than two seconds ago have no stamp; others have one."""
    if request.param == "old":
        later = time.time() + 60
        monkeypatch.setattr(dataset.time, "time", lambda: later)


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize(
    ("change", "allow_unreadable"), [(replace, False), (delete, True), (truncate, False), (truncate, True)]
)
def test_change_while_images_are_decoded_is_refused_and_nothing_is_cached(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, allow_unreadable: bool
) -> None:
    real, changed = Folder.load_image, list[bool]()

    def load_image(self: Folder, index: int) -> Image.Image:
        if index == 0 and not changed:
            change(folder)
            changed.append(True)
        return real(self, index)

    monkeypatch.setattr(Folder, "load_image", load_image)
    opened_before = opened(folder)
    samples = opened_before.samples()
    with pytest.raises(DataError, match=r"changed while|cannot be decoded|cannot be read"):
        open_store(
            opened_before,
            samples,
            OPTIONS,
            cache_dir=tmp_path / "cache",
            workers=1,
            allow_unreadable=allow_unreadable,
        )
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if not path.suffix]


@pytest.mark.usefixtures("age")
@pytest.mark.parametrize("change", [replace, delete, append])
def test_change_after_labels_were_read_is_refused_or_ignored_as_a_whole(
    folder: Path, tmp_path: Path, registry: Registry, tiny: dict[str, Any], change: Change
) -> None:
    tiny["dataset"] = {"use": "folder", "path": str(folder)}
    inputs = read_inputs(Experiment(**tiny), registry, base_dir=Path(), cache_dir=tmp_path / "cache")
    change(folder)
    if change is append:  # it was not there when the folder was listed
        assert len(inputs.images) == 30
    else:
        with pytest.raises(DataError, match=r"changed|cannot be read"):
            inputs.images  # noqa: B018 - the access decodes them


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_have_another_hash_and_a_copy_has_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    def data_hash(where: Path = folder) -> str:
        return compute_data_hash(opened(where), OPTIONS, cache_dir=tmp_path / "cache")

    later = time.time() + 60
    monkeypatch.setattr(dataset.time, "time", lambda: later)  # with stamps, which must not hide the change
    before = data_hash()
    shutil.copytree(folder, tmp_path / "copy")
    change(folder)
    assert data_hash() != before
    assert data_hash(tmp_path / "copy") == before


class ChangesData:
    """An observer that changes the data once the first cell is being trained."""

    def __init__(self, folder: Path, change: Change) -> None:
        self.folder, self.change = folder, change

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        if self.change:
            self.change(self.folder)


@pytest.mark.slow
@pytest.mark.parametrize("change", [replace, delete, append])
def test_change_during_training_changes_no_result_and_trains_new_cells_in_the_next_run(
    folder: Path,
    tmp_path: Path,
    tiny: dict[str, Any],
    tiny_registry: Registry,
    caplog: pytest.LogCaptureFixture,
    change: Change,
) -> None:
    tiny["dataset"] = {"use": "folder", "path": str(folder)}
    tiny["grid"]["decoder"] = {"ctc": {"use": "lstm_ctc", "hidden_dim": 8}}
    tiny["training"] |= {"steps": 2, "validate_every": 2}
    unchanged = train(tiny, tiny_registry, tmp_path / "unchanged")
    observer = ChangesData(folder, change)
    tiny_registry.plugins.add(observer, "changes data")
    during = train(tiny, tiny_registry, tmp_path / "out")
    tiny_registry.plugins.manager.unregister(observer)
    assert during["cell_id"].tolist() == unchanged["cell_id"].tolist()
    assert predictions(tmp_path / "out", during).equals(predictions(tmp_path / "unchanged", unchanged))
    with caplog.at_level("INFO"):
        after = train(tiny, tiny_registry, tmp_path / "out")
    assert after["status"].tolist() == ["done"]
    assert after["cell_id"].tolist() != during["cell_id"].tolist()
    assert "results of earlier settings in" in caplog.text
    assert "not in this table: 1; the data have changed" in caplog.text


def predictions(results: Path, frame: pd.DataFrame) -> pd.DataFrame:
    (cell_id,) = frame["cell_id"]
    return pd.read_parquet(results / "cells" / cell_id / "predictions.parquet")
