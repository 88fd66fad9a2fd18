"""decoderbench audit: all that is wrong with data of every form, the verdict, and the exit status."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import call
from helpers.folders import table
from helpers.running import to_toml
from PIL import Image

from decoderbench import DataError, Experiment, Registry
from decoderbench.data.dataset import SPLITS
from decoderbench.data.problems import CODES
from decoderbench.planning.data_report import audit_data
from decoderbench.planning.inputs import read_inputs


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECODERBENCH_CACHE", str(tmp_path / "cache"))


def png(seed: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 48), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def text_of(number: int) -> str:
    return f"{number * 37 % 100:02d}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images, labeled by a table."""
    (tmp_path / "set").mkdir()
    for number in range(30):
        (tmp_path / "set" / f"{number}.png").write_bytes(png(number))
    return table(tmp_path / "set", [(f"{number}.png", text_of(number)) for number in range(30)])


def damage(folder: Path) -> None:
    """Give the folder one problem or more of seven kinds."""
    (folder / "3.png").write_bytes(png(3)[:100])
    (folder / "4.png").write_bytes(b"<html>not found</html>")
    (folder / "5.png").write_bytes((folder / "6.png").read_bytes())
    rows = [(f"{number}.png", text_of(number)) for number in range(30)]
    rows[7], rows[8], rows[9] = ("7.png", ""), ("8.png", ""), ("9.png", "a\u202eb")
    os.mkfifo(folder / "pipe.png")
    table(folder, [*rows, ("gone.png", "1"), ("pipe.png", "2"), ("10.png", "other")])
    with (folder / "labels.csv").open("a", encoding="utf-8") as file:
        file.write("11.png,one,two\n12.png\n")


