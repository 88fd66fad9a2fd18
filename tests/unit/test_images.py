import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from decoderbench import DataError, Dataset, Sample
from decoderbench.data.image_cache import compute_data_hash, default_cache_dir, open_store
from decoderbench.data.image_decoding import to_pixels
from decoderbench.data.image_store import read_store
from decoderbench.files.storage import StorageError
from decoderbench.options import ComponentConfig, ImageOptions

SMALL = ImageOptions(height=4, width=8)


class Drawn(Dataset):
    """Image i has brightness i everywhere; subclasses break one thing."""

    name = "drawn"
    Config = ComponentConfig
    count = 30

    def samples(self):
        return [Sample(f"{i}.png", str(i), ("train", "val", "test")[i % 3]) for i in range(self.count)]

    def load_image(self, index):
        return Image.new("L", (16, 8), index)

    def fingerprint(self):
        return "1"


def opened(dataset, tmp_path, options=SMALL, **arguments):
    return open_store(dataset, dataset.samples(), options, cache_dir=tmp_path / "cache", **arguments)


def drawn(**overrides):
    return type("Changed", (Drawn,), overrides)(None, Path())


def stores(tmp_path):
    return [path for path in (tmp_path / "cache" / "images").iterdir() if path.suffix not in (".building", ".lock")]


# Conversion


@pytest.mark.parametrize(
    ("image", "gray"),
    [
        (Image.new("1", (2, 2), 1), 255),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 0)), 255),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 255)), 0),
        (Image.new("LA", (2, 2), (0, 128)), 127),
        (Image.new("CMYK", (2, 2), (0, 0, 0, 255)), 0),
        (Image.new("I;16", (2, 2), 65535), 255),
        (Image.new("I;16", (2, 2), 128 * 257), 128),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_to_pixels_converts_mode_to_gray(image, gray):
    assert set(to_pixels(image, SMALL).ravel()) == {gray}


def test_to_pixels_makes_transparent_palette_entry_white():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0])
    image.info["transparency"] = 0
    assert set(to_pixels(image, SMALL).ravel()) == {255}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_to_pixels_refuses_mode_without_a_range(mode):
    with pytest.raises(DataError, match=f"mode '{mode}' has no defined range"):
        to_pixels(Image.new(mode, (2, 2)), SMALL)


@given(width=st.integers(1, 90), height=st.integers(1, 30), channels=st.sampled_from([1, 3]))
def test_pad_keeps_aspect_ratio_and_repeats_last_column(width, height, channels):
    options = ImageOptions(height=8, width=24, channels=channels, resize="pad")
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    pixels = to_pixels(Image.fromarray(noise), options)
    drawn_width = min(24, max(1, round(width * 8 / height)))
    assert pixels.shape == (channels, 8, 24)
    assert (pixels[:, :, drawn_width - 1 :] == pixels[:, :, drawn_width - 1 : drawn_width]).all()


def test_to_pixels_puts_channels_first():
    pixels = to_pixels(Image.new("RGB", (3, 3), (1, 2, 3)), ImageOptions(height=4, width=8, channels=3))
    assert [set(plane.ravel()) for plane in pixels] == [{1}, {2}, {3}]


# The cache


def test_store_is_independent_of_the_number_of_workers(tmp_path):
    one = opened(drawn(count=200), tmp_path / "one", workers=1)
    two = opened(drawn(count=200), tmp_path / "two", workers=2)
    assert one.images.shape == (200, 1, 4, 8)
    assert (one.images[:, 0, 0, 0] == np.arange(200)).all()
    assert np.array_equal(one.images, two.images)
    assert (one.pixel_hashes, one.data_hash) == (two.pixel_hashes, two.data_hash)
    assert len(set(one.pixel_hashes)) == 200
    assert [row for row, split in enumerate(one.splits) if split == "val"] == list(range(1, 200, 3))


