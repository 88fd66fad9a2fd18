"""A build of the image cache that was interrupted is continued, and gives the same store as one that was not."""

import logging
import multiprocessing
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from filelock import FileLock
from PIL import Image

from decoderbench import ComponentConfig, DataError, Dataset, Sample
from decoderbench.data import image_cache
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_store import ImageStore
from decoderbench.files.storage import StorageError
from decoderbench.options import ImageOptions

COUNT = 400
STRETCH = ImageOptions(height=6, width=20)
KEEP = ImageOptions(height=6, width=20, channels=3, resize="keep", buckets=3)
Whole = Callable[..., dict[str, bytes]]


class Noise(Dataset):
    """Images of varying width; each call of `load_image` adds a line to a file.

    Some of them are squeezed by `KEEP`, some transparent, some without contrast, and some loaded with a warning.
    """

    name = "noise"
    Config = ComponentConfig
    count = COUNT
    unreadable: Sequence[int] = ()
    stamp_value: str | None = None

    def samples(self) -> Sequence[Sample]:
        return [Sample(str(row), "a", ("train", "val", "test")[row % 3]) for row in range(self.count)]

    def load_image(self, index: int) -> Image.Image:
        with (self.base_dir / "loads").open("a") as loads:
            loads.write(f"{index}\n")
        time.sleep(self.seconds(index))
        if index in self.unreadable:
            raise OSError("truncated")
        if index % 11 == 0:
            warnings.warn(f"image {index}", stacklevel=1)
        drawn = np.random.default_rng(index)
        levels = 9 if index % 13 == 0 else 256
        pixels = drawn.integers(0, levels, (12, 5 + index * 7 % 50, 4), dtype=np.uint8)
        return Image.fromarray(pixels if index % 17 == 0 else pixels[..., :3])

    def seconds(self, index: int) -> float:
        """Return how long an image takes."""
        return 0.0

    def fingerprint(self) -> str:
        return "noise"

    def stamp(self) -> str | None:
        return self.stamp_value


class Interrupted(BaseException):
    pass


def noise(tmp_path: Path, **changes: Any) -> Noise:
    changed: type[Noise] = type("Changed", (Noise,), changes)
    return changed(ComponentConfig(), tmp_path)


def opened(dataset: Noise, options: ImageOptions = STRETCH, **arguments: Any) -> ImageStore:
    cache = dataset.base_dir / "cache"
    return open_store(dataset, dataset.samples(), options, cache_dir=cache, **{"workers": 1, **arguments})


