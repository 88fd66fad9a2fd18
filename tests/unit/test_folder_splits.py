"""How the images of a folder are assigned to train, val and test."""

import csv
import json
import re

import pytest
from helpers.folders import REAL, make, opened, real, split_sizes, table
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from decoderbench import DataError, Dataset
from decoderbench_plugins.datasets.folder.split_words import word_in

TEN = [f"{letter}.png" for letter in "abcdefghij"]
BY_NAME = {"labels": "filename"}


def layout(folder, images, files):
    """Write images, and files of text or of JSON data."""
    make(folder, images, sub="")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def table_of(column, *values):
    """Return a labels.csv of a.png, b.png and so on, with one more column."""
    rows = [f"{name},x{index},{value}" for index, (name, value) in enumerate(zip(TEN, values, strict=False))]
    return {"labels.csv": "\n".join([f"filename,label,{column}", *rows])}


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
    make(tmp_path, [f"word{index}.png" for index in range(100)])
    datasets = [opened(tmp_path, split_seed=seed, **BY_NAME) for seed in (0, 0, 1)]
    splits = [[sample.split for sample in dataset.samples()] for dataset in datasets]
    assert splits[0] == splits[1] != splits[2]
    assert [split_sizes(dataset.samples()) for dataset in datasets[1:]] == [[70, 10, 20]] * 2
    assert datasets[2].split_source() == "dealt by sample, seed 1: 0.7 train, 0.1 val, 0.2 test"


def test_too_few_samples_for_every_split_are_refused(tmp_path):
    make(tmp_path, ["a.png", "b.png"])
    with pytest.raises(DataError, match="split 'test' received none of the 2 samples"):
        opened(tmp_path, **BY_NAME).samples()


# Words


@pytest.mark.parametrize(
    ("word", "names"),
    [
        (
            "train",
            "train Train TRAIN training trn trains rec_gt_train train_v2 x_train.csv trainset 01-train",
        ),
        ("train", "train2017 TrainImages TRAIN_SET train-clean-100 trainA"),
        ("val", "val valid Valid validation VAL2017 dev dev-clean validationset1 val_data"),
        ("test", "test tests Testing tst testset testA PublicTest written_name_test_v2.csv test-other"),
        ("test", "held_out hold-out holdout HeldOut"),
        ("eval", "eval evaluation eval_set"),
        ("trainval", "trainval train_val trainval2012"),
        (None, "latest contest pretrain invalid devices train_test_split train_val_split train_val_test valence"),
    ],
)
def test_word_for_a_part_is_found_in_names(word, names):
    assert {name: word_in(name) for name in names.split()} == dict.fromkeys(names.split(), word)


# Given splits


