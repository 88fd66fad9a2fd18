"""How the images of a folder are assigned to train, val and test."""

import csv

import pytest
from helpers.folders import REAL, make, opened, real, split_sizes, table
from hypothesis import given
from hypothesis import strategies as st

from decoderbench import DataError, Dataset


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    seed=st.integers(0, 3),
)
def test_fractions_are_exact_to_within_one_group(sizes, cuts, seed):
    low, high = sorted(cuts)
    fractions = (low / 10, (high - low) / 10, (10 - high) / 10)
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    dealt = Dataset.deal_splits(groups, fractions, seed=seed)
    assert len(set(zip(groups, dealt, strict=True))) == len(sizes)
    for split, fraction in zip(("train", "val", "test"), fractions, strict=True):
        assert abs(dealt.count(split) - fraction * len(groups)) <= max(sizes)
    backwards = Dataset.deal_splits(groups[::-1], fractions, seed=seed)
    assert backwards[::-1] == dealt


def test_another_split_seed_gives_other_splits_of_the_same_sizes(tmp_path):
    make(tmp_path, [f"{index}.png" for index in range(100)])
    splits = [[s.split for s in opened(tmp_path, split_seed=seed).samples()] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [split_sizes(opened(tmp_path, split_seed=seed).samples()) for seed in (0, 1)] == [[70, 10, 20]] * 2


def test_splits_are_read_from_a_column(tmp_path):
    rows = [["a.png", "x", "train"], ["b.png", "x", "Validation"], ["c.png", "x", "test"]]
    folder = table(make(tmp_path, ["a.png", "b.png", "c.png"]), rows, ("filename", "label", "part"))
    assert [s.split for s in opened(folder, split_column="part").samples()] == ["train", "val", "test"]


def test_val_is_taken_from_train_if_no_row_has_val(tmp_path):
    names = [f"{index:02}.png" for index in range(40)]
    rows = [[name, "x", "test" if index >= 32 else "train"] for index, name in enumerate(names)]
    folder = table(make(tmp_path, names), rows, ("filename", "label", "split"))
    samples = opened(folder, split_column="split").samples()
    assert split_sizes(samples) == [28, 4, 8]
    assert all(sample.split == "test" for sample in samples[32:])


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        (["train", "dev", "test"], {}, "line 3: column 'split' has value 'dev'; allowed: train, val, test, valid"),
        (["train", "val", "val"], {}, "split 'test' received none of the 3 samples"),
        (["train", "test", "val"], {"group_column": "label"}, "1 groups of column 'label' are in several splits"),
        (["train", "test", "val"], {"group_column": "book"}, "must have one column 'book'"),
    ],
)
def test_wrong_splits_are_refused(tmp_path, splits, options, message):
    rows = [[f"{index}.png", "x", split] for index, split in enumerate(splits)]
    folder = table(make(tmp_path, [row[0] for row in rows]), rows, ("filename", "label", "split"))
    with pytest.raises(DataError, match=message):
        opened(folder, split_column="split", **options).samples()


def test_too_few_samples_for_every_split_are_refused(tmp_path):
    make(tmp_path, ["a.png", "b.png"])
    with pytest.raises(DataError, match="split 'test' received none of the 2 samples"):
        opened(tmp_path).samples()


def test_photographs_of_iiit5k_are_in_one_split_each():
    dataset = real("iiit5k_h64", group_column="source")
    with (REAL / "iiit5k_h64" / "labels.csv").open(newline="", encoding="utf-8") as file:
        source = {row["filename"]: row["source"] for row in csv.DictReader(file)}
    homes = {(source[sample.key], sample.split) for sample in dataset.samples()}
    assert len(homes) == len(set(source.values()))
    assert split_sizes(dataset.samples()) == pytest.approx([2847, 407, 813], abs=15)
