"""Corrupt LMDB files: each is refused by name, and none ends the process, as a read beyond a mapped file would."""

import io
import os
import random
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from decoderbench import DataError
from decoderbench.data.image_cache import open_store
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.lmdb import LMDB

lmdb = pytest.importorskip("lmdb")

COUNT = 30
SMALL = ImageOptions(height=4, width=8)


def png(seed, size=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Images 1 to 20 are in leaf pages, the larger ones in overflow pages.
ITEMS = {
    **{b"image-%09d" % number: png(number, 40 if number <= 20 else 90) for number in range(1, COUNT + 1)},
    **{b"label-%09d" % number: b"word%d" % number for number in range(1, COUNT + 1)},
    b"num-samples": b"%d" % COUNT,
}


def write(folder, items=ITEMS, without=(), **changes):
    shutil.rmtree(folder, ignore_errors=True)
    with (
        lmdb.open(str(folder), map_size=1 << 26, lock=False, sync=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in (items | {key.encode(): value for key, value in changes.items()}).items():
            if key not in without:
                transaction.put(key, value)
    return folder / "data.mdb"


def dataset(base):
    return LMDB(LMDB.Config(train="faulty", val="val", test="test"), base)


@pytest.fixture
def base(tmp_path):
    for name in ("faulty", "val", "test"):
        write(tmp_path / name)
    return tmp_path


@pytest.fixture
def file(base):
    return base / "faulty" / "data.mdb"


@pytest.fixture
def in_this_process(monkeypatch):
    """Read in no process of its own: the file is a valid LMDB, and a fork takes longer than to read it."""

    def call(function, *arguments, report, what):
        return function(*arguments, report)

    monkeypatch.setattr("decoderbench_plugins.datasets.lmdb.dataset.call_forked", call)


def refusal(base):
    with pytest.raises(DataError) as caught:
        dataset(base).samples()
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert "faulty/data.mdb" in message
    return message


def test_file_truncated_after_listing_is_refused_before_it_is_mapped(base, file, monkeypatch):
    # In this process, which would die if a truncated file were mapped and read.
    listed = dataset(base)
    listed.samples()
    whole = file.read_bytes()
    monkeypatch.setattr(lmdb, "open", lambda *_, **__: pytest.fail("a truncated file was mapped"))
    chance = random.Random(0)
    for size in [0, 1, 16, 4096, 8191, 8192, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(500))]:
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"is truncated|is not an LMDB") as caught:
            listed.load_image(chance.randrange(COUNT))
        if size >= 8192:  # both headers are complete
            assert f"{size:,} bytes found, {len(whole):,} needed" in str(caught.value)
    monkeypatch.undo()
    file.write_bytes(whole)
    assert listed.load_image(COUNT - 1).size == (90, 90)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(base, file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert "is truncated" in refusal(base)


@pytest.mark.parametrize("content", [b"", b"image-000000001", bytes(100_000), b"\xde\xc0\xef\xbe" * 5000])
def test_file_that_is_not_an_lmdb_is_refused(base, file, content):
    file.write_bytes(content)
    assert "is not an LMDB" in refusal(base)


def test_corrupt_headers_are_refused(base, file):
    data = bytearray(file.read_bytes())
    data[16:20] = data[4096 + 16 : 4096 + 20] = b"\0\0\0\0"
    file.write_bytes(data)
    assert "is not an LMDB" in refusal(base)
    write(base / "faulty")
    data = bytearray(file.read_bytes())
    data[4096 + 16 : 4096 + 20] = b"\0\0\0\0"
    file.write_bytes(data)
    assert "two headers disagree" in refusal(base)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("count", "message"),
    [
        (b"250", "num-samples is 250, but"),
        (b"29", "num-samples is 29, but"),
        (b"0", "num-samples is 0, but"),
        (b"9" * 40, "num-samples is 99,999"),
        (b"", "is , not a count"),
        (b"-30", "is -30, not a count"),
        (b"thirty", "is thirty, not a count"),
        (b"30.0", "is 30.0, not a count"),
        (b"\xff\xfe", "not a count"),
    ],
)
def test_wrong_count_is_refused(base, count, message):
    write(base / "faulty", **{"num-samples": count})
    assert message in refusal(base)


@pytest.mark.usefixtures("in_this_process")
def test_missing_count_is_refused(base):
    write(base / "faulty", without=[b"num-samples"])
    assert "num-samples in" in (message := refusal(base))
    assert "is missing, not a count" in message


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("number", [1, 2, 17, COUNT])
@pytest.mark.parametrize("missing", ["image", "label"])
def test_image_without_label_and_label_without_image_are_named(base, number, missing):
    present = {"image": "label", "label": "image"}[missing]
    write(base / "faulty", without=[b"%s-%09d" % (missing.encode(), n) for n in (number, COUNT)])
    assert f"{present}-{number:09d} in" in (message := refusal(base))
    assert f"has no {missing}-{number:09d};" in message


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("number", [1, 17, COUNT - 1])
def test_gap_in_the_numbers_is_named(base, number):
    write(base / "faulty", without=[b"image-%09d" % number, b"label-%09d" % number])
    assert f"has b'image-{number + 1:09d}', but not image-{number:09d} and label-{number:09d}" in refusal(base)


@pytest.mark.usefixtures("in_this_process")
def test_missing_last_sample_is_detected_by_the_count(base):
    write(base / "faulty", without=[b"image-%09d" % COUNT, b"label-%09d" % COUNT])
    assert "num-samples is 30, but" in refusal(base)


@pytest.mark.usefixtures("in_this_process")
def test_keys_with_other_padding_are_named(base):
    write(base / "faulty", {key.replace(b"-0000", b"-"): value for key, value in ITEMS.items()})
    assert "has b'image-00001', but not image-000000001 and label-000000001" in refusal(base)


def test_label_that_is_not_utf8_is_named(base):
    write(base / "faulty", **{"label-000000017": "Käse".encode("latin-1")})
    assert "label-000000017" in (message := refusal(base))
    assert "is not UTF-8" in message


def test_empty_image_is_named_and_can_be_allowed(base):
    write(base / "faulty", **{"image-000000017": b""})
    faulty = dataset(base)
    arguments = {"cache_dir": base / "cache", "workers": 2}
    with pytest.raises(DataError, match="'faulty/image-000000017': image-000000017 is empty or missing"):
        open_store(faulty, faulty.samples(), SMALL, **arguments)
    store = open_store(faulty, faulty.samples(), SMALL, allow_unreadable=True, **arguments)
    assert set(store.unreadable) == {16}


def test_lock_file_of_another_host_is_neither_read_nor_written(base):
    lock = base / "faulty" / "lock.mdb"
    lock.write_bytes(random.Random(0).randbytes(8192))
    before = lock.read_bytes()
    assert len(dataset(base).samples()) == 3 * COUNT
    assert lock.read_bytes() == before
    assert not (base / "val" / "lock.mdb").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="an LMDB is read in a separate process only on Linux")