def audit(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status, out, err = call(capfd, "audit", *arguments)
    assert "Traceback" not in err
    return status, out.splitlines()


def test_audit_of_a_good_folder_prints_its_summary_and_accepts_it(
    capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    status, lines = audit(capfd, str(folder))
    assert status == 0
    assert lines[0].startswith("labels   from labels.csv (columns filename and label): '0.png' is '00'")
    assert lines[1] == "splits   dealt by sample, seed 0: 0.7 train, 0.1 val, 0.2 test"
    assert lines[2] == "samples  21 train, 3 val, 6 test"
    assert lines[-1] == "accepted: a run trains on these data"
    assert sorted(folder.rglob("*")) == before


def test_audit_names_every_problem_with_count_and_examples(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    damage(folder)
    status, lines = audit(capfd, str(folder))
    text = "\n".join(lines)
    assert status == 3
    assert "refused  2 rows of labels cannot be read:" in text
    assert "labels.csv line 35 has a different number of fields than the header" in text
    assert "refused  3 names do not each denote one image" in text
    for reason in ("'gone.png' does not exist", "'pipe.png' is not a regular file", "'10.png' is already named in"):
        assert reason in text
    assert "refused  empty_label: a label needs at least one character; 2 in all: '7.png', '8.png'" in text
    assert "refused  control_character: " in text
    assert "U+202E RIGHT-TO-LEFT OVERRIDE" in text
    assert "refused  unreadable_image: image '3.png' cannot be decoded: OSError: image file is truncated" in text
    assert "2 in all: '3.png', '4.png'" in text
    assert "refused  conflicting_labels: '5.png' and '6.png' are identical images" in text
    assert lines[-1] == (
        "refused: 6 kinds of problems; --allow empty_label --allow control_character --allow unreadable_image --allow "
        "conflicting_labels would accept 4 of them; 2 cannot be allowed and must be corrected"
    )


def test_audit_accepts_what_is_allowed_and_prints_three_examples(
    capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"damaged")
    status, lines = audit(capfd, str(folder))
    assert status == 3
    assert any("5 in all: '0.png', '1.png', '2.png' and 2 more" in line for line in lines)
    assert lines[-1] == "refused: 1 kind of problems; --allow unreadable_image would accept 1 of them"
    status, lines = audit(capfd, str(folder), "--allow", "unreadable_image")
    assert status == 0
    assert any(line.startswith("allowed  unreadable_image: ") for line in lines)
    assert lines[-1] == "accepted: a run trains on these data"


def test_audit_as_json_has_counts_and_keys(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    damage(folder)
    status, lines = audit(capfd, str(folder), "--json", "--set", "image.height=16")
    found = json.loads("\n".join(lines))
    assert status == 3
    assert found["accepted"] is False
    assert len(found["faults"]) == 2
    assert {problem["code"]: problem["count"] for problem in found["refused"]} == {
        "empty_label": 2,
        "control_character": 1,
        "unreadable_image": 2,
        "conflicting_labels": 2,
    }
    assert sum(found["samples"].values()) == 30 - found["excluded"]


def test_audit_goes_on_where_the_split_cannot_be_decided(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    rows = [(f"{number}.png", text_of(number), "train" if number % 2 else "") for number in range(30)]
    table(folder, rows, header=("filename", "label", "split"))
    (folder / "4.png").write_bytes(b"damaged")
    status, lines = audit(capfd, str(folder))
    text = "\n".join(lines)
    assert status == 3
    assert "splits   not decided, so that all samples count as train" in text
    assert "refused  unreadable_image: image '4.png'" in text
    assert text.count("split 'val'") == 1


def test_audit_reads_an_experiment_and_its_allowed_codes(
    capfd: pytest.CaptureFixture[str], folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    (folder / "4.png").write_bytes(b"damaged")
    tiny["dataset"] = {"use": "folder", "path": "set"}
    tiny["grid"]["encoder"] = {"small": {"use": "crnn_vgg"}}
    (tmp_path / "x.toml").write_text(to_toml(tiny))
    assert audit(capfd, str(tmp_path / "x.toml"))[0] == 3
    (tmp_path / "x.toml").write_text(to_toml(tiny | {"allow": ["unreadable_image"]}))
    assert audit(capfd, str(tmp_path / "x.toml"))[0] == 0
    status, lines = audit(capfd, str(tmp_path / "x.toml"), "--set", "labels.charset=01")
    assert status == 3
    assert "--allow outside_charset would accept 1 of them" in lines[-1]
    assert not list(tmp_path.glob("results*"))


def test_audit_of_an_lmdb_names_all_that_is_wrong(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")

    def write(**changes: bytes) -> None:
        with (
            lmdb.open(str(tmp_path / "lm"), map_size=1 << 24, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for number in range(1, 31):
                transaction.put(b"image-%09d" % number, png(number))
                transaction.put(b"label-%09d" % number, text_of(number).encode())
            transaction.put(b"num-samples", b"30")
            for key, value in changes.items():
                transaction.put(key.replace("_", "-").encode(), value)

    write()
    for path in (tmp_path / "lm", tmp_path / "lm" / "data.mdb"):
        status, lines = audit(capfd, str(path))
        assert status == 0
        assert "val (0.05) and test (0.2) dealt from train, seed 0" in lines[1]
    write(num_samples=b"250", label_000000004=b"\xff", image_000000005=b"", image_000000006=png(6)[:99])
    status, lines = audit(capfd, str(tmp_path / "lm"))
    text = "\n".join(lines)
    assert status == 3
    assert "num-samples is 250, but" in text
    assert "label-000000004 in" in text
    assert "is not UTF-8; encode labels as UTF-8" in text
    assert "image-000000005 is empty or missing" in text
    assert "2 in all: 'lm/image-000000005', 'lm/image-000000006'" in text


def corrupt_all(folder: Path) -> None:
    for number in range(30):
        (folder / f"{number}.png").write_bytes(b"damaged")


def empty_labels_of_test(folder: Path) -> None:
    rows = [(f"{number}.png", "" if number % 3 == 2 else "1", SPLITS[number % 3]) for number in range(30)]
    table(folder, rows, header=("filename", "label", "split"))


def no_label(folder: Path) -> None:
    table(folder, [(f"{number}.png", "") for number in range(30)])


DAMAGES: list[Callable[[Path], object]] = [
    damage,
    corrupt_all,
    no_label,
    lambda folder: None,
    lambda folder: (folder / "gone.png").symlink_to("nowhere"),
    lambda folder: (folder / "7.png").unlink(),
    lambda folder: (folder / "labels.csv").write_text("filename,label\n"),
    lambda folder: shutil.copy(folder / "1.png", folder / "2.png"),
]


@pytest.mark.parametrize("allow", [(), ("empty_label", "unreadable_image"), CODES], ids=["none", "some", "all"])
@pytest.mark.parametrize(
    "change", [empty_labels_of_test, *(pytest.param(one, marks=pytest.mark.slow) for one in DAMAGES)]
)
def test_audit_accepts_data_if_and_only_if_a_run_does(
    folder: Path, tiny: dict[str, Any], registry: Registry, change: Callable[[Path], object], allow: tuple[str, ...]
) -> None:
    change(folder)
    tiny["dataset"] = {"use": "folder", "path": str(folder)}
    experiment = Experiment(**tiny, allow=allow)
    found = audit_data(experiment, registry, base_dir=Path())
    try:
        inputs = read_inputs(experiment, registry, base_dir=Path())
        accepted = inputs.audit is not None
    except DataError:
        accepted = False
    else:
        assert found.audit == inputs.audit
    assert found.accepted == accepted
    assert found.lines()[-1].startswith("accepted: " if accepted else "refused: ")


def test_audit_of_a_parquet_file_reads_it_as_a_hugging_face_dataset(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": b"damaged" if number == 4 else png(number), "path": None} for number in range(30)]
    rows = {"image": images, "text": [text_of(number) if number != 5 else None for number in range(30)]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "words.parquet")
    options = ["--set", "dataset.test_fraction=0.2", "--set", "dataset.label_column=text"]
    status, lines = audit(capfd, str(tmp_path / "words.parquet"), *options)
    text = "\n".join(lines)
    assert status == 3
    assert "refused  train/000000005: label_column 'text' has None of type" in text
    assert "refused  unreadable_image: image 'train/000000004' cannot be decoded" in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "nowhere is not a folder; check the option path of the dataset"),
        ("set/labels.csv", "labels.csv is not a folder; check the option path of the dataset"),
        ("empty", "has no labeled images"),
        ("a.zip", "a.zip is an archive, which is not read; unpack it yourself and give the folder"),
        ("pipe", "pipe is not a folder; check the option path of the dataset"),
    ],
)
def test_audit_of_what_is_no_data_is_refused_with_status_3(
    capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK\3\4")
    os.mkfifo(tmp_path / "pipe")
    status, lines = audit(capfd, str(tmp_path / name))
    assert status == 3
    assert reason in "\n".join(lines)


def test_audit_refuses_wrong_options_with_status_2(
    capfd: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for arguments in (["--set", "dataset.lables=table"], ["--allow", "everything"], ["--set", "image.hieght=3"]):
        status, _, err = call(capfd, "audit", str(folder), *arguments)
        assert status == 2, arguments
        assert "did you mean" in err or "known:" in err
    (tmp_path / "bad.toml").write_text("name = 3")
    assert call(capfd, "audit", str(tmp_path / "bad.toml"))[0] == 2
    assert call(capfd, "audit", str(tmp_path / "gone.toml"))[0] == 2
