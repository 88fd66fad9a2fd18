"""Reading images with what a run has trained: the same texts as on its test split, from results and from a pack."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd
import pytest
from helpers.commands import call
from helpers.running import TINY_PLUGIN
from helpers.training import train
from PIL import Image

from decoderbench import ConfigError, DataError, Registry, build_plugin_manager, load_recognizer
from decoderbench.inference.choice import choose_model
from decoderbench.inference.loading import kept_images
from decoderbench.records.pack import read_pack
from decoderbench.records.results_directory import ResultsDirectory

GLYPH = 9  # columns per character
PLUGIN = ("-p", str(TINY_PLUGIN))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 lines of 1 to 6 bars in files of every kind: bright ones are `a`, dark ones `b`."""
    folder = tmp_path_factory.mktemp("lines")
    generator = np.random.default_rng(0)
    rows = ["filename,label"]
    for number in range(60):
        label = "".join(generator.choice(["a", "b"], 1 + number % 6))
        line = np.repeat([200 if character == "a" else 50 for character in label], GLYPH)
        gray = (np.broadcast_to(line, (16, len(line))) + generator.integers(0, 40, (16, len(line)))).astype(np.uint8)
        name = save(gray, folder / str(number), number % 7)
        rows.append(f"{name},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def save(gray: np.ndarray[Any, Any], stem: Path, kind: int) -> str:
    """Save pixels in one of seven forms: gray, RGBA, 16 bits, a palette, JPEG, turned by EXIF, GIF."""
    image = Image.fromarray(gray)
    alpha = Image.merge("RGBA", [*[image] * 3, Image.fromarray(255 - gray // 4)])
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, ".png", {}),
        (alpha, ".png", {}),
        (Image.fromarray(gray.astype(np.uint16) * 257), ".png", {}),
        (image.convert("RGB").quantize(32), ".png", {}),
        (image, ".jpg", {}),
        (image.transpose(Image.Transpose.ROTATE_90), ".png", {"exif": exif}),
        (image, ".gif", {}),
    ]
    picture, suffix, options = forms[kind]
    path = stem.with_suffix(suffix)
    picture.save(path, **options)
    return path.name


@pytest.fixture(scope="module")
def own_registry() -> Registry:
    return Registry(build_plugin_manager([str(TINY_PLUGIN)]))


@pytest.fixture(scope="module")
def results(folder: Path, own_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three decoders, two seeds, with all ways to bring images to one size."""
    path = tmp_path_factory.mktemp("run") / "results"
    experiment = {
        "name": "lines",
        "question": "Which?",
        "dataset": {"use": "folder", "path": str(folder), "fractions": [0.5, 0.25, 0.25]},
        "image": {"height": 16, "width": 48, "resize": "keep", "buckets": 3},
        "training": {"steps": 8, "batch_size": 8, "precision": "float32"},
        "evaluation": {"batch_size": 4},
        "grid": {
            "seeds": [0, 1],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {
                "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
                "attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4},
            },
            "settings": {
                "keep": {},
                "stretch": {"image": {"resize": "stretch"}},
                "pad": {"image": {"resize": "pad"}},
            },
        },
    }
    train(experiment, own_registry, path)
    return path


def recorded(results: Path, cell_id: str, split: str = "") -> pd.DataFrame:
    return pd.read_parquet(results / "cells" / cell_id / f"{split}predictions.parquet")


def cell_ids(results: Path) -> list[str]:
    return [cell.cell_id for cell in ResultsDirectory(results).read_plan().cells]


@pytest.mark.parametrize("number", range(12))
def test_images_are_read_as_those_of_the_test_split_were_batched_and_alone(
    results: Path, folder: Path, own_registry: Registry, number: int
) -> None:
    cell_id = cell_ids(results)[number]
    reader = load_recognizer(results, cell=cell_id, device="cpu", registry=own_registry)
    expected = recorded(results, cell_id)
    paths = [folder / name for name in expected["sample"]]
    read = reader.transcribe(paths)
    assert [each.text for each in read] == expected["hypothesis"].tolist()
    log_prob = np.array([each.log_prob for each in read])
    assert np.abs(log_prob - expected["text_log_prob"]).max() < 1e-4
    alone = [reader.transcribe([path])[0] for path in paths]
    assert [each.text for each in alone] == expected["hypothesis"].tolist()
    assert np.abs(np.array([each.log_prob for each in alone]) - log_prob).max() < 1e-4
    with ExitStack() as stack:
        opened = [stack.enter_context(Image.open(path)) for path in paths]
        assert [each.text for each in reader.transcribe(opened, batch_size=3)] == expected["hypothesis"].tolist()
    assert all(each.confidence == reader.confidence(each.log_prob) for each in read if each.log_prob is not None)


@pytest.mark.parametrize("form", ["lmdb", "hf", "drawn"])
def test_images_of_other_datasets_are_read_as_those_of_their_test_split_were(
    form: str, folder: Path, own_registry: Registry, tmp_path: Path
) -> None:
    if form == "hf":
        pytest.importorskip("datasets")
    labels = pd.read_csv(folder / "labels.csv")
    files = [(folder / name).read_bytes() for name in labels["filename"]]
    dataset: dict[str, Any] = {"use": "synthetic_captcha", "train": 24, "val": 8, "test": 8, "charset": "ab"}
    if form != "drawn":
        write = write_lmdb if form == "lmdb" else write_hf
        dataset = write(tmp_path / "set", dict(zip(labels["label"] + labels.index.astype(str), files, strict=True)))
    experiment = {
        "name": "other",
        "dataset": dataset,
        "image": {"height": 16, "width": 48, "resize": "keep", "buckets": 2},
        "training": {"steps": 4, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4}},
        },
    }
    results = tmp_path / "results"
    frame = train(experiment, own_registry, results)
    assert frame["status"].tolist() == ["done"], frame["reason"].tolist()
    reader = load_recognizer(results, device="cpu", registry=own_registry)
    expected = recorded(results, reader.cell.cell_id)
    if form == "drawn":
        drawn = own_registry["dataset"]["synthetic_captcha"].component
        captchas = drawn(drawn.Config(**{key: value for key, value in dataset.items() if key != "use"}), tmp_path)
        numbers = {sample.key: number for number, sample in enumerate(captchas.samples())}
        images: list[Any] = [captchas.load_image(numbers[key]) for key in expected["sample"]]
    else:
        by_label = dict(zip(labels["label"] + labels.index.astype(str), files, strict=True))
        images = []
        for number, label in enumerate(expected["reference"]):
            path = tmp_path / f"{number}.image"
            path.write_bytes(by_label[label])
            images.append(path)
    assert len(images) >= 6
    for batch_size in (4, 1):
        read = reader.transcribe(images, batch_size=batch_size)
        assert [each.text for each in read] == expected["hypothesis"].tolist()
        log_prob = np.array([each.log_prob for each in read])
        assert np.abs(log_prob - expected["text_log_prob"]).max() < 1e-4


def write_lmdb(path: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """Write files by their labels as an LMDB of PARSeq's form, and return the dataset."""
    with lmdb.open(str(path), map_size=1 << 26, lock=False) as environment, environment.begin(write=True) as into:
        for number, (label, content) in enumerate(files.items(), start=1):
            into.put(b"image-%09d" % number, content)
            into.put(b"label-%09d" % number, label.encode())
        into.put(b"num-samples", b"%d" % len(files))
    return {"use": "lmdb", "train": [str(path)], "val_fraction": 0.2, "test_fraction": 0.2}


def write_hf(path: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """Write files by their labels as a dataset of Hugging Face, and return the dataset."""
    import datasets

    rows = [{"image": {"bytes": content, "path": None}, "label": label} for label, content in files.items()]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    parts = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}
    tables = {name: datasets.Dataset.from_list(part, features=features) for name, part in parts.items()}
    datasets.DatasetDict(tables).save_to_disk(path)
    return {"use": "hf", "path": str(path)}


def test_texts_come_in_the_order_of_the_images_and_those_that_cannot_be_read_have_a_problem(
    results: Path, folder: Path, own_registry: Registry
) -> None:
    reader = load_recognizer(results, device="cpu", registry=own_registry)
    paths = sorted(folder.glob("*.*g"))
    given = [paths[0], folder / "none.png", folder / "labels.csv", *paths[1:]]
    read = reader.transcribe(given, batch_size=4)
    assert [bool(each.problem) for each in read] == [False, True, True] + [False] * (len(paths) - 1)
    assert read[1].text is None
    assert read[1].confidence is None
    assert [each.text for each in read if not each.problem] == [each.text for each in reader.transcribe(paths)]


def test_pack_reads_like_the_results_that_it_was_made_of(
    results: Path, folder: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reader.zip"
    status, out, err = call(capfd, "pack", str(results), str(file), "--row", "tiny / columns / ctc / keep", *PLUGIN)
    assert status == 0
    assert f"pack: {file}" in out
    assert "best of 2 models on validation images" in err
    chosen = choose_model(results, row="tiny / columns / ctc / keep")
    moved = tmp_path / "elsewhere" / "r.zip"
    moved.parent.mkdir()
    shutil.move(file, moved)
    reader = load_recognizer(moved, device="cpu", registry=own_registry)
    expected = recorded(results, chosen.record.cell.cell_id)
    read = reader.transcribe([folder / name for name in expected["sample"]])
    assert [each.text for each in read] == expected["hypothesis"].tolist()
    from_results = load_recognizer(results, row="tiny / columns / ctc / keep", device="cpu", registry=own_registry)
    assert reader.confidence.describe() == from_results.confidence.describe()
    card = read_pack(moved).card
    assert "| this model" in card
    assert "its row, 2 of 2 seeds" in card
    assert "it knows 2 characters" in card
    assert "The experiment asked: Which?" in card


def test_model_that_other_sources_of_decoderbench_trained_is_read_with_a_note(
    results: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a family or the framework does may have changed where no component has."""
    note = "note       decoderbench has other source code than when it was trained"
    image = str(min(folder.glob("*.png")))
    assert note not in call(capfd, "predict", str(results), image, *PLUGIN)[2]
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    directory = ResultsDirectory(copied)
    for cell in directory.read_plan().cells:
        record = directory.read(cell)
        assert record is not None
        directory.publish(record.model_copy(update={"environment": {**record.environment, "sources": "0" * 16}}))
    assert note in call(capfd, "predict", str(copied), image, *PLUGIN)[2]
    file = tmp_path / "reader.zip"
    assert note in call(capfd, "pack", str(copied), str(file), *PLUGIN)[2]
    status, _, err = call(capfd, "predict", str(file), image, *PLUGIN)
    assert (status, err.count(note)) == (0, 1)


def test_best_row_and_model_are_those_with_the_best_validation(results: Path) -> None:
    plan = ResultsDirectory(results).read_plan()

    def score(cell_id: str) -> tuple[float, float]:
        table = recorded(results, cell_id, "val_")
        right = (table["reference"] == table["hypothesis"]).mean()
        return right, -table["nll"].sum() / table["reference"].str.len().sum()

    by_row: dict[str, list[tuple[float, float]]] = {}
    for cell in plan.cells:
        by_row.setdefault(cell.variant_title, []).append(score(cell.cell_id))
    best = max(by_row, key=lambda title: tuple(np.mean(by_row[title], axis=0)))
    chosen = choose_model(results)
    assert chosen.record.cell.variant_title == best
    own = {cell.cell_id: score(cell.cell_id) for cell in plan.cells if cell.variant_title == best}
    assert chosen.record.cell.cell_id == max(own, key=lambda cell_id: own[cell_id])
    assert "best of 6 rows on validation images" in chosen.reasons[0]
    assert "best of 2 models on validation images" in chosen.reasons[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--row", "tiny / columns / ctd / keep"], "no such row; did you mean 'tiny / columns / ctc / keep'?"),
        (["--cell", "tiny"], "begins the ids of 12 cells; give more of it"),
        (["--cell", "none"], "--cell none: no finished cell has this id"),
        (["--row", "a", "--cell", "b"], "--row and --cell: each chooses a model; give one of them"),
        (["--best", "--row", "a"], "--best and --row: each chooses a model"),
        (["--precision", "float16"], "--precision float16: must be one of auto, float32, bfloat16"),
        (["--json", "--csv", "x.csv"], "--json and --csv: give one of them"),
        (["--reject", "1"], "--reject 1: must lie between 0 and 1"),
        (["--beam", "0"], "Input should be greater than or equal to 1"),
    ],
)
def test_wrong_options_are_refused(
    results: Path, folder: Path, options: list[str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "predict", str(results), str(folder), *options, *PLUGIN)
    assert (status, out) == (2, "")
    assert named in err


def test_command_prints_a_line_per_image_and_says_what_it_does(
    results: Path, folder: Path, own_registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, "predict", str(results), str(folder), "--device", "cpu", *PLUGIN)
    reader = load_recognizer(results, device="cpu", registry=own_registry)
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".csv")
    expected = [
        "\t".join([str(path), each.text or "", f"{each.confidence:.4f}", *filter(None, [each.note])])
        for path, each in zip(paths, reader.transcribe(paths), strict=True)
    ]
    assert status == 0
    assert out.splitlines() == expected
    for text in ("row        tiny", "reads      in float32 on cpu", "confidence ", "not read: 1 .csv"):
        assert text in err


def test_processes_that_decode_change_nothing_that_is_printed(
    results: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"x")
    given = ("predict", str(results), str(folder), str(broken), "--device", "cpu", *PLUGIN)
    of_threads, of_processes = (call(capfd, *given, "--workers", number) for number in ("0", "2"))
    assert of_threads == of_processes
    assert of_processes[0] == 1


def test_table_in_the_place_of_a_device_and_too_many_processes_are_refused(
    results: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for options, named in (
        (("--csv", os.devnull), "is not a regular file"),
        (("--workers", "1025"), "less than or equal to 1024"),
    ):
        status, out, err = call(capfd, "predict", str(results), str(folder), *options, *PLUGIN)
        assert (status, out, named in err) == (2, "", True), err


def test_bfloat16_says_how_many_images_it_reads_otherwise(
    results: Path, folder: Path, own_registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    cell_id = cell_ids(results)[0]
    image = str(sorted(folder.glob("*.jpg"))[0])
    options = ("predict", str(results), image, "--cell", cell_id, "--device", "cpu", *PLUGIN)
    readers = [
        load_recognizer(results, cell=cell_id, device="cpu", registry=own_registry, precision=precision)
        for precision in ("bfloat16", "float32")
    ]
    kept = kept_images(results, readers[0].cell)
    texts = [[reading.text for reading in reader.transcribe(kept)] for reader in readers]
    differing = sum(one != other for one, other in zip(*texts, strict=True))
    said = f"{differing} of {len(kept)} test images that the results keep are read otherwise than in float32"
    status, _, err = call(capfd, *options, "--precision", "bfloat16")
    assert (status, f"reads      in bfloat16 on cpu; {said}" in err) == (0, True), err
    assert "otherwise than in float32" not in call(capfd, *options)[2]


def test_unreadable_image_is_a_line_with_the_reason_and_exit_status_1(
    results: Path,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "broken\t.png"
    broken.write_bytes(b"x")
    lines = f"{folder / '0.png'}\n{broken}\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    status, out, err = call(capfd, "predict", str(results), "-", "--json", *PLUGIN)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [row["image"] for row in rows] == [str(folder / "0.png"), str(broken)]
    assert rows[0]["text"] is not None
    assert rows[1]["text"] is None
    assert "cannot identify image" in rows[1]["problem"]
    assert "1 of 2 images cannot be read" in err
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    status, out, _ = call(capfd, "predict", str(results), "-", *PLUGIN)
    assert status == 1
    assert out.splitlines()[1].startswith(f"{tmp_path}/broken\\t.png\t\t\tcannot identify image")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    file = tmp_path / "out.csv"
    assert call(capfd, "predict", str(results), "-", "--csv", str(file), *PLUGIN)[:2] == (1, "")
    with file.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["image"] for row in table] == [str(folder / "0.png"), str(broken)]
    assert (table[1]["text"], table[1]["problem"]) == ("", rows[1]["problem"])


def test_empty_folder_missing_weights_and_folder_without_results_are_one_line(
    results: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    status, out, err = call(capfd, "predict", str(results), str(tmp_path / "empty"), *PLUGIN)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "no image there" in err
    status, out, err = call(capfd, "predict", str(folder), str(folder), *PLUGIN)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "no plan.json; give the results folder of a run" in err
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    cell = choose_model(copied).record.cell
    weights = copied / "cells" / cell.cell_id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    status, _, err = call(capfd, "predict", str(copied), str(folder), *PLUGIN)
    assert status == 3
    assert "weights.safetensors: damaged: sha256 mismatch" in err
    weights.unlink()
    status, _, err = call(capfd, "predict", str(copied), str(folder), *PLUGIN)
    assert status == 3
    assert "no weights.safetensors; train the cell again" in err


def test_pack_without_its_plugin_names_it_and_where_it_came_from(
    results: Path, tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reader.zip"
    assert call(capfd, "pack", str(results), str(file), *PLUGIN)[0] == 0
    status, out, err = call(capfd, "predict", str(file), str(folder))
    assert (status, out) == (2, "")
    assert "unknown encoder 'tiny_cnn'" in err
    assert f"it came from {TINY_PLUGIN}" in err or "it came from tiny" in err
    status, _, err = call(capfd, "predict", str(file), str(folder), "--row", "x", *PLUGIN)
    assert status == 2
    assert "is one model; omit them" in err


def test_weights_of_other_components_are_refused(results: Path, own_registry: Registry, tmp_path: Path) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    ctc, attention = cell_ids(copied)[0], cell_ids(copied)[-1]
    plan = ResultsDirectory(copied).read_plan()
    assert plan.cells[0].decoder.use != plan.cells[-1].decoder.use
    other = (copied / "cells" / ctc / "weights.safetensors").read_bytes()
    directory = ResultsDirectory(copied)
    record = directory.read(plan.cells[-1])
    assert record is not None
    (copied / "cells" / attention / "weights.safetensors").write_bytes(other)
    directory.publish(record.model_copy(update={"artifacts": {}}))
    with pytest.raises(DataError, match="its weights do not fit the components that are installed"):
        load_recognizer(copied, cell=attention, registry=own_registry)


def test_experiment_with_folds_reads_with_one_of_its_models(
    folder: Path, own_registry: Registry, tmp_path: Path
) -> None:
    experiment = {
        "name": "folded",
        "dataset": {"use": "folder", "path": str(folder), "fractions": [0.5, 0.25, 0.25], "folds": 2},
        "image": {"height": 16, "width": 48},
        "training": {"steps": 4, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"ctc": {"use": "lstm_ctc", "hidden_dim": 8}},
        },
    }
    train(experiment, own_registry, tmp_path / "results")
    chosen = choose_model(tmp_path / "results")
    assert "fold" in chosen.reasons[1]
    reader = load_recognizer(tmp_path / "results", device="cpu", registry=own_registry)
    expected = recorded(tmp_path / "results", reader.cell.cell_id)
    read = reader.transcribe([folder / name for name in expected["sample"]])
    assert [each.text for each in read] == expected["hypothesis"].tolist()


def test_cell_of_an_earlier_version_with_varying_widths_is_refused(results: Path, own_registry: Registry) -> None:
    reader = load_recognizer(results, cell=cell_ids(results)[0], device="cpu", registry=own_registry)
    assert reader.cell.image.resize == "keep"
    earlier = reader.cell.model_copy(update={"bucket_widths": ()})
    with pytest.raises(
        DataError, match="did not record the widths that images are padded to; run the experiment again"
    ):
        type(reader)(earlier, reader.recognizer, reader.confidence)


def test_rows_that_were_validated_on_different_images_are_not_ranked(
    folder: Path, own_registry: Registry, tmp_path: Path
) -> None:
    experiment = {
        "name": "limited",
        "dataset": {"use": "folder", "path": str(folder), "fractions": [0.5, 0.25, 0.25]},
        "image": {"height": 16, "width": 48},
        "training": {"steps": 2, "batch_size": 8, "precision": "float32"},
        "grid": {
            "seeds": [0],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {"ctc": {"use": "lstm_ctc", "hidden_dim": 8}},
            "settings": {"all": {}, "few": {"dataset": {"train_limit": 15}}},
        },
    }
    train(experiment, own_registry, tmp_path / "results")
    with pytest.raises(ConfigError, match="--best: the rows were validated on different images"):
        choose_model(tmp_path / "results")
    assert choose_model(tmp_path / "results", row="tiny / columns / ctc / few").among == 1


def test_pack_of_an_impossible_size_is_refused_before_memory_is_taken(
    results: Path, own_registry: Registry, tmp_path: Path, folder: Path
) -> None:
    from decoderbench.inference.loading import pack
    from decoderbench.records.pack import Pack, write_pack

    pack(results, tmp_path / "reader.zip", own_registry, row="tiny / columns / ctc / pad")
    found = read_pack(tmp_path / "reader.zip")
    cell = found.manifest.cell
    huge = cell.decoder.model_copy(update={"options": cell.decoder.options | {"hidden_dim": 10**6}})
    manifest = found.manifest.model_copy(update={"cell": cell.model_copy(update={"decoder": huge})})
    write_pack(tmp_path / "huge.zip", Pack(manifest, found.weights, found.card))
    with pytest.raises(DataError, match="its weights do not fit the components that are installed"):
        load_recognizer(tmp_path / "huge.zip", registry=own_registry)
    write_pack(tmp_path / "broken.zip", Pack(found.manifest, b"no weights", found.card))
    with pytest.raises(DataError, match="weights that are no safetensors file"):
        load_recognizer(tmp_path / "broken.zip", registry=own_registry)


def test_name_of_any_bytes_is_read_from_standard_input(
    results: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(folder / "0.png", name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\n"), encoding="utf-8"))
    status, out, _ = call(capfd, "predict", str(results), "-", "--json", *PLUGIN)
    assert status == 0
    assert json.loads(out)["problem"] == ""


def test_reject_needs_the_beam_and_precision_of_the_training(
    results: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for option in (("--beam", "2"), ("--precision", "float32")):
        status, _, err = call(capfd, "predict", str(results), str(folder), "--reject", "0.5", *option, *PLUGIN)
        assert status == 2
        assert "omit --beam and --precision" in err
