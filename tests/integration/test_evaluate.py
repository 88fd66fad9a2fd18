"""Trained rows on other labeled images: a report as of a run, in which every label counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.running import TINY_PLUGIN
from helpers.training import train
from PIL import Image

from decoderbench import Registry, build_plugin_manager, load_recognizer, load_report
from decoderbench.records.results_directory import ResultsDirectory

PLUGIN = ("-p", str(TINY_PLUGIN))


def draw_lines(folder: Path, labels: list[str], seed: int) -> Path:
    """Write images of bars, one per character of their labels: bright for `a`, else dark."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    rows = ["filename,label"]
    for number, label in enumerate(labels):
        line = np.repeat([200 if character == "a" else 50 for character in label], 9)
        pixels = np.broadcast_to(line, (16, len(line))) + generator.integers(0, 40, (16, len(line)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{seed}-{number}.png")
        rows.append(f"{seed}-{number}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def words(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(["a", "b"], 1 + number % 5)) for number in range(count)]


@pytest.fixture(scope="module")
def own_registry() -> Registry:
    return Registry(build_plugin_manager([str(TINY_PLUGIN)]))


@pytest.fixture(scope="module")
def trained(own_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of images in `images` and the results in `results`."""
    top = tmp_path_factory.mktemp("trained")
    experiment = {
        "name": "lines",
        "dataset": {
            "use": "folder",
            "path": str(draw_lines(top / "images", words(60, 0), 0)),
            "fractions": [0.5, 0.25, 0.25],
        },
        "image": {"height": 16, "width": 48, "resize": "keep", "buckets": 3},
        "labels": {"normalize": {"case": "lower"}},
        "training": {"steps": 8, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0, 1],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {
                "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
                "attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4},
            },
        },
    }
    train(experiment, own_registry, top / "results")
    return top


@pytest.fixture
def others(tmp_path: Path) -> Path:
    return draw_lines(tmp_path / "others", [*words(30, 1), "aB", "axb", "äb"], 1)


def evaluate(
    capfd: pytest.CaptureFixture[str], source: Path, images: Path, results: Path, *options: str
) -> tuple[int, str, str]:
    where = "--results", str(results), "--device", "cpu", *PLUGIN
    return call(capfd, "evaluate", str(source), str(images), *where, *options)


def tables_of(results: Path) -> dict[str, pd.DataFrame]:
    return {
        cell.title: pd.read_parquet(results / "cells" / cell.cell_id / "predictions.parquet")
        for cell in ResultsDirectory(results).read_plan().cells
    }


def test_all_seeds_of_all_rows_read_the_images_as_predict_does(
    trained: Path, others: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = evaluate(capfd, trained / "results", others, tmp_path / "out")
    assert status == 0
    assert "labels with characters outside the charset, which count as wrong: 2 of 33 ('x', 'ä'" in out
    tables = tables_of(tmp_path / "out")
    plan = ResultsDirectory(trained / "results").read_plan()
    assert list(tables) == [cell.title for cell in plan.cells]
    for cell in plan.cells:
        table = tables[cell.title]
        reader = load_recognizer(trained / "results", cell=cell.cell_id, device="cpu", registry=own_registry)
        read = reader.transcribe([others / name for name in table["sample"]])
        assert table["hypothesis"].tolist() == [each.text for each in read]
        assert table["text_log_prob"].tolist() == [each.log_prob for each in read]
        assert len(table) == 33
        assert "aB" not in set(table["reference"])  # normalized like the labels of the training
        assert set(table.loc[table["nll"].isna(), "reference"]) == {"axb", "äb"}
    report = load_report(tmp_path / "out")
    assert report.rows["num_images"].tolist() == [33, 33]
    assert report.rows["num_seeds"].tolist() == [2, 2]
    assert report.rows["exact_match_low"].notna().all()
    expected = [np.mean([np.mean(t["reference"] == t["hypothesis"]) for n, t in tables.items() if d in n])
                for d in ("ctc", "attention")]  # fmt: skip
    assert report.rows["exact_match"].tolist() == pytest.approx(expected)
    assert len(report.errors) == 2
    assert "exact_match" in set(report.contrasts["metric"])  # the rows are compared image by image
    assert call(capfd, "verify", str(tmp_path / "out"))[0] == 0


def test_nll_of_the_test_split_is_that_of_the_run(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--split", "test", "--set", "dataset.fractions=[0.5,0.25,0.25]")
    status, out, _ = evaluate(capfd, trained / "results", trained / "images", tmp_path / "out", *options)
    assert status == 0
    assert "images with name and label of validation images" not in out
    of_run = ResultsDirectory(trained / "results")
    for before, now in zip(of_run.read_plan().cells, ResultsDirectory(tmp_path / "out").read_plan().cells, strict=True):
        ran = pd.read_parquet(of_run.cell_directory(before) / "predictions.parquet").set_index("sample")
        again = pd.read_parquet(tmp_path / "out" / "cells" / now.cell_id / "predictions.parquet").set_index("sample")
        again = again.loc[ran.index]
        assert again["hypothesis"].tolist() == ran["hypothesis"].tolist()
        assert np.abs(again["nll"] - ran["nll"]).max() < 1e-4
        record = of_run.read(before)
        found = ResultsDirectory(tmp_path / "out").read(now)
        assert record is not None
        assert found is not None
        assert found.metrics == pytest.approx(record.metrics, abs=1e-5)


def test_images_of_the_training_are_noted(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = evaluate(capfd, trained / "results", trained / "images", tmp_path / "out")
    assert status == 0
    assert "images with name and label of validation images of the training: 15 of 60" in out


def test_rows_and_packs_are_evaluated_alone(
    trained: Path, others: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(capfd, trained / "results", others, tmp_path / "out", "--row", "tiny / columns / ctc")[0] == 0
    assert len(tables_of(tmp_path / "out")) == 2
    pack = tmp_path / "reader.zip"
    assert call(capfd, "pack", str(trained / "results"), str(pack), *PLUGIN)[0] == 0
    status, out, _ = evaluate(capfd, pack, others, tmp_path / "of_pack")
    assert status == 0
    assert len(tables_of(tmp_path / "of_pack")) == 1
    assert "from 1 seed and 33 images" in out or "this trained model" in out


def test_unreadable_images_are_counted_and_give_exit_status_1(
    trained: Path,
    others: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (others / "1-3.png").write_bytes(b"x")
    status, out, err = evaluate(capfd, trained / "results", others, tmp_path / "out")
    assert status == 1
    assert "not scored, because they cannot be read: 1 of 33 images" in out
    assert "1-3.png: not scored: cannot identify image" in caplog.text
    assert {len(table) for table in tables_of(tmp_path / "out").values()} == {32}
    for image in others.glob("*.png"):
        image.write_bytes(b"x")
    status, _, err = evaluate(capfd, trained / "results", others, tmp_path / "none")
    assert status == 3
    assert "none of 33 images can be read" in err


def test_models_of_folds_count_as_seeds_of_their_row(
    trained: Path, others: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment: dict[str, Any] = {
        "name": "folded",
        "dataset": {"use": "folder", "path": str(trained / "images"), "fractions": [0.5, 0.25, 0.25], "folds": 2},
        "image": {"height": 16, "width": 48},
        "training": {"steps": 4, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0, 1],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"ctc": {"use": "lstm_ctc", "hidden_dim": 8}},
        },
    }
    train(experiment, own_registry, tmp_path / "folded")
    assert evaluate(capfd, tmp_path / "folded", others, tmp_path / "out")[0] == 0
    rows = load_report(tmp_path / "out").rows
    assert rows["num_seeds"].tolist() == [4]
    assert rows["num_images"].tolist() == [33]


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (["--row", "none"], 2, "--row none: no such row"),
        (["--split", "dev"], 2, "--split dev: must be one of train, val, test"),
        (["--set", "image.height=32"], 2, "--set image: only options of the dataset can be set"),
        (["--set", "dataset.colour=1"], 2, "dataset.colour"),
        (["--precision", "half"], 2, "--precision half: must be one of"),
        (["--set", "dataset.path=x"], 2, "its path is the given folder"),
    ],
)
def test_wrong_options_are_refused(
    trained: Path,
    others: Path,
    tmp_path: Path,
    options: list[str],
    status: int,
    named: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found, _, err = evaluate(capfd, trained / "results", others, tmp_path / "out", *options)
    assert (found, named in err) == (status, True), err
    assert not (tmp_path / "out").exists()


def test_results_of_another_experiment_are_not_overwritten(
    trained: Path, others: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "results", tmp_path / "kept")
    status, _, err = evaluate(capfd, trained / "results", others, tmp_path / "kept")
    assert status == 2
    assert "holds results of experiment 'lines', not 'lines-on-others'" in err


def test_other_images_of_the_same_name_are_refused(
    trained: Path, others: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(capfd, trained / "results", others, tmp_path / "out", "--row", "tiny / columns / ctc")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    namesake = draw_lines(tmp_path / "elsewhere" / "others", words(20, 5), 5)
    status, _, err = evaluate(capfd, trained / "results", namesake, tmp_path / "out")
    assert status == 2
    assert "holds the evaluation of other models or images of the same names; give another folder" in err


def test_second_evaluation_gives_the_same_and_folder_without_labels_is_refused(
    trained: Path, others: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(capfd, trained / "results", others, tmp_path / "out")[0] == 0
    before = tables_of(tmp_path / "out")
    assert evaluate(capfd, trained / "results", others, tmp_path / "out")[0] == 0
    after = tables_of(tmp_path / "out")
    assert all(before[name].equals(after[name]) for name in before)
    (tmp_path / "empty").mkdir()
    status, _, err = evaluate(capfd, trained / "results", tmp_path / "empty", tmp_path / "none")
    assert status == 3
    assert "empty" in err


def test_pack_on_the_images_of_its_training_is_noted(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "reader.zip"
    assert call(capfd, "pack", str(trained / "results"), str(pack), *PLUGIN)[0] == 0
    options = ("--set", "dataset.fractions=[0.5,0.25,0.25]")
    status, out, _ = evaluate(capfd, pack, trained / "images", tmp_path / "out", *options)
    assert status == 0
    assert "these are the images of the training itself" in out
