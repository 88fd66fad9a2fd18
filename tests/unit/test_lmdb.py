import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from decoderbench import ConfigError, DataError
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_decoding import to_pixels
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.lmdb import LMDB, forked

lmdb = pytest.importorskip("lmdb")

SMALL = ImageOptions(height=4, width=8)


@pytest.fixture(autouse=True)
def _read_in_this_process(monkeypatch):
    """Read in no process of its own: a fork of this one takes longer than to read the small files of these tests."""

    def call(function, *arguments, report, what):
        return function(*arguments, report)

    monkeypatch.setattr("decoderbench_plugins.datasets.lmdb.dataset.call_forked", call)


@pytest.fixture
def forking(monkeypatch):
    """Read in processes of their own all the same."""
    monkeypatch.setattr("decoderbench_plugins.datasets.lmdb.dataset.call_forked", forked.call_forked)


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 16), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, labels, *, subdir=True, database=None, first_image=0, engine=None, **more):
    """Write an LMDB of random images; image i is `png(first_image + i)`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    options = {"map_size": 1 << 26, "max_dbs": 1, "subdir": subdir, "lock": False, "sync": False}
    with lmdb.open(str(folder), **options, **(engine or {})) as environment:
        opened = environment.open_db(database) if database else None
        with environment.begin(write=True, db=opened) as transaction:
            for number, label in enumerate(labels, start=1):
                transaction.put(b"image-%09d" % number, png(first_image + number))
                transaction.put(b"label-%09d" % number, label.encode())
            transaction.put(b"num-samples", b"%d" % len(labels))
            for key, value in more.items():
                transaction.put(key.encode(), value)
    return folder


def texts(prefix, count):
    return [f"{prefix}{number}" for number in range(1, count + 1)]


def opened(base, **options):
    return LMDB(LMDB.Config(**options), base)


@pytest.fixture
def three(tmp_path):
    write(tmp_path / "MJ", texts("m", 40))
    write(tmp_path / "ST", texts("s", 20), first_image=100)
    write(tmp_path / "real", texts("r", 10), first_image=200)
    return tmp_path


def splits(samples):
    return Counter((sample.key.split("/")[0], sample.split) for sample in samples)


def test_labels_splits_and_pixels_are_read_unchanged(three, forking):
    dataset = opened(three, train=["MJ"], val="ST", test="real")
    samples = dataset.samples()
    assert [(s.key, s.label, s.split) for s in samples] == [
        (f"{folder}/image-{number:09d}", f"{letter}{number}", split)
        for folder, letter, count, split in (
            ("MJ", "m", 40, "train"),
            ("ST", "s", 20, "val"),
            ("real", "r", 10, "test"),
        )
        for number in range(1, count + 1)
    ]
    store = open_store(dataset, samples, SMALL, cache_dir=three / "cache", workers=2)
    seeds = [*range(1, 41), *range(101, 121), *range(201, 211)]
    expected = [to_pixels(Image.open(io.BytesIO(png(seed))), SMALL) for seed in seeds]
    assert np.array_equal(store.images, np.stack(expected))
    assert dataset.notes() == []


def test_sources_of_labels_and_splits_are_named(three):
    given = opened(three, train=["MJ"], val="ST", test="real")
    assert given.label_source() == "the keys label-000000001 and so on of MJ, ST, real"
    assert given.split_source() == "given by options: train MJ, val ST, test real"
    dealt = opened(three, train=["MJ", "ST"], test="real", split_seed=3)
    expected = "given by options: train MJ and ST, test real; val (0.05) dealt from train, seed 3"
    assert dealt.split_source() == expected


def test_progress_of_another_process_is_reported_and_can_end_it(three, forking, monkeypatch):
    monkeypatch.setattr(forked, "SECONDS_BETWEEN_REPORTS", 0)
    dataset, reports = opened(three, train="MJ", val="ST", test="real"), []
    dataset.report_progress = lambda done, total: reports.append((done, total))
    dataset.samples()
    assert reports[:3] == [(1, 80), (2, 80), (3, 80)]
    reports.clear()
    dataset.fingerprint()
    assert reports == [(done, 70) for done in range(70)]

    class EndError(Exception):
        pass

    def end(done, total):
        raise EndError

    dataset.report_progress = end
    with pytest.raises(EndError):
        dataset.fingerprint()


def test_workers_can_read_after_an_image_was_read_before_the_fork(three, forking):
    dataset = opened(three, train="MJ", val="ST", test="real")
    before = dataset.load_image(0)
    store = open_store(dataset, dataset.samples(), SMALL, cache_dir=three / "cache", workers=2)
    assert np.array_equal(store.images[0], to_pixels(before, SMALL))
    assert not store.unreadable


@pytest.mark.parametrize("engine", [{}, {"lib_version": 1}], ids=["0.9", "1.0"])
def test_single_file_and_sub_database_are_read(tmp_path, engine):
    if engine and int(lmdb.__version__.split(".")[0]) < 3:
        pytest.skip("only lmdb 3 writes the format of LMDB 1.0")
    options = {"subdir": False, "database": b"words", "engine": engine}
    write(tmp_path / "a.mdb", texts("a", 30), **options)
    write(tmp_path / "b.mdb", texts("b", 30), **options)
    dataset = opened(tmp_path, train="a.mdb", test=str(tmp_path / "b.mdb"), database="words")
    assert splits(dataset.samples()) == {("a.mdb", "train"): 28, ("a.mdb", "val"): 2, ("b.mdb", "test"): 30}
    assert dataset.load_image(0).size == (16, 8)
    assert dataset.notes() == []
    with pytest.raises(DataError, match="has no sub-database 'word'; check the option database"):
        opened(tmp_path, train="a.mdb", test="b.mdb", database="word").samples()
    with pytest.raises(DataError, match=r"num-samples in .*a.mdb is missing, not a count"):
        opened(tmp_path, train="a.mdb", test="b.mdb").samples()


def test_val_is_taken_from_train_if_no_folder_is_given(three):
    def val(**options):
        samples = opened(three, train=["MJ", "ST"], test="real", **options).samples()
        assert Counter(sample.split for sample in samples)["test"] == 10
        return {sample.key for sample in samples if sample.split == "val"}

    assert len(val()) == 3  # 2 of 40 and 1 of 20
    assert len(val(val_fraction=0.5)) == 30
    assert val(val_fraction=0.5) == val(val_fraction=0.5)
    assert val(val_fraction=0.5) != val(val_fraction=0.5, split_seed=1)


def test_ratio_reduces_the_larger_folder(three):
    dataset = opened(three, train=["MJ", "ST"], val="real", test="real2", ratio=[0.5, 0.5])
    write(three / "real2", texts("q", 3))
    assert splits(dataset.samples()) == {
        ("MJ", "train"): 20, ("ST", "train"): 20, ("real", "val"): 10, ("real2", "test"): 3,
    }  # fmt: skip
    assert dataset.notes() == [
        "ratio: 20 of 40 samples of MJ are used",
        "ratio: 20 of 20 samples of ST are used",
    ]
    other = opened(three, train=["MJ", "ST"], val="real", test="real2", ratio=[0.5, 0.5], split_seed=1)
    assert splits(other.samples()) == splits(dataset.samples())
    assert other.samples() != dataset.samples()
    assert other.fingerprint() != dataset.fingerprint()


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 9))
def test_ratio_is_exact_to_within_one_sample(three_once, first, second):
    ratio = [first / (first + second), second / (first + second)]
    dataset = opened(three_once, train=["MJ", "ST"], val="real", test="more", ratio=ratio)
    counts = splits(dataset.samples())
    total = min(40 / ratio[0], 20 / ratio[1])  # the folder with the fewest samples for its share is used completely
    assert counts["MJ", "train"] == pytest.approx(ratio[0] * total, abs=0.5)
    assert counts["ST", "train"] == pytest.approx(ratio[1] * total, abs=0.5)


@pytest.fixture(scope="module")
def three_once(tmp_path_factory):
    base = tmp_path_factory.mktemp("three")
    for name, count in (("MJ", 40), ("ST", 20), ("real", 10), ("more", 10)):
        write(base / name, texts(name, count))
    return base


def test_limit_applies_to_each_split(three):
    dataset = opened(three, train=["MJ", "ST"], val_fraction=0.5, test="real", limit=15)
    assert Counter(sample.split for sample in dataset.samples()) == {"train": 15, "val": 15, "test": 10}
    assert dataset.notes() == ["limit: 15 of 30 train samples are used", "limit: 15 of 30 val samples are used"]
    whole = opened(three, train=["MJ", "ST"], val_fraction=0.5, test="real").samples()
    assert set(dataset.samples()) <= set(whole)
    assert dataset.load_image(20).size == (16, 8)


def test_keys_of_folders_with_equal_names_include_the_parent(tmp_path):
    for name in ("train/IC13", "test/IC13", "test/IC15"):
        write(tmp_path / name, texts("x", 2))
    samples = opened(tmp_path, train="train/IC13", val="test/IC15", test="test/IC13").samples()
    assert [sample.key for sample in samples[::2]] == [
        "train/IC13/image-000000001",
        "test/IC15/image-000000001",
        "test/IC13/image-000000001",
    ]


def test_fingerprint_depends_on_content_not_on_path(three, tmp_path_factory):
    def fingerprint(base, **options):
        return opened(base, **({"train": "MJ", "val": "ST", "test": "real"} | options)).fingerprint()

    first = fingerprint(three)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "MJ", texts("m", 40), unused=b"x")  # a different file with the same samples
    write(elsewhere / "ST", texts("s", 20), first_image=100)
    write(elsewhere / "real", texts("r", 10), first_image=200)
    assert fingerprint(elsewhere) == first
    assert fingerprint(three, train="ST", val="MJ") != first
    changes = [
        {"labels": [*texts("r", 9), "other"], "first_image": 200},
        {"labels": texts("r", 9), "first_image": 200},
        {"labels": texts("r", 10), "first_image": 201},
    ]
    seen = {first}
    for number, change in enumerate(changes):
        (elsewhere / str(number)).mkdir()
        write(elsewhere / str(number) / "real", **change)
        seen.add(fingerprint(three, test=str(elsewhere / str(number) / "real")))
    assert len(seen) == 4


def test_stamp_is_none_for_recent_files(three):
    dataset = opened(three, train="MJ", val="ST", test="real")
    assert dataset.stamp() is None
    for folder in ("MJ", "ST", "real"):
        os.utime(three / folder / "data.mdb", (1e9, 1e9))
    # The change time of the inode cannot be set back.
    assert dataset.stamp() is None


def test_stamp_depends_on_the_sub_database(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)
    for folder in ("a", "b"):
        for number, database in enumerate((b"clean", b"noisy")):
            write(tmp_path / folder, texts(folder, 30), database=database, first_image=500 * number)
    clean, noisy = (opened(tmp_path, train="a", test="b", database=name) for name in ("clean", "noisy"))
    assert clean.fingerprint() != noisy.fingerprint()
    assert None is not clean.stamp() != noisy.stamp()


def test_stamp_of_old_files_changes_when_a_file_is_written(three, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)
    first = opened(three, train="MJ", val="ST", test="real").stamp()
    assert first is not None
    assert opened(three, train="MJ", val="ST", test="real").stamp() == first
    assert opened(three, train="MJ", val="ST", test="real", limit=5).stamp() != first
    with (three / "real" / "data.mdb").open("r+b") as file:
        file.write(file.read(1))
        file.truncate((three / "real" / "data.mdb").stat().st_size + 1)
    assert opened(three, train="MJ", val="ST", test="real").stamp() != first


def test_other_keys_are_ignored_and_counted(three):
    write(three / "extra", texts("x", 2), **{"path-000000001": b"a.jpg", "wordbox-1": b"1,2"})
    dataset = opened(three, train="MJ", val="ST", test="extra")
    assert dataset.notes() == ["extra: keys that are neither images nor labels are ignored: 2"]
    assert len(dataset.samples()) == 62


def test_test_is_taken_from_train_if_a_share_is_given(three):
    dataset = opened(three, train="MJ", test_fraction=0.25, val_fraction=0.1)
    assert splits(dataset.samples()) == {("MJ", "train"): 26, ("MJ", "val"): 4, ("MJ", "test"): 10}
    assert dataset.split_source() == "given by options: train MJ; val (0.1) and test (0.25) dealt from train, seed 0"
    given = opened(three, train="MJ", test="real", test_fraction=0.25).samples()
    assert given == opened(three, train="MJ", test="real").samples()


def test_all_that_is_wrong_is_reported_where_problems_are_collected(tmp_path, forking):
    write(tmp_path / "MJ", texts("m", 20), **{"num-samples": b"7", "label-000000003": b"\xff"})
    dataset, problems = opened(tmp_path, train="MJ", test_fraction=0.25), []
    dataset.report_problem = problems.append
    assert len(dataset.samples()) == 20
    assert [problem.split(" in ")[0].split(",")[0] for problem in problems] == ["label-000000003", "num-samples is 7"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "must leave something to train on"),
        ({"train": ["MJ", "ST"], "ratio": [0.5]}, "ratio must be one share above 0 for each of 2 training folders"),
        ({"train": ["MJ", "ST"], "ratio": [0.5, 0.6]}, "folders, sum 1"),
        ({"train": ["MJ", "ST"], "ratio": [1.0, 0.0]}, "above 0"),
        ({"val_fraction": 0.0}, "greater than 0"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        LMDB.Config(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "options train and test must name LMDB folders"),
        ({"train": "MJ"}, ConfigError, "options train and test must name LMDB folders"),
        ({"train": "MJ", "test": "MJ"}, DataError, "MJ is listed twice"),
        ({"train": "MJ", "test": "gone"}, DataError, "gone is not a file; give a folder with a data.mdb"),
        ({"train": "MJ", "test": "."}, DataError, "data.mdb is not a file"),
        ({"train": "MJ", "test": "fifo"}, DataError, "fifo is not a file"),
    ],
)
def test_wrong_folders_are_refused_by_name(three, options, error, message):
    os.mkfifo(three / "fifo")
    with pytest.raises(error, match=message):
        opened(three, **options).samples()


def test_lmdb_that_this_process_has_open_is_read_or_refused(three, forking):
    dataset = opened(three, train="MJ", test="real")
    with lmdb.open(str(three / "MJ"), lock=False):
        try:
            assert len(dataset.samples()) == 50
        except DataError as error:  # lmdb 3 refuses to open it twice
            assert "already open in this process" in str(error)  # noqa: PT017 - both outcomes are correct
    assert len(dataset.samples()) == 50


SCRIPT = """
import sys
from pathlib import Path
sys.modules["lmdb"] = None
from decoderbench import ConfigError
from decoderbench_plugins.datasets.lmdb import LMDB
try:
    LMDB(LMDB.Config(train="MJ", test="ST"), Path(sys.argv[1])).samples()
except ConfigError as error:
    print(error.mistakes)
"""


def test_missing_library_gives_an_error_that_names_the_extra(three):
    run = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, three], capture_output=True, text=True)
    assert "pip install 'decoderbench[lmdb]'" in run.stdout
    assert "('dataset lmdb needs" in run.stdout.replace('"', "'")
    assert run.stderr == ""


def test_import_of_the_module_does_not_import_the_library():
    code = "import sys, decoderbench_plugins.datasets.lmdb; print('lmdb' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert run.stdout == "False\n"
