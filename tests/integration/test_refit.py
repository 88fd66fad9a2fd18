"""`pack --refit`: one more training on all images; its accuracy is that of the folds, and it says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import call
from helpers.folders import make, table
from helpers.running import TINY_PLUGIN, to_toml
from PIL import Image
from pyarrow import parquet

from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.records.pack import read_pack
from decoderbench.records.results_directory import ResultsDirectory

RUN = ("--device", "cpu", "--executor", "inline", "-p", str(TINY_PLUGIN))
EXPERIMENT: dict[str, Any] = {
    "name": "folded",
    "dataset": {"use": "folder", "path": "data", "folds": 3, "fractions": [0.5, 0.2, 0.3]},
    "image": {"height": 16, "width": 32},
    "training": {"steps": 6, "batch_size": 8, "validate_every": 3, "precision": "float32"},
    "grid": {
        "seeds": [0],
        "encoder": {"tiny": {"use": "tiny_cnn"}},
        "bridge": {"columns": {"use": "mean_height"}},
        "decoder": {
            "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
            "attention": {"use": "attention_lstm", "hidden_dim": 8},
        },
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 images and the results of three folds in `results/folded`."""
    from helpers.commands import run_command

    folder = tmp_path_factory.mktemp("folds")
    names = [f"{number}.png" for number in range(30)]
    table(make(folder / "data", names), [[name, "01"[index % 2]] for index, name in enumerate(names)])
    for number, name in enumerate(names):
        Image.linear_gradient("L").rotate(12 * number).resize((32, 16)).save(folder / "data" / "images" / name)
    (folder / "folded.toml").write_text(to_toml(EXPERIMENT))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command("run", "folded.toml", *RUN) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    return tmp_path / "moved"


def test_refit_is_trained_on_all_images_and_its_card_has_the_accuracy_of_the_folds(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[set[int]] = []
    sampler = ResidentDataset.sampler

    def noting(self: ResidentDataset, batch_size: int, seed: int) -> Any:
        seen.append(set(self.rows("train").tolist()))
        return sampler(self, batch_size, seed)

    monkeypatch.setattr(ResidentDataset, "sampler", noting)
    title = "tiny / columns / ctc"
    status, out, err = call(capfd, "pack", "results/folded", "reader.zip", "--refit", "--row", title, *RUN)
    assert status == 0, err
    assert seen == [set(range(30))]
    assert "pack: reader.zip" in out
    assert (
        f"row        {title}\nmodel      trained on all images, with the options and the seed of seed 0 / fold" in err
    )
    pack = read_pack(Path("reader.zip"))
    cell = pack.manifest.cell
    assert (cell.purpose, cell.training.keep) == ("refit", "last")
    assert pack.manifest.metrics == {}
    assert "this model was trained on all images, so none is left to test it" in pack.card
    assert "| this model" not in pack.card
    assert "its row, 1 of 1 seeds" in pack.card
    # Its confidence is that of the folds: each image as the model read it that was not trained on it.
    folds = [
        parquet.read_table(f"results/folded/cells/{other.cell_id}/predictions.parquet").to_pandas()
        for other in ResultsDirectory("results/folded").read_plan().cells
        if other.decoder.label == "ctc"
    ]
    expected = np.concatenate([frame["text_log_prob"] for frame in folds])
    assert len(expected) == 30
    assert sorted(pack.manifest.validation_log_prob) == pytest.approx(sorted(expected))
    refit = ResultsDirectory(f"results/folded/refit/{cell.cell_id}")
    assert "no score of this table says anything" in (refit.path / "report.md").read_text()
    before = Path("reader.zip").read_bytes()
    assert call(capfd, "pack", "results/folded", "reader.zip", "--refit", "--row", title, *RUN)[0] == 0
    assert len(seen) == 1, "what was trained on all images is not trained again"
    assert Path("reader.zip").read_bytes() == before


def test_refit_reads_and_refuses_a_bound_that_no_image_gives(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "pack", "results/folded", "reader.zip", "--refit", *RUN)
    assert status == 0, err
    options = ("predict", "reader.zip", "data/images", "--device", "cpu", "-p", str(TINY_PLUGIN))
    status, out, err = call(capfd, *options)
    assert (status, out.count("\n")) == (0, 30), err
    assert "model      trained on all images; confidence by the models of the folds, which were not" in err
    assert "test images of the folds" in err
    status, _, err = call(capfd, *options, "--reject", "0.5")
    assert (status, "this one was trained on all; pack the model of a fold" in err) == (2, True), err


def test_refit_that_makes_no_sense_is_refused(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (("--refit", "--every-row"), "--refit: trains one row on all images; omit --every-row and --cell"),
        (("--threads", "2"), "--threads: only --refit trains; omit it"),
    ):
        status, _, err = call(capfd, "pack", "results/folded", "reader.zip", *options)
        assert (status, said in err) == (2, True), err
    split = EXPERIMENT | {
        "name": "split",
        "dataset": {key: value for key, value in EXPERIMENT["dataset"].items() if key != "folds"},
    }
    (place / "split.toml").write_text(to_toml(split))
    assert call(capfd, "run", "split.toml", *RUN)[0] == 0
    status, _, err = call(capfd, "pack", "results/split", "reader.zip", "--refit", *RUN)
    assert (status, "--refit: is for experiments with folds" in err) == (2, True), err
    first = next(iter(sorted(Path("results/folded/cells").glob("tiny-cnn-mean-height-lstm-ctc-*fold-1*"))))
    (first / "result.json").unlink()
    status, _, err = call(
        capfd, "pack", "results/folded", "reader.zip", "--refit", "--row", "tiny / columns / ctc", *RUN
    )
    assert (status, "--refit: 2 of 3 folds have a result" in err) == (2, True), err
    assert not Path("reader.zip").exists()
