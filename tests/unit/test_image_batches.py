"""Images on their way to a recognizer: the pixels of training, in order, in batches of one width, a few at a time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from decoderbench.data.image_decoding import to_pixels
from decoderbench.data.width_buckets import assign_buckets, choose_widths
from decoderbench.data.worker_processes import decoding_processes
from decoderbench.errors import DataError
from decoderbench.inference.image_batches import (
    MAX_WAITING,
    DecodedImage,
    ImageBatch,
    batches_by_width,
    bucket_width,
    decode_images,
)
from decoderbench.options import ImageOptions

KEEP = ImageOptions(height=8, width=64, resize="keep", buckets=3)


def picture(width: int, value: int = 100) -> Image.Image:
    return Image.new("L", (width, 8), value)


def test_images_come_in_order_from_files_pillow_and_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    picture(20, 1).save(file)
    array = np.full((8, 24, 3), 2, dtype=np.uint8)
    found = list(decode_images([file, str(file), picture(30, 3), array], KEEP, ahead=2))
    assert [image.index for image in found] == [0, 1, 2, 3]
    assert [None if image.pixels is None else image.pixels.shape for image in found] == [
        (1, 8, 20), (1, 8, 20), (1, 8, 30), (1, 8, 24),
    ]  # fmt: skip
    assert [int(image.pixels[0, 0, 0]) for image in found if image.pixels is not None] == [1, 1, 3, 2]


def test_image_that_cannot_be_read_has_a_reason_and_stops_no_other(tmp_path: Path) -> None:
    broken = tmp_path / "b.png"
    broken.write_bytes(b"no image")
    found = list(decode_images([tmp_path / "none.png", broken, picture(16), Image.new("F", (3, 3))], KEEP, ahead=8))
    assert [image.pixels is None for image in found] == [True, True, False, True]
    assert "No such file" in found[0].problem
    assert "cannot identify image" in found[1].problem
    assert "mode 'F' has no defined range" in found[3].problem


def test_what_a_warning_says_and_a_squeezed_width_are_notes(tmp_path: Path) -> None:
    image = Image.new("P", (80, 8))
    image.info["transparency"] = b"\0"
    image.save(tmp_path / "p.png")
    (found,) = decode_images([picture(200)], KEEP, ahead=1)
    assert found.note == "squeezed from a width of 200 pixels to 64"
    (plain,) = decode_images([picture(64)], KEEP, ahead=1)
    assert plain.note == ""


def test_image_of_pillow_is_turned_as_its_exif_orientation_requires(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(20).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        of_file, of_pillow = decode_images([tmp_path / "turned.png", image], KEEP, ahead=2)
    assert of_file.pixels is not None
    assert of_file.pixels.shape == (1, 8, 3)
    assert np.array_equal(of_file.pixels, of_pillow.pixels)


def test_only_a_few_images_are_decoded_before_they_are_asked_for() -> None:
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield picture(16)

    decoded = decode_images(endless(), KEEP, ahead=5)
    for _ in range(10):
        next(decoded)
    assert taken <= 10 + 5
    decoded.close()


def test_processes_decode_to_the_same_pixels_problems_and_notes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    for number, path in enumerate(paths[:-1]):
        picture(10 + number, number).save(path)
    with decoding_processes(2) as executor:
        assert executor is not None
        of_processes = list(decode_images(iter(paths), KEEP, ahead=64, executor=executor))
        first = next(decode_images(paths, KEEP, ahead=64, executor=executor))  # and the rest is not asked for
    of_threads = list(decode_images(paths, KEEP, ahead=64))
    assert first.index == 0
    assert [image.index for image in of_processes] == list(range(70))
    for one, other in zip(of_processes, of_threads, strict=True):
        assert (one.problem, one.note) == (other.problem, other.note)
        assert np.array_equal(one.pixels, other.pixels) if other.pixels is not None else one.pixels is None
    assert "No such file" in of_processes[-1].problem
    assert "squeezed" in of_processes[-2].note


def test_process_that_dies_is_an_error_that_says_what_to_do() -> None:
    with decoding_processes(1) as executor, pytest.raises(DataError, match=r"a process died .* --workers 0"):
        list(decode_images([partial(os._exit, 3)], KEEP, ahead=8, executor=executor))


def test_processes_that_cannot_be_started_are_an_error_and_leave_none_behind() -> None:
    program = (
        "import multiprocessing, resource\n"
        "from decoderbench.data.worker_processes import decoding_processes\n"
        "from decoderbench.errors import ConfigError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "try:\n"
        "    with decoding_processes(9):\n"
        "        pass\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "--workers 9: so many processes cannot be started (Too many open files); give fewer, or 0" in finished.stdout


def decoded(widths: list[int]) -> Iterator[DecodedImage]:
    for index, width in enumerate(widths):
        pixels = np.full((1, 8, width), index % 250, dtype=np.uint8) if width else None
        yield DecodedImage(index, pixels, problem="" if width else "unreadable")


@given(st.lists(st.integers(0, 64), max_size=60), st.integers(1, 5))
def test_every_image_is_in_one_batch_of_its_bucket_padded_by_its_last_column(widths: list[int], size: int) -> None:
    seen: list[int] = []
    for item in batches_by_width(decoded(widths), lambda width: bucket_width(width, [16, 40, 64], KEEP), size):
        if isinstance(item, DecodedImage):
            assert widths[item.index] == 0
            seen.append(item.index)
            continue
        assert 1 <= len(item.images) <= size
        for image, pixels, columns in zip(item.images, item.pixels, item.columns.tolist(), strict=True):
            assert columns == widths[image.index]
            assert pixels.shape[2] == next(width for width in (16, 40, 64) if width >= columns)
            assert (pixels == image.index % 250).all()
            seen.append(image.index)
    assert sorted(seen) == list(range(len(widths)))


def test_image_of_a_rare_width_does_not_wait_for_the_end() -> None:
    after: list[int] = []
    for item in batches_by_width(decoded([64] + [16] * 400), lambda width: width, 10):
        assert isinstance(item, ImageBatch)
        if item.pixels.shape[3] == 64:
            break
        after.append(len(item.images))
    assert sum(after) <= (MAX_WAITING + 1) * 10


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(1, 6))
def test_images_of_training_have_the_buckets_of_their_store(widths: list[int], buckets: int) -> None:
    options = ImageOptions(height=8, width=64, resize="keep", buckets=buckets)
    chosen = choose_widths(widths, options)
    bucket_of, _ = assign_buckets(np.array(widths), chosen)
    assert [bucket_width(width, chosen, options) for width in widths] == [chosen[bucket] for bucket in bucket_of]


@pytest.mark.parametrize(("columns", "width"), [(41, 48), (60, 64), (64, 64)])
def test_image_wider_than_all_buckets_has_one_of_its_own(columns: int, width: int) -> None:
    assert bucket_width(columns, [16, 40], KEEP) == width


@pytest.mark.parametrize("resize", ["stretch", "pad", "keep"])
def test_pixels_are_those_of_training(resize: str) -> None:
    options = ImageOptions.model_validate({"height": 8, "width": 40, "resize": resize})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 60, 4), dtype=np.uint8))
    (found,) = decode_images([image], options, ahead=1)
    assert found.pixels is not None
    assert np.array_equal(found.pixels, to_pixels(image, options))
