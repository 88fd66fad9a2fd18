import io
import json
import os
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from decoderbench import DataError
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_decoding import to_pixels
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.hf import HuggingFace

datasets = pytest.importorskip("datasets")

SMALL = ImageOptions(height=4, width=8)
COUNTS = {"train": 30, "validation": 8, "test": 10}


@pytest.fixture(autouse=True)
def _own_library_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 16), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(split, count, kind=None, **columns):
    start = 100 * list(COUNTS).index(split)
    rows = {
        "image": [{"bytes": png(start + row), "path": None} for row in range(count)],
        "label": [f"{split}{row}" for row in range(count)],
    } | columns
    kinds = {"image": datasets.Image(), "label": kind or datasets.Value("string")}
    return datasets.Dataset.from_dict(rows, datasets.Features(kinds))


def tables(counts=COUNTS, **options):
    return datasets.DatasetDict({split: table(split, count, **options) for split, count in counts.items()})


@pytest.fixture
def saved(tmp_path):
    tables().save_to_disk(tmp_path / "set")
    return tmp_path


def opened(base, path="set", **options):
    return HuggingFace(HuggingFace.Config(path=path, **options), base)


def shares(samples):
    return Counter(sample.split for sample in samples)


def stored(dataset, base, workers=1):
    return open_store(dataset, dataset.samples(), SMALL, cache_dir=base / "cache", workers=workers)


def expected_pixels(counts=COUNTS):
    seeds = [100 * place + row for place, count in enumerate(counts.values()) for row in range(count)]
    return np.stack([to_pixels(Image.open(io.BytesIO(png(seed))), SMALL) for seed in seeds])


def test_saved_dataset_is_read_completely_by_forked_workers(saved):
    dataset = opened(saved)
    assert [(s.key, s.label, s.split) for s in dataset.samples()] == [
        (f"{split}/{row:09d}", f"{split}{row}", role)
        for (split, count), role in zip(COUNTS.items(), ("train", "val", "test"), strict=True)
        for row in range(count)
    ]
    assert np.array_equal(stored(dataset, saved, workers=2).images, expected_pixels())
    assert dataset.notes() == []


def test_listing_samples_decodes_no_image(tmp_path):
    undecodable([{"bytes": b"no image", "path": None}] * 30).save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path, test_fraction=0.2)
    assert len(dataset.samples()) == 30
    assert len(dataset.fingerprint()) == 64
    with pytest.raises(DataError, match="cannot identify image"):
        dataset.load_image(0)


def undecodable(rows):
    kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": rows, "label": ["x"] * len(rows)}, kinds)


def test_order_of_selected_and_formatted_rows_is_kept(tmp_path):
    whole = tables()
    whole["train"] = whole["train"].select(range(29, 4, -1)).with_format("numpy")
    whole.save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path)
    assert [sample.label for sample in dataset.samples()][:25] == [f"train{row}" for row in range(29, 4, -1)]
    pixels = to_pixels(Image.open(io.BytesIO(png(29))), SMALL)
    assert np.array_equal(stored(dataset, tmp_path).images[0], pixels)


def test_single_table_is_divided_into_splits(tmp_path):
    table("train", 40).save_to_disk(tmp_path / "set")
    options = {"val_fraction": 0.25, "test_fraction": 0.25}
    samples = opened(tmp_path, **options).samples()
    assert shares(samples) == {"train": 20, "val": 10, "test": 10}
    assert samples == opened(tmp_path, **options).samples()
    assert samples != opened(tmp_path, split_seed=1, **options).samples()
    source = "given by split train; val (0.25) and test (0.25) dealt from train, seed 0"
    assert opened(tmp_path, **options).split_source() == source
    with pytest.raises(DataError, match=r"has no split for test; it has: train; check the options .*test_fraction"):
        opened(tmp_path).samples()


