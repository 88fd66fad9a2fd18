"""A damaged image cache is found before an image is used; it is named, renamed, and built again by the next run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import DAMAGES, Damage, damage_file
from helpers.training import train
from PIL import Image

from decoderbench import ComponentConfig, Dataset, Sample
from decoderbench.data.audit import audit
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_store import DamagedImagesError, ImageStore, map_images, read_store
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.errors import DataError, PendingCellsError
from decoderbench.files.locks import holding
from decoderbench.options import ImageOptions
from decoderbench.registry.registry import Registry

COUNT = 24
OPTIONS = {
    "stretch": ImageOptions(height=8, width=16),
    "keep": ImageOptions(height=8, width=48, resize="keep", buckets=2),
}
ALL_ROWS = np.arange(COUNT)


class Noise(Dataset):
    """Image i is noise of 8 by 10 + i pixels; another `seed` makes another dataset with the same labels."""

    name = "noise"
    Config = ComponentConfig
    seed = 0
    loads = 0

    def samples(self) -> list[Sample]:
        return [Sample(f"{row}.png", "ab"[row % 2], ("train", "val", "test")[row % 3]) for row in range(COUNT)]

    def load_image(self, index: int) -> Image.Image:
        self.loads += 1
        generator = np.random.default_rng([self.seed, index])
        return Image.fromarray(generator.integers(0, 256, (8, 10 + index), dtype=np.uint8))

    def fingerprint(self) -> str:
        return f"{self.seed}"

    def stamp(self) -> str:
        return f"stamp {self.seed}"


def noise(tmp_path: Path, seed: int = 0) -> Noise:
    dataset = Noise(ComponentConfig(), tmp_path)
    dataset.seed = seed
    return dataset


def opened(dataset: Noise, resize: str = "stretch") -> ImageStore:
    cache = dataset.base_dir / "cache"
    return open_store(dataset, dataset.samples(), OPTIONS[resize], cache_dir=cache, workers=1)


def images_of(store: ImageStore) -> list[bytes]:
    """Return the images of all rows, as batches have them."""
    samples = [Sample(*one) for one in zip(store.keys, store.labels, store.splits, strict=True)]
    resident = ResidentDataset(store, audit(samples), torch.device("cpu"))
    found = {}
    for rows in resident.in_order(ALL_ROWS, 5):
        images, _, _ = resident.gather(rows)
        found |= {row: image.numpy().tobytes() for row, image in zip(rows.tolist(), images, strict=True)}
    return [found[row] for row in range(COUNT)]


def check_damage(tmp_path: Path, resize: str, damage: Damage, seed: int, log: pytest.LogCaptureFixture) -> None:
    """Damage each file of a store in turn; it is named, or harmless, and the images are those from before."""
    intact = images_of(opened(noise(tmp_path), resize))
    directory, other = (opened(noise(tmp_path, number), resize).directory for number in (0, 1))
    generator = random.Random(seed)
    for name in sorted(path.name for path in directory.iterdir() if path.suffix in (".npy", ".json")):
        log.clear()
        damage_file(directory / name, other / name, damage, generator)
        found = ""
        try:
            images = images_of(opened(noise(tmp_path), resize))
        except DamagedImagesError as error:
            found = str(error)
            images = images_of(opened(noise(tmp_path), resize))
        assert images == intact
        if found := found or log.text:
            assert str(directory) in found
            assert f"it is renamed to {directory.name}.damaged" in found
            assert (directory.with_suffix(".damaged") / name).exists()
        else:
            assert damage.__name__ == "flip_bit", "harmless in two places of a header"


@pytest.mark.parametrize("resize", OPTIONS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_store_is_named_and_decoded_again(
    tmp_path: Path, resize: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    check_damage(tmp_path, resize, damage, 0, caplog)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(1, 10))
@pytest.mark.parametrize("resize", OPTIONS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_store_is_named_and_decoded_again_225_times(
    tmp_path: Path, resize: str, damage: Damage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    check_damage(tmp_path, resize, damage, seed, caplog)


def test_flipped_bit_of_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    pixels = np.arange(96, dtype=np.uint8).reshape(3, 1, 4, 8)
    file = tmp_path / "images.npy"
    np.save(file, pixels)
    content = file.read_bytes()
    refused = 0
    for bit in range(0, 8 * (len(content) - pixels.size), 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert np.array_equal(map_images(file, [3, 1, 4, 8]), pixels)
        except (ValueError, OSError):
            refused += 1
    assert refused > 200


def flip(store: ImageStore, row: int, column: int = 0) -> None:
    """Flip a bit in a column of an image, in its file."""
    bucket = int(store.bucket_of[row])
    name = "images.npy" if len(store.buckets) == 1 else f"images-{bucket}.npy"
    images = np.load(store.directory / name, mmap_mode="r+")
    images[store.index_in_bucket[row], 0, 3, column] ^= 1
    images.flush()


def test_only_batches_with_the_damaged_image_are_refused(tmp_path: Path) -> None:
    store = opened(noise(tmp_path))
    flip(store, 7)
    store.verify(np.delete(ALL_ROWS, 7))
    for read in (lambda: store.verify(ALL_ROWS), lambda: store.pixels(7), lambda: store.images):
        with pytest.raises(DamagedImagesError, match=r"the pixels of '7\.png' in the image cache .* sha256 mismatch"):
            read()


def test_flipped_bit_in_the_padding_is_found(tmp_path: Path) -> None:
    store = opened(noise(tmp_path), "keep")
    row = int(np.flatnonzero(store.widths < np.array(store.bucket_widths)[store.bucket_of])[0])
    flip(store, row, column=-1)
    with pytest.raises(DamagedImagesError):
        store.verify(ALL_ROWS)


def test_images_are_verified_before_they_are_moved_to_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(noise(tmp_path))
    flip(store, 7)
    monkeypatch.setattr("decoderbench.data.resident_dataset._free_memory", lambda device: 10**9)
    with pytest.raises(DamagedImagesError):
        ResidentDataset(store, audit(noise(tmp_path).samples()), torch.device("meta"))


def test_verified_images_are_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(noise(tmp_path))
    store.verify(ALL_ROWS[:20])
    hashed: list[int] = []
    intact = ImageStore._is_intact
    monkeypatch.setattr(ImageStore, "_is_intact", lambda self, row: hashed.append(row) or intact(self, row))
    store.verify(ALL_ROWS)
    store.verify(ALL_ROWS)
    assert hashed == [20, 21, 22, 23]


def test_store_that_was_decoded_again_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    first, second = opened(noise(tmp_path)), opened(noise(tmp_path))
    flip(first, 7)
    with pytest.raises(DamagedImagesError, match="it is renamed to"):
        first.verify(ALL_ROWS)
    with pytest.raises(DamagedImagesError, match="another process has taken care of it"):
        second.verify(ALL_ROWS)
    third = opened(noise(tmp_path))
    with pytest.raises(DamagedImagesError, match="another process has taken care of it"):
        second.verify(ALL_ROWS)
    third.verify(ALL_ROWS)
    assert read_store(third.directory)


def test_damage_that_is_found_while_images_are_decoded_waits_for_nobody(tmp_path: Path) -> None:
    store = opened(noise(tmp_path))
    flip(store, 7)
    with holding(store.directory.with_suffix(".lock")) as held:
        assert held
        with pytest.raises(DamagedImagesError, match="another process"):
            store.verify(ALL_ROWS)
    assert store.directory.exists()


def test_store_of_other_data_in_its_place_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, other = opened(noise(tmp_path)), opened(noise(tmp_path, seed=1))
    intact = images_of(store)
    for file in other.directory.iterdir():
        (store.directory / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="it is that of other data"):
        read_store(store.directory)
    assert images_of(opened(noise(tmp_path))) == intact
    assert "it is that of other data; it is renamed to" in caplog.text


# Fingerprints


def fingerprint_file(tmp_path: Path, seed: int) -> Path:
    files = (tmp_path / "cache" / "fingerprints").iterdir()
    return next(file for file in files if json.loads(file.read_bytes())["fingerprint"] == f"{seed}")


@pytest.mark.parametrize("damage", [*DAMAGES, lambda content, other, generator: content.replace(b'"0"', b'"1"')])
def test_damaged_fingerprint_is_computed_again(tmp_path: Path, damage: Damage) -> None:
    opened(noise(tmp_path, seed=1))
    expected = opened(noise(tmp_path)).data_hash
    for seed in range(20):
        file, other = fingerprint_file(tmp_path, 0), fingerprint_file(tmp_path, 1)
        damage_file(file, other, damage, random.Random(seed))
        assert opened(noise(tmp_path)).data_hash == expected


def test_cached_fingerprint_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened(noise(tmp_path)).data_hash
    monkeypatch.setattr(Noise, "fingerprint", lambda self: "another")
    assert opened(noise(tmp_path)).data_hash == expected


# A run


def test_run_on_damaged_images_leaves_cells_pending_and_the_next_run_mends_them(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERBENCH_CACHE", str(tmp_path / "cache"))
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    expected = train(tiny, tiny_registry, tmp_path / "intact")
    (file,) = (tmp_path / "cache" / "images").glob("*/images.npy")
    images = np.load(file, mmap_mode="r+")
    images[:, 0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(PendingCellsError) as caught:
        train(tiny, tiny_registry, tmp_path / "damaged")
    assert caught.value.exit_code == 4
    assert "sha256 mismatch; it is renamed to" in str(caught.value)
    assert str(caught.value).endswith("give the same command again to go on")
    assert not list((tmp_path / "damaged").rglob("result.json"))
    frame = train(tiny, tiny_registry, tmp_path / "damaged")
    assert frame["exact_match"].tolist() == expected["exact_match"].tolist()
    assert frame["nats_per_char"].tolist() == expected["nats_per_char"].tolist()
    assert file.parent.with_suffix(".damaged").exists()