ABC = "a train|b val|c test"
FOLDERS = "given by folders train, val, test"
KIND = "given by column kind of labels.csv"
PARTS = (("train", "a"), ("val", "b"), ("test", "c"))
GIVEN = [
    # images, other files, options, source
    ("train/a train|val/b val|test/c test", {}, BY_NAME, FOLDERS),
    ("x/train/a train|x/val/b val|x/test/c test", {}, BY_NAME, FOLDERS),
    ("images/train/a train|images/val/b val|images/test/c test", {}, BY_NAME, FOLDERS),
    ("train/images/a train|val/images/b val|test/images/c test", {}, BY_NAME, FOLDERS),
    ("test/train/a train|test/val/b val|test/holdout/c test", {}, BY_NAME, "given by folders train, val, holdout"),
    ("Train/a train|Valid/b val|Testing/d/c test", {}, BY_NAME, "given by folders Train, Valid, Testing"),
    ("train/a train|dev/b val|eval/c test", {}, BY_NAME, "given by folders train, dev, eval"),
    ("train/a train|eval/b val|test/c test", {}, BY_NAME, "given by folders train, eval, test"),
    ("tr/a train|va/b val|te/c test", {}, BY_NAME, "given by folders tr, va, te"),
    (
        "train/train/img0 train|train/test/img0 train|test/val/img0 test",  # the last folder is the label
        {},
        {"labels": "folder", "fractions": (0.8, 0, 0.2), "split": "given"},
        "given by folders train and test",
    ),
    (ABC, table_of("split", "train", "Validation", "TEST "), {}, "given by column split of labels.csv"),
    (ABC, table_of("Data Subset", "trn", "dev", "tst"), {}, "given by column Data Subset of labels.csv"),
    (ABC, table_of("usage", "tr", "va", "te"), {}, "given by column usage of labels.csv"),
    (ABC, table_of("kind", "train", "val", "test"), {}, KIND),
    (
        ABC,
        table_of("kind", "train 1", "val", "test 2"),
        {"split_column": "kind"},
        KIND,
    ),
    (
        ABC,
        {f"rec_gt_{part}.txt": f"{name}.png\tx{name}\n" for part, name in PARTS},
        {},
        "given by files rec_gt_train.txt, rec_gt_val.txt, rec_gt_test.txt",
    ),
    (
        "train/images/a train|val/images/b val|test/images/c test",
        {f"{part}/labels.json": {f"{name}.png": f"x{name}"} for part, name in PARTS},
        {},
        FOLDERS,
    ),
    (
        "imgs/a train|imgs/b val|imgs/c test",
        {"train.txt": "a.png\r\n", "val.txt": "imgs/b.png", "test.txt": "c"},
        BY_NAME,
        "given by lists train.txt, val.txt, test.txt",
    ),
    (
        ABC,
        {"sets/train.lst": "a", "sets/val.lst": "b", "sets/trainval.lst": "a\nb", "sets/test.lst": "c\n\n"},
        BY_NAME,
        "given by lists sets/train.lst, sets/val.lst, sets/test.lst",
    ),
    (
        "p1/a train|p1/b train|p2/c val|p3/d test",  # lists of folders
        {"train.txt": "p1", "val.txt": "p2", "test.txt": "p3"},
        BY_NAME,
        "given by lists train.txt, val.txt, test.txt",
    ),
    (
        ABC,
        {"splits.json": {"train": ["a.png"], "val": ["b"], "test": ["c.png"]}},
        BY_NAME,
        "given by lists splits.json train, splits.json val, splits.json test",
    ),
    (
        ABC,
        {"split.json": {"a.png": "train", "b.png": "val", "c.png": "test"}},
        {},
        "given by lists split.json train, split.json val, split.json test",
    ),
    (
        ABC,
        {"splits.csv": "filename,split\na.png,Train\nb.png,dev\nc.png,test\n"},
        {},
        "given by lists splits.csv Train, splits.csv dev, splits.csv test",
    ),
    (
        ABC,
        {**table_of("x", "", "", ""), **{f"{part}.csv": f"filename,label\n{name}.png,x\n" for part, name in PARTS}},
        {"labels_file": "labels.csv"},
        "given by lists train.csv, val.csv, test.csv",
    ),
    (
        "训练集/a train|验证集/b val|测试集/c test",
        {},
        BY_NAME,
        "given by folders 训练集, 验证集, 测试集",
    ),
    (
        "imgs/a train|imgs/b val|imgs/c test",
        {"train.txt": "/home/x/set/imgs/a.png", "val.txt": "D:\\set\\imgs\\b.png", "test.txt": "./imgs/c.png"},
        {},
        "given by lists train.txt, val.txt, test.txt",
    ),
    (
        "train_1 train|val_2 val|test_3 test",
        {},
        {"labels": "filename", "filename_pattern": r"_(?P<label>\d)"},
        "given by names of images train, val, test",
    ),
    ("train/train_1 train|val/train_2 val|test/test_3 test", {}, BY_NAME, FOLDERS),
]


@pytest.mark.parametrize(("images", "files", "options", "source"), GIVEN)
def test_given_split_is_followed_and_its_source_is_named(tmp_path, images, files, options, source):
    expected = {f"{name}.png": split for name, split in (one.split(" ") for one in images.split("|"))}
    layout(tmp_path, expected, files)
    dataset = opened(tmp_path, **options)
    prefix = "images/" if images.startswith("images/") else ""
    assert {prefix + sample.key: sample.split for sample in dataset.samples()} == expected
    assert dataset.split_source() == source