def test_file_truncated_while_it_is_read_ends_only_the_reading_process(base, file, monkeypatch):
    whole, real = file.read_bytes(), lmdb.open

    def cut_off_when_open(path, **options):
        environment = real(path, **options)
        if "faulty" in path:
            os.truncate(path, 8192)
        return environment

    listed = dataset(base)
    listed.samples()
    monkeypatch.setattr(lmdb, "open", cut_off_when_open)
    message = rf"faulty/data.mdb is corrupt: reading it ended a process \(status -{int(signal.SIGBUS)}\);"
    for read in (listed.fingerprint, dataset(base).samples):
        file.write_bytes(whole)
        with pytest.raises(DataError, match=message):
            read()


def flip(base, file, chance, cache_dir):
    """Flip a bit of the file; return the data hash if the file can still be read, otherwise None."""
    data = bytearray(file.read_bytes())
    place, bit = chance.randrange(len(data)), chance.randrange(8)
    data[place] ^= 1 << bit
    file.write_bytes(data)
    faulty = dataset(base)
    try:
        samples = faulty.samples()
        store = open_store(faulty, samples, SMALL, cache_dir=cache_dir, workers=2, allow_unreadable=True)
    except DataError as error:
        assert "faulty" in str(error)  # noqa: PT017 - both outcomes are correct
        return None
    finally:
        data[place] ^= 1 << bit
        file.write_bytes(data)
    assert len(store) == 3 * COUNT
    assert all(store.keys[row].startswith("faulty/") for row in store.unreadable)
    return store.data_hash


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_flipped_bit_never_ends_the_process(base, file, tmp_path, count):
    chance = random.Random(count)
    hashes = [flip(base, file, chance, tmp_path / "cache") for _ in range(count)]
    assert any(hashes)


def test_fingerprint_changes_with_a_flipped_bit_of_an_image(base, file):
    whole = file.read_bytes()
    before = dataset(base).fingerprint()
    for number in (1, 15, COUNT):
        value = ITEMS[b"image-%09d" % number]
        flipped = value[:50] + bytes([value[50] ^ 1]) + value[51:]
        file.write_bytes(whole.replace(value, flipped))  # unused pages contain copies
        assert dataset(base).fingerprint() != before
    file.write_bytes(whole)
    assert dataset(base).fingerprint() == before