def test_missing_validation_is_taken_from_train_but_misspelled_split_is_refused(tmp_path):
    tables({"train": 30, "test": 10}).save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path)
    assert shares(dataset.samples()) == {"train": 27, "val": 3, "test": 10}
    assert dataset.split_source() == "given by splits train and test; val (0.1) dealt from train, seed 0"
    with pytest.raises(DataError, match=r"has no split 'tests'; it has: train, test; did you mean 'test'\?"):
        opened(tmp_path, val_split="tests").samples()


def test_stamp_depends_on_the_image_column(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)
    content = {"label": [str(row) for row in range(30)]}
    content |= {name: [png(seed + row) for row in range(30)] for name, seed in (("clean", 0), ("noisy", 500))}
    datasets.Dataset.from_dict(content).save_to_disk(tmp_path / "set")
    clean, noisy = (opened(tmp_path, image_column=name, test_fraction=0.2) for name in ("clean", "noisy"))
    assert clean.fingerprint() != noisy.fingerprint()
    assert None is not clean.stamp() != noisy.stamp()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "validation", "test"), "given by splits train, validation and test"),
        (("training", "valid", "testing"), "given by splits training, valid and testing"),
        (("train", "dev", "eval"), "given by splits train, dev and eval"),
        (("train", "eval", "test"), "given by splits train, eval and test"),
        (("Train", "VAL", "Test"), "given by splits Train, VAL and Test"),
    ],
)
def test_splits_are_found_by_their_names_in_common_spellings(tmp_path, names, expected):
    content = tables({"train": 30, "validation": 6, "test": 10})
    renamed = {name: content[split] for name, split in zip(names, ("train", "validation", "test"), strict=True)}
    datasets.DatasetDict(renamed).save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path)
    assert shares(dataset.samples()) == {"train": 30, "val": 6, "test": 10}
    assert dataset.split_source() == expected
    assert dataset.label_source() == "column 'label' of set"
    assert dataset.notes() == []


def test_several_splits_for_one_part_are_refused_until_one_is_set(tmp_path):
    content = tables({"train": 30, "validation": 6, "test": 10})
    content["valid"] = content["dev"] = content.pop("validation")
    content["test_hard"] = content["test"]
    content.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="has several splits for val: valid, dev; set the option val_split"):
        opened(tmp_path).samples()
    dataset = opened(tmp_path, val_split="dev")
    assert dataset.split_source() == "given by splits train, dev and test"
    unused = "valid (6 samples), test_hard (10 samples)"
    assert dataset.notes() == [f"unused splits (see val_split and test_split): {unused}"]


def test_progress_of_the_fingerprint_is_reported(saved):
    dataset, reports = opened(saved), []
    dataset.report_progress = lambda done, total: reports.append((done, total))
    dataset.fingerprint()
    assert reports == [(done, 48) for done in range(48)]


@pytest.mark.parametrize("where", ["parquet", "folder"])
def test_parquet_is_read_from_disk(tmp_path, where):
    (tmp_path / "set").mkdir()
    if where == "parquet":
        table("train", 30).to_parquet(tmp_path / "set" / "any.parquet")
        dataset = opened(tmp_path, "set/any.parquet", test_fraction=0.2)
        counts = {"train": 30}
        assert shares(dataset.samples()) == {"train": 21, "val": 3, "test": 6}
    else:
        for split, content in tables().items():
            content.to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
        dataset, counts = opened(tmp_path), COUNTS
    assert np.array_equal(stored(dataset, tmp_path).images, expected_pixels(counts))