def interrupt(dataset: Noise, limit: int = COUNT // 2, options: ImageOptions = STRETCH, workers: int = 1) -> int:
    """Interrupt a build once `limit` images are done; return how many are."""
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done >= limit:
            raise Interrupted

    with pytest.raises(Interrupted):
        opened(dataset, options, workers=workers, progress=progress)
    return seen[-1]


def loads(dataset: Noise) -> list[int]:
    """Return the rows that were loaded, in order."""
    file = dataset.base_dir / "loads"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def building(dataset: Noise) -> Path:
    (folder,) = (dataset.base_dir / "cache" / "images").glob("*.building")
    return folder


def content(store: ImageStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.directory.iterdir()}


def folders(dataset: Noise) -> list[str]:
    return sorted(path.name for path in (dataset.base_dir / "cache" / "images").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Returns the files of a store that was built without an interruption."""

    @cache
    def build(options: ImageOptions = STRETCH, unreadable: Sequence[int] = ()) -> dict[str, bytes]:
        dataset = noise(tmp_path_factory.mktemp("whole"), unreadable=unreadable)
        return content(opened(dataset, options, allow_unreadable=True))

    return build


# The same store


@pytest.mark.parametrize("options", [STRETCH, KEEP], ids=["stretch", "keep"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [*(pytest.param(limits, marks=pytest.mark.slow) for limits in ([1], [COUNT])), [COUNT // 2], [1, 200, 300]],
    ids=str,
)
def test_interrupted_build_gives_the_store_of_an_uninterrupted_one(
    tmp_path: Path, whole: Whole, options: ImageOptions, workers: int, limits: list[int]
) -> None:
    dataset = noise(tmp_path)
    for limit in limits:
        done = interrupt(dataset, limit, options, workers)
    before = len(loads(dataset))
    store = opened(dataset, options, workers=workers)
    assert len(loads(dataset)) - before == COUNT - done
    assert content(store) == whole(options)
    assert folders(dataset) == [store.directory.name]
    assert len(store.squeezed) > 0 or options is STRETCH
    assert store.transparent == tuple(range(0, COUNT, 17))
    assert set(store.no_contrast) >= set(range(13, COUNT, 13)) - set(range(0, COUNT, 17))
    assert store.warned == {row: f"image {row}" for row in range(0, COUNT, 11)}


def test_build_continues_with_another_number_of_workers(tmp_path: Path, whole: Whole) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset, 1, workers=2)
    interrupt(dataset, 300, workers=1)
    assert content(opened(dataset, workers=2)) == whole()


def test_progress_starts_with_the_images_of_earlier_builds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset, 200)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, "decoderbench"):
        opened(dataset, progress=lambda done, total: seen.append((done, total)))
    done = seen[0][0]
    assert 200 <= done < COUNT
    assert seen == sorted(seen)
    assert seen[-1] == (COUNT, COUNT)
    assert len(loads(dataset)) == COUNT
    assert f"continuing: {done} of 400 images were decoded earlier" in caplog.text


# What interrupts


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError("late"), DataError("mine"), Interrupted("now")])
def test_exception_of_progress_propagates_unchanged(tmp_path: Path, workers: int, error: BaseException) -> None:
    def progress(done: int, total: int) -> None:
        raise error

    dataset = noise(tmp_path)
    with pytest.raises(type(error)) as caught:
        opened(dataset, workers=workers, progress=progress)
    assert caught.value is error
    before = len(loads(dataset))
    assert 0 < before < COUNT or workers == 2
    opened(dataset, workers=workers)
    assert len(loads(dataset)) < before + COUNT


def test_workers_stop_at_the_next_image(tmp_path: Path) -> None:
    dataset = noise(tmp_path, count=1000, seconds=lambda self, row: 0.1)
    loaded: list[int] = []

    def progress(done: int, total: int) -> None:
        loaded.append(len(loads(dataset)))
        raise Interrupted

    with pytest.raises(Interrupted):
        opened(dataset, workers=2, progress=progress)
    (before,) = loaded
    assert len(loads(dataset)) - before < 10  # without a signal to stop, two workers finish five chunks


@pytest.mark.parametrize(("workers", "chunks"), [(1, 7), (2, 8)])
def test_slow_images_are_kept_before_their_chunk_is_complete(
    tmp_path: Path, whole: Whole, workers: int, chunks: int
) -> None:
    dataset = noise(tmp_path, seconds=lambda self, row: 0.6 if row == 10 else 0.0)
    seen: list[int] = []
    store = opened(dataset, workers=workers, progress=lambda done, total: seen.append(done))
    assert len(seen) > chunks
    assert content(store) == whole()
    assert sorted(loads(dataset)) == list(range(COUNT))


def wait_for_two_chunks(dataset: Noise) -> None:
    """Return once another process has logged two chunks, of 50 rows with two workers and of 64 with one."""
    while True:
        for log in dataset.base_dir.rglob("decoded.log"):
            if log.read_bytes().count(b"\n") > 2:
                return
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_build_of_a_killed_process_is_continued(
    tmp_path: Path, whole: Whole, number: signal.Signals, workers: int
) -> None:
    dataset = noise(tmp_path, seconds=lambda self, row: 3.0 if row >= 300 else 0.0)
    reader, writer = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=opened, args=(dataset,), kwargs={"workers": workers})
    child.start()
    os.close(writer)
    wait_for_two_chunks(dataset)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join()
    assert child.exitcode == (1 if number == signal.SIGINT else -number)
    assert os.read(reader, 1) == b""  # the workers are gone too
    os.close(reader)
    before = len(loads(dataset))
    dataset = noise(tmp_path)
    assert content(opened(dataset)) == whole()
    assert len(loads(dataset)) - before <= COUNT - 2 * 50


def test_waiting_process_continues_the_build_of_a_killed_one(tmp_path: Path) -> None:
    dataset = noise(tmp_path, seconds=lambda self, row: 3.0 if row >= 300 else 0.0)
    child = multiprocessing.get_context("fork").Process(target=opened, args=(dataset,))
    child.start()
    wait_for_two_chunks(dataset)
    waiting = multiprocessing.get_context("fork").Process(target=opened, args=(noise(tmp_path),))
    waiting.start()
    child.kill()
    child.join()
    waiting.join()
    assert waiting.exitcode == 0
    assert COUNT <= len(loads(dataset)) <= COUNT + 64


def test_full_disk_keeps_the_images_decoded_so_far(tmp_path: Path, whole: Whole) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FullDisk(Noise):
        def load_image(self, index: int) -> Image.Image:
            if index == 250:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            return super().load_image(index)

    try:
        with pytest.raises(StorageError, match="file too large"):
            opened(FullDisk(ComponentConfig(), tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    dataset = noise(tmp_path)
    assert content(opened(dataset)) == whole()
    assert len(loads(dataset)) <= COUNT + 64


# What can be continued


def damage_pixel(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as file:
        file.seek(128 + 10 * 6 * 20 + 5)  # in row 10
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def tear_last_line(folder: Path) -> None:
    os.truncate(folder / "decoded.log", (folder / "decoded.log").stat().st_size - 1)


def zero_third_line(folder: Path) -> None:
    lines = (folder / "decoded.log").read_bytes().splitlines(keepends=True)
    lines[2] = bytes(len(lines[2]))
    (folder / "decoded.log").write_bytes(b"".join(lines))


def lose_pixels(folder: Path) -> None:
    size = (folder / "images.npy").stat().st_size
    os.truncate(folder / "images.npy", 128)
    os.truncate(folder / "images.npy", size)


def lose_images(folder: Path) -> None:
    (folder / "images.npy").unlink()


def shorten_images(folder: Path) -> None:
    os.truncate(folder / "images.npy", 5000)


def lose_log(folder: Path) -> None:
    (folder / "decoded.log").unlink()


@pytest.mark.parametrize(
    ("damage", "rows_kept"),
    [
        (damage_pixel, 255),
        (tear_last_line, 192),
        (zero_third_line, 64),
        (lose_pixels, 0),
        (lose_images, 0),
        (shorten_images, 0),
        (lose_log, 0),
    ],
)
def test_damaged_rows_are_decoded_again(
    tmp_path: Path, whole: Whole, damage: Callable[[Path], None], rows_kept: int
) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset, 256)
    assert len(loads(dataset)) == 256
    damage(building(dataset))
    interrupt(dataset, 300)  # what is appended to the log counts as well
    assert content(opened(dataset)) == whole()
    assert len(loads(dataset)) == 256 + COUNT - rows_kept


@pytest.mark.parametrize("unreadable", [(), (7,)])
def test_damaged_row_of_varying_width_is_decoded_again(
    tmp_path: Path, whole: Whole, unreadable: tuple[int, ...]
) -> None:
    interrupt(noise(tmp_path), 256, KEEP)
    dataset = noise(tmp_path, unreadable=unreadable)
    images = np.load(building(dataset) / "images.npy", mmap_mode="r+")
    images.reshape(COUNT, -1)[7, 0] ^= 1  # row 7 is squeezed
    images.flush()
    store = opened(dataset, KEEP, allow_unreadable=True)
    assert content(store) == whole(KEEP, unreadable)
    assert loads(dataset) == [*range(256), 7, *range(256, COUNT)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"stamp_value": "a"}, {"stamp_value": "b"}),
        ({}, {"stamp_value": "a"}),
        ({"count": 401}, {}),
        ({"samples": lambda self: list(reversed(Noise.samples(self)))}, {}),
    ],
    ids=["stamp", "no stamp", "count", "order"],
)
def test_build_of_data_that_may_have_changed_starts_over(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    interrupt(noise(tmp_path, **before))
    started = len(loads(noise(tmp_path)))
    dataset = noise(tmp_path, **after)
    opened(dataset)
    assert loads(dataset)[started:] == list(range(COUNT))


def test_build_with_the_same_stamp_is_continued(tmp_path: Path) -> None:
    dataset = noise(tmp_path, stamp_value="a")
    interrupt(dataset)
    opened(dataset)
    assert loads(dataset) == list(range(COUNT))


def test_build_with_another_version_of_pillow_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset)
    started = len(loads(dataset))
    monkeypatch.setattr(PIL, "__version__", "0")
    opened(dataset)
    assert loads(dataset)[started:] == list(range(COUNT))


def test_build_of_another_version_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole) -> None:
    dataset = noise(tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr(image_cache, "STORE_VERSION", 4)
        interrupt(dataset)
    started = len(loads(dataset))
    assert content(opened(dataset)) == whole()
    assert loads(dataset)[started:] == list(range(COUNT))


def test_build_that_was_interrupted_while_buckets_were_written_leaves_no_old_bucket(
    tmp_path: Path, whole: Whole
) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset, COUNT, KEEP)
    (building(dataset) / "images-9.npy").write_bytes(b"old")
    assert content(opened(dataset, KEEP)) == whole(KEEP)


# Unreadable images


def test_unreadable_images_are_tried_again(tmp_path: Path, whole: Whole) -> None:
    interrupt(noise(tmp_path, unreadable=[3, 5]))
    dataset = noise(tmp_path)
    started = len(loads(dataset))
    assert content(opened(dataset)) == whole()
    assert loads(dataset)[started:] == [3, 5, *range(started, COUNT)]


@pytest.mark.parametrize("options", [STRETCH, KEEP], ids=["stretch", "keep"])
def test_image_that_becomes_unreadable_has_no_pixels(tmp_path: Path, whole: Whole, options: ImageOptions) -> None:
    interrupt(noise(tmp_path), options=options)
    zero_third_line(building(noise(tmp_path)))  # so that rows 64 to 127 have pixels, but are decoded again
    dataset = noise(tmp_path, unreadable=[70])
    store = opened(dataset, options, allow_unreadable=True)
    assert list(store.unreadable) == [70]
    assert not store.pixels(70).any()
    assert content(store) == whole(options, (70,))


def test_refused_build_is_continued_once_unreadable_images_are_allowed(tmp_path: Path, whole: Whole) -> None:
    dataset = noise(tmp_path, unreadable=[9, 300])
    with pytest.raises(DataError, match="2 of 400 images cannot be decoded"):
        opened(dataset)
    store = opened(dataset, allow_unreadable=True)
    assert loads(dataset)[COUNT:] == [9, 300]
    assert content(store) == whole(STRETCH, (9, 300))


# Builds of other data


def test_only_abandoned_builds_of_other_data_are_removed(tmp_path: Path) -> None:
    dataset = noise(tmp_path)
    images = tmp_path / "cache" / "images"
    week = 7 * 24 * 3600
    ages = {"abandoned": week + 60, "recent": week - 60, "in_use": week + 60, "continued": week + 60}
    for name, age in ages.items():
        folder = images / f"{name}.building"
        folder.mkdir(parents=True)
        (folder / "decoded.log").touch()
        old = time.time() - age
        os.utime(folder / "decoded.log", (old, old))
        os.utime(folder, (old, old))
    (images / "continued.building" / "decoded.log").touch()
    with FileLock(images / "in_use.lock"):
        store = opened(dataset)
    assert folders(dataset) == sorted(
        [store.directory.name, "continued.building", "in_use.building", "recent.building"]
    )


def test_own_build_is_continued_however_old_it_is(tmp_path: Path) -> None:
    dataset = noise(tmp_path)
    interrupt(dataset)
    for path in (building(dataset), *building(dataset).iterdir()):
        os.utime(path, (0, 0))
    opened(dataset)
    assert loads(dataset) == list(range(COUNT))
