"""`reproduce`: a finished cell trained again from what its results state, and whether the same comes out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.running import to_toml
from helpers.small_grid import write_images
from PIL import Image

from decoderbench.files.integrity import DIGEST, seal
from decoderbench.records.results_directory import ResultsDirectory

PLUGIN = '''\
"""An encoder of one convolution, whose first weights depend on the environment, as no component's should."""

import os

from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl


class Moody(Encoder):
    """Stride 4 in both directions, eight channels."""

    name = "moody"

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.conv = nn.Conv2d(image.channels, 8, 4, 4)
        nn.init.constant_(self.conv.bias, float(os.environ.get("MOOD", "0")))
        self.features = FeatureMapSpec(channels=8, height=image.height // 4, width=image.width // 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()


@hookimpl
def register_encoders() -> list[type[Encoder]]:
    return [Moody]
'''

EXPERIMENT: dict[str, Any] = {
    "name": "moods",
    "dataset": {"use": "folder", "path": "data"},
    "image": {"height": 16, "width": 32},
    "training": {"steps": 6, "batch_size": 8, "validate_every": 3, "precision": "float32"},
    "grid": {
        "seeds": [0, 1],
        "encoder": {"moody": {"use": "moody"}},
        "bridge": {"columns": {"use": "mean_height"}},
        "decoder": {"ctc": {"use": "lstm_ctc", "hidden_dim": 8}},
    },
}
RUN = ("--device", "cpu", "--executor", "inline", "-p", "moody.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a plugin, an experiment, and the results of its run in `results/moods`."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder)
    (folder / "moody.py").write_text(PLUGIN)
    (folder / "moods.toml").write_text(to_toml(EXPERIMENT))
    from helpers.commands import run_command

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("run", "moods.toml", "--set", "training.learning_rate=0.01", *RUN) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, elsewhere than it was trained, as the working directory."""
    shutil.copytree(trained, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    return tmp_path / "moved"


def cell_ids(results: str = "results/moods") -> list[str]:
    return [cell.cell_id for cell in ResultsDirectory(results).read_plan().cells]


def test_number_comes_back_with_the_same_weights(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = cell_ids()
    status, out, err = call(capfd, "reproduce", "results/moods", "--cell", second, *RUN)
    assert status == 0, err
    assert "moody / columns / ctc / seed 1, 20" in out
    assert "all 10 test images are read as before" in out
    assert "weights: the same to the last bit" in out
    assert out.endswith("the number came back\n")
    again = ResultsDirectory(f"results/moods/reproduced/{second}")
    assert [cell.cell_id for cell in again.read_plan().cells] == [second]  # and not the other seed
    assert again.read_plan().cells[0].training.learning_rate == 0.01  # which --set had given
    assert cell_ids() == [first, second]


def test_other_texts_are_counted_and_the_status_is_1(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOOD", "-1e9")  # no feature is ever above zero
    status, out, err = call(capfd, "reproduce", "results/moods", "--cell", cell_ids()[0], "--into", "again", *RUN)
    assert status == 1
    assert "weights: others" in out
    read = {name: ResultsDirectory(name).read_plan().cells[0] for name in ("results/moods", "again")}
    texts = [_texts(Path(name) / "cells" / cell.cell_id / "predictions.parquet") for name, cell in read.items()]
    changed = sum(before != after for before, after in zip(*texts, strict=True))
    said = f"{changed} of 10 test images are read otherwise" if changed else "all 10 test images are read as before"
    assert changed
    assert said in out
    assert "the number did not come back; the new training is in again" in err


def _texts(file: Path) -> list[str]:
    from pyarrow import parquet

    texts: list[str] = parquet.read_table(file)["hypothesis"].to_pylist()
    return texts


def test_what_has_changed_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--cell", cell_ids()[0], *RUN)
    file = place / "data" / "images" / "4.png"
    before = file.read_bytes()
    Image.linear_gradient("L").rotate(45).resize((32, 16)).save(file)
    status, _, err = call(capfd, "reproduce", "results/moods", *options)
    assert (status, "cannot be trained again as it was: the images differ" in err) == (3, True), err
    file.write_bytes(before)
    (place / "moody.py").write_text(PLUGIN.replace(".relu()", ".relu() * 2"))
    status, _, err = call(capfd, "reproduce", "results/moods", *options)
    assert status == 3
    assert "the source code of encoder 'moody' differs" in err
    assert not (place / "results" / "moods" / "reproduced").exists()


def test_folder_of_data_elsewhere(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "elsewhere").mkdir()
    (place / "data").rename(place / "elsewhere" / "data")
    options = ("reproduce", "results/moods", "--cell", cell_ids()[0], *RUN)
    status, _, err = call(capfd, *options)
    assert status == 3
    assert "data" in err
    status, out, err = call(capfd, *options, "--base-dir", "elsewhere")
    assert (status, "the number came back" in out) == (0, True), err


def test_folder_whose_name_is_no_text(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = os.fsdecode(b"caf\xe9")
    (place / "data").rename(place / folder)
    (place / "moods.toml").write_text(to_toml(EXPERIMENT | {"grid": EXPERIMENT["grid"] | {"seeds": [0]}}))
    run = ("run", "moods.toml", "--results", "results/other", "--set", f"dataset.path={folder}", *RUN)
    status, _, err = call(capfd, *run)
    assert status == 0, err
    status, out, err = call(capfd, "reproduce", "results/other", "--cell", cell_ids("results/other")[0], *RUN)
    assert (status, "the number came back" in out) == (0, True), err


def test_cell_that_cannot_be_compared(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = cell_ids()
    common = first[: len("moody-mean-height-lstm-ctc-seed-")]
    for wanted, said in (
        (common, "begins the ids of 2 cells; give more of it"),
        (first[:-1] + "x", "no cell has this id; did you mean"),
    ):
        status, _, err = call(capfd, "reproduce", "results/moods", "--cell", wanted, *RUN)
        assert (status, said in err) == (2, True), err
    (place / "results" / "moods" / "cells" / second / "result.json").unlink()
    status, _, err = call(capfd, "reproduce", "results/moods", "--cell", second, *RUN)
    assert (status, "it has no result yet" in err) == (2, True), err
    status, _, err = call(capfd, "reproduce", "results/none", "--cell", second, *RUN)
    assert status == 3


def test_plan_of_an_earlier_version_does_not_state_the_experiment(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = cell_ids()[0]
    file = place / "results" / "moods" / "plan.json"
    plan = json.loads(file.read_bytes())
    for key in ("definition", DIGEST):
        del plan[key]
    file.write_bytes(seal(plan))
    status, _, err = call(capfd, "reproduce", "results/moods", "--cell", first, *RUN)
    assert (status, "its plan does not state the experiment; give the run command again" in err) == (3, True), err
    again = ("run", "moods.toml", "--set", "training.learning_rate=0.01", *RUN)
    assert call(capfd, *again)[0] == 0
    assert call(capfd, "reproduce", "results/moods", "--cell", first, *RUN)[0] == 0


def test_tuned_cell_is_trained_with_what_was_chosen_and_without_trials(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tuned = EXPERIMENT | {"tuning": {"over": {"training.learning_rate": [1e-3, 1e-2]}, "seeds": [7], "steps": 2}}
    (place / "tuned.toml").write_text(to_toml(tuned))
    assert call(capfd, "run", "tuned.toml", "--results", "results/tuned", *RUN)[0] == 0
    first = cell_ids("results/tuned")[0]
    status, out, err = call(capfd, "reproduce", "results/tuned", "--cell", first, *RUN)
    assert (status, "weights: the same to the last bit" in out) == (0, True), err
    assert [path.name for path in (place / "results/tuned/reproduced" / first / "cells").iterdir()] == [first]
