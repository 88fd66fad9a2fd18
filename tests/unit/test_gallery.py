"""Which images a page shows, and the file that keeps them."""

from __future__ import annotations

import base64
import io
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.pages import publish_readings
from PIL import Image

from decoderbench.analysis import load_report
from decoderbench.analysis.gallery import find_wanted_images
from decoderbench.analysis.kept_images import IMAGES, NUM_TRAIN, encode_image, read_images, write_images
from decoderbench.report.html_gallery import Part, differences, heat_uri

LABELS = [f"{number:03}" for number in range(60)]


def readings(wrong: set[int]) -> list[str]:
    return [f"{text}x" if place in wrong else text for place, text in enumerate(LABELS)]


def test_images_are_those_on_which_rows_differ_or_all_fail_and_a_few_that_all_read(tmp_path: Path) -> None:
    of_all = {0, 1, 2}
    publish_readings(
        tmp_path,
        {
            "CTC": [readings(of_all | {5}), readings(of_all | {5, 6})],
            "LSTM": [readings(of_all), readings(of_all | {7})],
        },
        LABELS,
    )
    analysis = load_report(tmp_path)
    kinds = {picture.position: picture.kind for picture in analysis.pictures}
    assert {place for place, kind in kinds.items() if kind == "disagree"} == {5, 6, 7}
    assert next(picture.position for picture in analysis.pictures) == 5, "both seeds of one row fail on it"
    assert {place for place, kind in kinds.items() if kind in ("wrong", "confident")} == of_all
    assert Counter(kinds.values())["right"] == 6
    assert analysis.pictures == load_report(tmp_path).pictures


def test_gallery_shows_a_bounded_number_of_images(tmp_path: Path) -> None:
    publish_readings(tmp_path, {"CTC": [readings(set(range(50)))], "LSTM": [readings(set(range(30, 60)))]}, LABELS)
    pictures = load_report(tmp_path).pictures
    assert len({picture.position for picture in pictures}) == len(pictures) <= 60


def make_store(count: int, *, height: int = 32, width: int = 96) -> Any:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 1, height, width), dtype=np.uint8)
    return SimpleNamespace(
        keys=[f"key/{row}" for row in range(count)],
        splits=["test" if row < 10 else "train" for row in range(count)],
        unreadable={3: "broken"},
        pixels=lambda row: images[row],
    )


def make_audit(store: Any) -> Any:
    def rows(of: Any, split: str) -> Any:
        own = [row for row, name in enumerate(store.splits) if name == split and row not in store.unreadable]
        return np.array(own)

    audit = SimpleNamespace(labels=[f"label {row}" for row in range(len(store.keys))], rows=rows)
    audit.parts = lambda: [audit]
    return audit


def test_kept_images_are_the_wanted_ones_and_some_of_training(tmp_path: Path) -> None:
    store = make_store(60)
    wanted = [("d", "key/1"), ("d", "key/3"), ("d", "gone"), ("other", "key/2")]
    write_images(tmp_path, wanted, {"d": (store, make_audit(store))})
    kept = read_images(tmp_path)
    assert ("d", "key/1") in kept
    assert kept["d", "key/1"].label == "label 1"
    assert Counter(image.split for image in kept.values()) == {"test": 1, "train": NUM_TRAIN}
    assert (kept["d", "key/1"].width, kept["d", "key/1"].height) == (96, 32)


def test_kept_images_stay_below_their_limit(tmp_path: Path) -> None:
    store = make_store(60, height=48, width=480)
    wanted = [(f"d{number}", key) for number in range(12) for key in store.keys[:10]]
    data = {f"d{number}": (store, make_audit(store)) for number in range(12)}
    write_images(tmp_path, wanted, cast("Any", data))
    assert 1_000_000 < sum(len(image.png) for image in read_images(tmp_path).values()) <= 1_200_000


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_image_is_small_and_looks_like_the_pixels(channels: int) -> None:
    pixels = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (channels, 64, 1))
    png = encode_image(pixels)
    image = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    assert image.shape == (48, 150)
    assert abs(image - np.linspace(0, 255, 150)).max() < 20
    assert len(png) < 3000


def test_damaged_file_of_images_is_no_image_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_images(tmp_path) == {}
    (tmp_path / IMAGES).write_bytes(b"no parquet")
    with caplog.at_level(logging.WARNING):
        assert read_images(tmp_path) == {}
    assert "images.parquet: cannot be read" in caplog.text


@pytest.mark.parametrize("png", [b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + b"0" * 100, None])
def test_bytes_that_are_no_png_are_left_out(png: bytes | None, tmp_path: Path) -> None:
    row = {"data_hash": "d", "sample": "a", "split": "test", "label": "x", "png": png}
    pd.DataFrame([row]).to_parquet(tmp_path / IMAGES)
    assert read_images(tmp_path) == {}


def test_images_with_alignments_are_wanted_first(tmp_path: Path) -> None:
    publish_readings(tmp_path, {"CTC": [readings({1})], "LSTM": [readings({2})]}, LABELS)
    analysis = load_report(tmp_path)
    assert analysis.wanted_images[0] == ("0", "test/0")
    assert {key for _, key in analysis.wanted_images} >= {"test/1", "test/2"}
    assert find_wanted_images(analysis.samples, []) == []


def test_differences_show_what_was_added_replaced_and_lost() -> None:
    assert differences("ABCD", "ABXD") == [Part("same", "AB"), Part("wrong", "X"), Part("same", "D")]
    assert differences("ABCD", "ABD") == [Part("same", "AB"), Part("missing", "C"), Part("same", "D")]
    assert differences("AB", "AB ") == [Part("same", "AB"), Part("wrong", " ")]
    assert differences("A", "A\n") == [Part("same", "A"), Part("wrong", "\\n")]
    assert differences("", "") == []
    (part,) = differences("x" * 1000, "x" * 1000)
    assert len(part.text) < 200


def test_heat_is_opaque_where_the_weight_is_largest() -> None:
    weights = np.array([[0.0, 0.5, 0.25], [0.1, 0.0, np.nan]], dtype=np.float32)
    uri = heat_uri(weights)
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    opacity = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[:, :, 3].astype(int)
    assert opacity.shape == (2, 3)
    assert opacity[0].argmax() == 1
    assert opacity[0, 0] == 0
    assert opacity[1].argmax() == 0