def test_open_store_does_not_decode_cached_images(tmp_path):
    first = opened(Drawn(None, Path()), tmp_path)

    def fail(self, index):
        raise AssertionError("decoded again")

    again = opened(drawn(load_image=fail), tmp_path)
    assert np.array_equal(first.images, again.images)
    assert (first.keys, first.labels, first.splits) == (again.keys, again.labels, again.splits)
    by_folder = read_store(first.directory)
    assert (by_folder.data_hash, by_folder.labels) == (first.data_hash, first.labels)


def test_writes_to_images_do_not_reach_the_cache(tmp_path):
    opened(Drawn(None, Path()), tmp_path).images[:] = 9  # torch warns about read-only arrays
    assert opened(Drawn(None, Path()), tmp_path).images.max() == 29


def test_data_hash_depends_on_fingerprint_and_options(tmp_path):
    stores = [
        opened(Drawn(None, Path()), tmp_path),
        opened(Drawn(None, Path()), tmp_path, ImageOptions(height=4, width=9)),
        opened(drawn(fingerprint=lambda self: "2"), tmp_path),
    ]
    assert len({store.data_hash for store in stores}) == 3


def test_default_cache_dir_follows_environment_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DECODERBENCH_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / "decoderbench"
    monkeypatch.setenv("DECODERBENCH_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    opened(Drawn(None, Path()), tmp_path, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (30, 30)


def partly_unreadable(self, index):
    if index % 2:
        raise ValueError("cannot read")
    return Image.new("L", (1, 1), index)


def test_unreadable_images_are_listed_and_no_store_is_published(tmp_path):
    with pytest.raises(DataError) as caught:
        opened(drawn(load_image=partly_unreadable), tmp_path)
    message = str(caught.value)
    assert "15 of 30 images cannot be decoded" in message
    assert "'1.png': ValueError: cannot read" in message
    assert "and 5 more" in message
    assert stores(tmp_path) == []


def test_unreadable_images_can_be_allowed(tmp_path):
    store = opened(drawn(load_image=partly_unreadable), tmp_path, allow_unreadable=True)
    assert list(store.unreadable) == list(range(1, 30, 2))
    assert store.pixel_hashes[1] == ""
    with pytest.raises(DataError, match="15 of 30 images"):
        opened(drawn(load_image=partly_unreadable), tmp_path)


def test_death_of_a_worker_is_an_error(tmp_path):
    def die(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match="a worker process died"):
        opened(drawn(load_image=die), tmp_path, workers=2)
    assert stores(tmp_path) == []


def cut_short(directory):
    with (directory / "images.npy").open("r+b") as file:
        file.truncate(500)


def grow(directory):
    with (directory / "images.npy").open("ab") as file:
        file.write(b"0")


def change_label(directory):
    meta = (directory / "meta.json").read_bytes()
    (directory / "meta.json").write_bytes(meta.replace(b'"29"', b'"28"'))


def lose_meta(directory):
    (directory / "meta.json").unlink()


def empty_array(directory):
    (directory / "images.npy").write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, grow, change_label, lose_meta, empty_array])
def test_corrupt_store_is_renamed_and_rebuilt(tmp_path, caplog, damage):
    directory = opened(Drawn(None, Path()), tmp_path).directory
    damage(directory)
    with caplog.at_level(logging.WARNING, "decoderbench"):
        store = opened(Drawn(None, Path()), tmp_path)
    assert (store.images[:, 0, 0, 0] == np.arange(30)).all()
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "and rebuilt" in warning
    assert directory.with_suffix(".damaged").is_dir()