WORDS = {
    "train": ["train", "Training", "TRN", "train_2", "train-set", "Train2017"],
    "val": ["val", "Valid", "validation", "DEV", "val_1", "dev2"],
    "test": ["test", "Testing", "TST", "test_0", "held-out", "testset"],
}


@settings(max_examples=50)
@given(
    kind=st.sampled_from(["column", "folders", "lists", "files"]),
    drawn=st.lists(st.sampled_from(["train", "val", "test"]).flatmap(
        lambda split: st.tuples(st.just(split), st.sampled_from(WORDS[split]))), max_size=8),
    first=st.tuples(*(st.sampled_from(words) for words in WORDS.values())),
)  # fmt: skip
def test_every_sample_gets_exactly_the_split_that_its_sign_says(tmp_path_factory, kind, drawn, first):
    named = [*zip(WORDS, first, strict=True), *drawn]
    folder = "{0}/" if kind == "folders" else ""
    expected = {f"{folder.format(word)}w{index}.png": split for index, (split, word) in enumerate(named)}
    rows = [(key, f"x{index}", word) for index, (key, (_, word)) in enumerate(zip(expected, named, strict=True))]
    files = {}
    if kind == "column":
        files["labels.csv"] = "\n".join(["filename,label,split", *map(",".join, rows)])
    for key, label, word in rows if kind in ("lists", "files") else ():
        name, line = (f"{word}.txt", key) if kind == "lists" else (f"{word}.csv", f"{key},{label}")
        files[name] = f"{files.get(name, '' if kind == 'lists' else 'filename,label')}\n{line}".lstrip()
    root = layout(tmp_path_factory.mktemp("set"), expected, files)
    options = BY_NAME if kind in ("folders", "lists") else {"labels_file": tuple(files)}
    dataset = opened(root, **options)
    assert {sample.key: sample.split for sample in dataset.samples()} == expected
    assert dataset.split_source().startswith(f"given by {kind}")


# Parts that are dealt


def splits_of(dataset):
    return {sample.key: sample.split for sample in dataset.samples()}


SIXTEEN = [f"train/w{index:02}.png" for index in range(16)]


@pytest.mark.parametrize(
    ("options", "val", "source"),
    [
        ({}, {"train/w05.png", "train/w08.png"}, "; val dealt from train by sample, seed 0"),
        ({"split_seed": 1}, {"train/w00.png", "train/w11.png"}, "; val dealt from train by sample, seed 1"),
        ({"fractions": (0.8, 0.0, 0.2), "split": "given"}, set(), ""),
    ],
)
def test_missing_val_is_dealt_from_train(tmp_path, options, val, source):
    make(tmp_path, [*SIXTEEN, "test/x.png"], sub="")
    dataset = opened(tmp_path, **BY_NAME, **options)
    assert {key for key, split in splits_of(dataset).items() if split == "val"} == val
    assert {key for key, split in splits_of(dataset).items() if split == "test"} == {"test/x.png"}
    assert dataset.split_source() == f"given by folders train and test{source}"


@pytest.mark.parametrize("options", [{}, {"group_column": "page"}])
def test_missing_val_is_dealt_by_groups(tmp_path, options):
    page = {f"w{index:02}.png": f"p{index // 4:02}" for index in range(48)}
    rows = [[name, f"x{name}", page[name], "test" if page[name] > "p09" else "train"] for name in page]
    dataset = opened(table(make(tmp_path, page), rows, ("filename", "label", "page", "split")), **options)
    splits = splits_of(dataset)
    assert split_sizes(dataset.samples()) == [36, 4, 8]
    assert len({(page[name], split) for name, split in splits.items()}) == 12
    assert {name for name, split in splits.items() if split == "test"} == {row[0] for row in rows if row[3] == "test"}
    assert dataset.split_source().endswith("; val dealt from train by group page, seed 0")
    assert dataset.notes() == []


@pytest.mark.parametrize(("origin", "sizes"), [("val", [10, 3, 7]), ("train", [8, 10, 2])])
def test_test_is_dealt_from_the_part_that_the_option_names(tmp_path, origin, sizes):
    make(tmp_path, [f"{part}/{name}" for part in ("train", "val") for name in TEN], sub="")
    dataset = opened(tmp_path, test_from=origin, **BY_NAME)
    assert split_sizes(dataset.samples()) == sizes
    assert all(key.startswith(split) for key, split in splits_of(dataset).items() if split not in (origin, "test"))
    assert dataset.split_source() == f"given by folders train and val; test dealt from {origin} by sample, seed 0"