def test_binary_column_is_read_as_images(tmp_path):
    rows = {"picture": [png(row) for row in range(30)], "text": [str(row) for row in range(30)]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    dataset = opened(tmp_path, "a.parquet", image_column="picture", label_column="text", test_fraction=0.2)
    assert np.array_equal(stored(dataset, tmp_path).images, expected_pixels({"train": 30}))


def test_folder_of_image_files_is_read_and_stamp_covers_its_files(tmp_path, monkeypatch):
    for split, count in COUNTS.items():
        (tmp_path / "set" / split).mkdir(parents=True)
        names = [f"{row:02d}.png" for row in range(count)]
        for row, name in enumerate(names):
            (tmp_path / "set" / split / name).write_bytes(png(100 * list(COUNTS).index(split) + row))
        lines = [json.dumps({"file_name": name, "label": f"x{name}"}) for name in names]
        (tmp_path / "set" / split / "metadata.jsonl").write_text("\n".join(lines))
    dataset = opened(tmp_path)
    assert dataset.samples()[1].label == "x01.png"
    assert np.array_equal(stored(dataset, tmp_path).images, expected_pixels())
    monkeypatch.setattr("time.time", lambda: 4e9)
    stamp = dataset.stamp()
    assert stamp is not None
    (tmp_path / "set" / "test" / "03.png").write_bytes(png(999))
    assert dataset.stamp() != stamp


def test_image_path_outside_the_dataset_is_refused(saved):
    secret = saved / "secret.png"
    secret.write_bytes(png(0))
    rows = [{"bytes": None, "path": str(secret)}, {"bytes": None, "path": "/etc/hostname"}, None]
    foreign = undecodable([*rows, {"bytes": png(1), "path": "gone.png"}])
    (saved / "foreign").mkdir()
    foreign.to_parquet(saved / "foreign" / "train.parquet")
    dataset = opened(saved, "foreign", test_fraction=0.3, val_fraction=0.3)
    messages = ["a file outside the dataset: '.*secret.png'", "outside the dataset", "is missing"]
    for row, message in enumerate(messages):
        with pytest.raises(DataError, match=message):
            dataset.load_image(row)
    assert dataset.load_image(3).size == (16, 8)
    assert len(dataset.fingerprint()) == 64


def test_class_labels_become_their_names_with_a_note(tmp_path):
    kind = datasets.ClassLabel(names=["seven", "two"])
    content = table("train", 30, kind=kind, label=[row % 2 for row in range(30)])
    content.save_to_disk(tmp_path / "set")
    dataset = opened(tmp_path, test_fraction=0.2)
    assert [sample.label for sample in dataset.samples()] == ["seven", "two"] * 15
    assert dataset.notes()[0] == "labels are the class names of column 'label'"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (datasets.Value("int64"), range(30), "train/000000000: label_column 'label' has 0 of type .*it must be text"),
        (datasets.Value("string"), ["x", None] * 15, "train/000000001: label_column 'label' has None"),
        (datasets.ClassLabel(names=["a"]), [0, -1] * 15, "train/000000001: label_column 'label' has None"),
        (datasets.List(datasets.Value("string")), [["a", "b"]] * 30, r"has \['a', 'b'\]"),
    ],
)
def test_labels_that_are_not_text_are_refused(tmp_path, kind, values, message):
    table("train", 30, kind=kind, label=list(values)).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, test_fraction=0.2).samples()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "text"}, "split 'train' of dataset 'set' has no column 'text'; it has: image, label"),
        ({"image_column": "img"}, "has no column 'img'"),
        (
            {"image_column": "label", "label_column": "image"},
            "image_column 'label' is of type .*it must be Image or binary",
        ),
        ({"path": "./gone"}, r"'./gone' of dataset hf is neither on disk .*nor a name on the hub"),
        ({"path": ""}, "neither on disk"),
        ({"path": "empty"}, "dataset 'empty' cannot be loaded: .*; check the options path, config_name and revision"),
    ],
)
def test_wrong_path_or_column_is_refused_by_name(saved, options, message):
    (saved / "empty").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        opened(saved, **options).samples()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_split": "test", "test_split": "test"}, "must differ"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        HuggingFace.Config(**options)


def test_truncated_table_is_refused(saved):
    for file in (saved / "set" / "train").glob("*.arrow"):
        os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"dataset 'set' (cannot be loaded|.* is corrupt)"):
        opened(saved).samples()