def as_version_4(directory):
    """Rewrite the metadata of a store as earlier versions wrote them."""
    _, _, body = (directory / "meta.json").read_bytes().partition(b"\n")
    meta = json.loads(body)
    for new in ("version", "transparent", "no_contrast", "warned"):
        del meta[new]
    body = json.dumps(meta).encode()
    (directory / "meta.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_store_of_an_earlier_version_is_built_again_without_a_warning(tmp_path, caplog):
    dataset = type("Noted", (Drawn,), {"load_image": lambda self, index: Image.new("LA", (16, 8), (index, 9))})
    first = opened(dataset(None, Path()), tmp_path)
    as_version_4(first.directory)
    with pytest.raises(DataError, match="of another version"):
        read_store(first.directory)
    with caplog.at_level(logging.INFO, "decoderbench"):
        again = opened(dataset(None, Path()), tmp_path)
    assert again.directory == first.directory
    assert again.transparent == first.transparent == tuple(range(30))
    assert again.pixel_hashes == first.pixel_hashes
    assert "images are decoded again" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert stores(tmp_path) == [again.directory]


def test_data_hash_of_existing_data_is_unchanged():
    options = ImageOptions(height=32, width=128, channels=3, resize="pad")
    assert compute_data_hash(Drawn(None, Path()), options).startswith("41adfdd56ccfaeb8")


def test_full_disk_is_reported(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(StorageError, match=r"\(7,864,320 bytes\): file too large .*bytes are free there"):
            opened(Drawn(None, Path()), tmp_path, ImageOptions(height=256, width=1024), workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stores(tmp_path) == []


def test_cache_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write the image cache .* or set DECODERBENCH_CACHE"):
        opened(Drawn(None, Path()), tmp_path)


def test_other_samples_under_the_same_fingerprint_are_an_error(tmp_path):
    opened(Drawn(None, Path()), tmp_path)
    relabeled = drawn(samples=lambda self: [Sample(s.key, "?", s.split) for s in Drawn.samples(self)])
    with pytest.raises(DataError, match=r"its fingerprint\(\) must cover"):
        opened(relabeled, tmp_path)


def test_open_store_refuses_dataset_without_samples(tmp_path):
    with pytest.raises(DataError, match="'drawn' has no samples"):
        opened(drawn(count=0), tmp_path)


def test_fingerprint_is_computed_again_only_if_the_stamp_changes(tmp_path):
    class Stamped(Drawn):
        current = "a"
        asked = 0

        def stamp(self):
            return self.current

        def fingerprint(self):
            Stamped.asked += 1
            return self.current

    dataset = Stamped(None, Path())
    opened(dataset, tmp_path)
    opened(dataset, tmp_path)
    assert Stamped.asked == 1
    dataset.current = "b"
    opened(dataset, tmp_path)
    assert Stamped.asked == 2


def test_data_that_change_during_the_build_are_an_error(tmp_path):
    stamps = iter("aab")
    with pytest.raises(DataError, match="changed while its images were read"):
        opened(drawn(stamp=lambda self: next(stamps)), tmp_path)
    assert [path.suffix for path in (tmp_path / "cache" / "images").iterdir()] == [".lock"]


# Processes

SCRIPT = """
    import sys, time
    from pathlib import Path
    from PIL import Image
    from decoderbench import Dataset, Sample
    from decoderbench.data.image_cache import open_store
    from decoderbench.options import ImageOptions

    class Slow(Dataset):
        name = "slow"
        def samples(self):
            return [Sample(str(i), "x", "train") for i in range(40)]
        def load_image(self, index):
            with Path(sys.argv[2]).open("a") as log:
                log.write("x")
            time.sleep(0.01)
            return Image.new("L", (8, 4), index)
        def fingerprint(self):
            return "slow"

    slow = Slow(None, Path())
    store = open_store(slow, slow.samples(), ImageOptions(), cache_dir=Path(sys.argv[1]), workers=2)
    print(store.images[:, 0, 0, 0].sum(), "torch" in sys.modules)
"""


def test_only_one_of_two_processes_builds(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-W", "error", script, tmp_path / "cache", tmp_path / "log"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=30) for process in processes]
    assert answers == [("780 False\n", "")] * 2
    assert len((tmp_path / "log").read_text()) == 40