ALONE = "alone is no split: they are dealt"


@pytest.mark.parametrize(
    ("folders", "options", "note"),
    [
        (
            ["train", "test"],
            {"split": "dealt"},
            "the split given by folders train and test is not used, as",
        ),
        (["train"], {}, f"all samples are in folders train, which {ALONE}"),
        (["a/test"], {}, f"all samples are in folders test, which {ALONE}"),
        (["latest", "contest"], {}, None),
    ],
)
def test_dealt_splits_say_which_signs_were_not_used(tmp_path, folders, options, note):
    images = [f"{folder}/{name}" for folder in folders for name in TEN]
    make(tmp_path, images, sub="")
    dataset = opened(tmp_path, **BY_NAME, **options)
    assert list(splits_of(dataset).values()) == Dataset.deal_splits(sorted(images), (0.7, 0.1, 0.2), seed=0)
    assert dataset.split_source() == "dealt by sample, seed 0: 0.7 train, 0.1 val, 0.2 test"
    notes = [one for one in dataset.notes() if not re.search("under one name|without regard to their", one)]
    assert [one.startswith(note) for one in notes] == ([True] if note else [])


def test_image_folder_called_train_is_no_sign(tmp_path):
    make(tmp_path / "train", TEN, sub="train")
    dataset = opened(tmp_path / "train", images="train", **BY_NAME)
    assert split_sizes(dataset.samples()) == [7, 1, 2]
    assert dataset.notes() == []


# Groups


def pages(folder, *parts):
    """Write ten words on five pages; the parts of the words are given by a column."""
    header = ("filename", "label", "page", "split")[: 4 if parts else 3]
    rows = [[name, f"x{name}", f"p{index // 2}", *parts[index : index + 1]] for index, name in enumerate(TEN)]
    return table(make(folder, TEN), rows, header)


DIVIDED = ["train"] * 7 + ["val", "test", "test"]