def test_fingerprint_depends_on_content(saved, tmp_path_factory):
    before = opened(saved).fingerprint()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    tables().save_to_disk(elsewhere / "set")
    assert opened(elsewhere).fingerprint() == before
    tables(kind=datasets.Value("large_string")).save_to_disk(elsewhere / "large")
    assert opened(elsewhere, "large").fingerprint() == before
    changed = tables()
    changed["test"] = table("test", 10, image=[{"bytes": png(row), "path": None} for row in range(10)])
    changed.save_to_disk(elsewhere / "pixels")
    tables({"train": 30, "validation": 8, "test": 9}).save_to_disk(elsewhere / "fewer")
    others = {opened(elsewhere, name).fingerprint() for name in ("pixels", "fewer")}
    others.add(opened(saved, train_split="test", test_split="train").fingerprint())
    assert len(others | {before}) == 4


def test_stamp_changes_with_a_file(saved, monkeypatch):
    assert opened(saved).stamp() is None  # too recent
    monkeypatch.setattr("time.time", lambda: 4e9)
    stamp = opened(saved).stamp()
    assert stamp == opened(saved).stamp()
    assert stamp is not None
    file = next((saved / "set" / "test").glob("*.arrow"))
    file.write_bytes(file.read_bytes())
    assert opened(saved).stamp() != stamp


# The hub


def test_unreachable_name_gives_one_error_within_seconds(tmp_path):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    code = """
from pathlib import Path
from decoderbench import DataError
from decoderbench_plugins.datasets.hf import HuggingFace
for path in ("nobody/nothing", "nothing"):
    try:
        HuggingFace(HuggingFace.Config(path=path), Path()).samples()
    except DataError as error:
        print(error)
"""
    started = time.monotonic()
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert time.monotonic() - started < 20  # the library itself tries for longer, twice
    lines = run.stdout.splitlines()
    assert [line.split(" is not on disk")[0] for line in lines] == ["'nobody/nothing'", "'nothing'"]
    assert all("set HF_HUB_OFFLINE=1" in line and "save_to_disk" in line for line in lines)
    assert run.stderr == ""


def test_name_on_the_hub_is_loaded_at_its_current_commit(tmp_path, monkeypatch):
    calls = []
    info = types.SimpleNamespace(sha="0123abc")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda _, name, **options: calls.append(name) or info)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: calls.append((names, options)) or tables())
    dataset = opened(tmp_path, "owner/name", config_name="small", revision="main")
    assert shares(dataset.samples()) == {"train": 30, "val": 8, "test": 10}
    assert calls == ["owner/name", (("owner/name", "small"), {"revision": "0123abc"})]
    assert dataset.notes() == ["hub: owner/name at revision 0123abc"]
    assert dataset.stamp() is None  # these tables are in memory
    assert np.array_equal(stored(dataset, tmp_path).images, expected_pixels())


def test_offline_mode_sends_no_request_and_refuses_a_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="revision cannot be checked in offline mode"):
        opened(tmp_path, "owner/name", revision="abc").samples()
    with pytest.raises(DataError, match="dataset 'owner/name' cannot be loaded"):
        opened(tmp_path, "owner/name").samples()


def test_progress_bars_setting_is_restored(saved):
    before = datasets.are_progress_bars_disabled()
    opened(saved).samples()
    assert datasets.are_progress_bars_disabled() == before


def test_missing_library_gives_an_error_that_names_the_extra(tmp_path):
    code = """
import sys
from pathlib import Path
from decoderbench import ConfigError
from decoderbench_plugins.datasets.hf import HuggingFace
assert "datasets" not in sys.modules
sys.modules["datasets"] = None
try:
    HuggingFace(HuggingFace.Config(path="set"), Path()).samples()
except ConfigError as error:
    print(error)
"""
    (tmp_path / "set").mkdir()
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'decoderbench[hf]'" in run.stdout
    assert run.stderr == ""
    assert not list(Path(tmp_path / "set").iterdir())