def test_given_split_that_divides_groups_is_refused_until_somebody_decides(tmp_path):
    folder = pages(tmp_path, *DIVIDED)
    message = (
        r"1 of 5 groups of column page are in several parts of the split given by column split of labels.csv \('p3'\): "
        "set dataset.split = 'given' to keep it as it is, or 'dealt' to deal all samples anew"
    )
    for options in ({}, {"group_column": "page"}, {"split_column": "split"}):
        with pytest.raises(DataError, match=message):
            opened(folder, **options).samples()
    kept = opened(folder, split="given")
    assert list(splits_of(kept).values()) == DIVIDED
    assert [note for note in kept.notes() if note.startswith("1 of 5 groups of column page are in several parts")]
    dealt = opened(folder, split="dealt", group_column="page")
    homes = {(index // 2, split) for index, split in enumerate(splits_of(dealt).values())}
    assert len(homes) == 5


def groups_of(dataset):
    return [sample.group for sample in dataset.samples()]


@pytest.mark.parametrize("options", [{"split": "given"}, {"split": "dealt"}])
def test_samples_state_the_groups_that_an_option_declares(tmp_path, options):
    folder = pages(tmp_path, *DIVIDED)
    assert groups_of(opened(folder, group_column="page", **options)) == [f"p{index // 2}" for index in range(10)]
    assert set(groups_of(opened(folder, **options))) == {""}
    assert (
        opened(folder, group_column="page", split="given").fingerprint() == opened(folder, split="given").fingerprint()
    )


def test_sample_without_a_value_of_the_group_column_is_its_own_group(tmp_path):
    names = TEN[:4]
    rows = [[name, "x", page] for name, page in zip(names, ("p", "p", "", ""), strict=True)]
    dataset = opened(
        table(make(tmp_path, names), rows, ("filename", "label", "page")), group_column="page", fractions=(1, 0, 0)
    )
    assert groups_of(dataset) == ["p", "p", "", ""]


def test_images_of_one_sidecar_file_are_one_group(tmp_path):
    for stem in ("a", "b"):
        (make(tmp_path, [f"{stem}.png", f"{stem}.bin.png"], sub="") / f"{stem}.gt.txt").write_text(stem)
    (make(tmp_path, ["c.png"], sub="") / "c.gt.txt").write_text("c")
    assert groups_of(opened(tmp_path, fractions=(1, 0, 0))) == ["a.gt.txt", "a.gt.txt", "b.gt.txt", "b.gt.txt", ""]


def test_only_the_groups_that_an_option_names_count(tmp_path):
    assert list(splits_of(opened(pages(tmp_path, *DIVIDED), group_column="filename")).values()) == DIVIDED


def test_column_that_may_be_groups_is_noted_where_samples_are_dealt(tmp_path):
    folder = pages(tmp_path)
    dataset = opened(folder)
    assert list(splits_of(dataset).values()) == Dataset.deal_splits(TEN, (0.7, 0.1, 0.2), seed=0)
    hint = "column page may be groups: set dataset.group_column = 'page' to keep them together"
    assert dataset.notes() == [hint]
    grouped = opened(folder, group_column="page", fractions=(0.6, 0.2, 0.2))
    assert grouped.split_source() == "dealt by group page, seed 0: 0.6 train, 0.2 val, 0.2 test"
    assert grouped.notes() == []


# What is refused, and what is noted


TVT = ["train/a.png", "val/b.png", "test/c.png"]
AB = ["a.png", "b.png"]
CSV = {"labels": "csv"}
REFUSED = [
    # images, other files, options, message
    (
        [*TVT, "d.png", "e.png"],
        {},
        {},
        r"given by folders train, val, test has no part for 2 of 5 samples \('d.png', 'e.png'\); complete it",
    ),
    (["train/a.png", "train/b.png", "x/c.png"], {}, {}, "given by folders train has no part for 1 of 3 samples"),
    (AB, {"test.txt": "b"}, {}, "given by lists test.txt has no part for 1 of 2 samples"),
    (
        AB,
        table_of("split", "train", "extra"),
        CSV,
        "column split of labels.csv has no part for 1 of 2 samples",
    ),
    (
        TVT,
        {"test.txt": "a.png\nc.png"},
        {},
        r"disagree for 1 of 3 samples: 'train/a.png' is test by lists \(test.txt\), but train by folders \(train\)",
    ),
    (
        TVT,
        table_of("split", "test", "val", "test"),
        CSV,
        r"'train/a.png' is test by column split of labels.csv \(test\), but train by folders \(train\); correct one",
    ),
    (AB, {"train.txt": "a\nb", "test.txt": "b"}, {}, "'test.txt' and 'train.txt' name two parts for one sample"),
    (["train/test/a.png", "test/b.png"], {}, {}, "'train' and 'test' name two parts for one sample; correct them"),
    (["train/a.png", "test/b.png", "dev/c.png", "eval/d.png"], {}, {}, "eval may mean val or test, and both are named"),
    (["train/a.png", "val/b.png"], {}, {}, "given by folders train and val has no test: set dataset.test_from = 'val'"),
    (["val/a.png", "test/b.png"], {}, {}, "given by folders val and test has no train; set dataset.split = 'dealt'"),
    (TVT, {}, {"test_from": "val"}, "test_from is 'val', but the split given by .* has parts: train, val, test"),
    (["train/a.png", "test/b.png"], {}, {"test_from": "val"}, "test_from is 'val', but .* has parts: train, test"),
    (AB, {}, {"split": "given"}, "dataset.split is 'given', but no folders, columns or lists name train and test"),
    (["train/a.png", "train/b.png"], {}, {"split": "given"}, "name train and test; folders train alone is no split"),
    (AB, {"train.txt": "a\nb"}, {"split": "given"}, "name train and test; lists train.txt alone is no split"),
    (AB, {}, {"test_from": "val"}, "dataset.test_from is set, but no folders, columns or lists name train and test"),
    (
        AB,
        {"train.txt": "p8", "test.txt": "p7"},
        {},
        "test.txt and train.txt are called like lists of a split, but",
    ),
    (
        ["x/a.png", "y/a.png"],
        {"train.txt": "a.png"},
        {},
        "train.txt: 'a.png' may be x/a.png or y/a.png; write",
    ),
    (
        AB,
        table_of("is_test", "0", "1"),
        CSV,
        "column is_test: it marks one part; write the parts of all samples",
    ),
    (
        AB,
        table_of("kind", "train", "extra"),
        {**CSV, "split_column": "kind"},
        "line 3: column 'kind' has value 'extra'; allowed: train, val and test, also as training",
    ),
    (
        AB,
        table_of("kind", "train", "test"),
        {**CSV, "split_column": "book"},
        "must have one column 'book'; its columns",
    ),
    (
        AB,
        table_of("kind", "train", "test"),
        {**CSV, "group_column": "book"},
        "must have one column 'book'; its columns",
    ),
    (AB, {}, {"group_column": "book"}, "must have one column 'book'; its columns: none"),
    (AB, table_of("split,split", "train,test", "test,train"), CSV, "labels.csv has several columns 'split'"),
    (
        AB,
        table_of("split", "0", "1"),
        CSV,
        "column split is called like a split, but its values are '0', '1'; write",
    ),
    (["train_1.png", "test_2.png", "x.png"], {}, {}, "given by names of images train and test has no part for 1 of 3"),
    (
        TVT,
        {},
        {"fractions": (0.8, 0.1, 0.1)},
        "fractions have no effect, as the split is given by folders train, val, test; remove them, or set "
        "dataset.split = 'given' to allow that, or 'dealt' to deal all samples anew",
    ),
    (TVT, {}, {"split_seed": 3}, "split_seed has no effect, as the split is given by folders train, val, test"),
]


@pytest.mark.parametrize(("images", "files", "options", "message"), REFUSED)
def test_wrong_splits_are_refused(tmp_path, images, files, options, message):
    layout(tmp_path, images, files)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path, **{**BY_NAME, **options}).samples()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("images", "files", "options", "note"),
    [
        (
            TVT,
            {},
            {"fractions": (0.8, 0.1, 0.1), "split": "given"},
            "fractions have no effect, as the split is given",
        ),
        (
            [*SIXTEEN, "test/x.png"],
            {},
            {"fractions": (0.5, 0.25, 0.25)},
            "fractions apply to train and val only, 0.5",
        ),
        (TVT, {"train.txt": "a.png\ngone.png"}, {}, "train.txt names 1 files that are not there ('gone.png')"),
        (TVT, {"train.txt": "p8"}, {}, "train.txt is called like the list of a split, but names no image"),
        (
            TEN,
            table_of("fold", *"0123401234"),
            CSV,
            "column fold names no part, so it does not count as a split: '0'",
        ),
        (
            TEN,
            table_of("page", *[""] * 5, *"abcde"),
            {**CSV, "group_column": "page"},
            "column page is empty for 5",
        ),
    ],
)
def test_what_has_no_effect_on_the_split_is_noted(tmp_path, images, files, options, note):
    layout(tmp_path, images, files)
    notes = opened(tmp_path, **{**BY_NAME, **options}).notes()
    assert [one for one in notes if note in one], notes


@pytest.mark.parametrize("option", [{"split_column": "part"}, {"test_from": "val"}])
def test_options_that_need_a_given_split_are_refused_with_a_dealt_one(tmp_path, option):
    with pytest.raises(ValidationError, match="split = 'dealt' excludes split_column and test_from"):
        opened(tmp_path, split="dealt", **option)


# Real dataset


def test_given_split_of_iiit5k_divides_photographs():
    with pytest.raises(DataError, match="509 of 679 groups of column source are in several parts"):
        real("iiit5k_h64").samples()


def test_photographs_of_iiit5k_are_in_one_split_each():
    dataset = real("iiit5k_h64", group_column="source", split="dealt")
    with (REAL / "iiit5k_h64" / "labels.csv").open(newline="", encoding="utf-8") as file:
        source = {row["filename"]: row["source"] for row in csv.DictReader(file)}
    homes = {(source[sample.key], sample.split) for sample in dataset.samples()}
    assert len(homes) == len(set(source.values()))
    assert split_sizes(dataset.samples()) == pytest.approx([2847, 407, 813], abs=15)
