import os
import shutil
from pathlib import Path

import pytest
from helpers.folders import make, opened, real, split_sizes, table
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from decoderbench import DataError
from decoderbench.data.audit import audit
from decoderbench.data.image_cache import open_store
from decoderbench.options import ImageOptions
from decoderbench_plugins.datasets.folder import Folder

ALL_TRAIN = (1.0, 0.0, 0.0)
HOSTILE = ["NA", "null", "007", "1e5", "=1+1", "a,b", 'say "x"', " outer ", "e\u0301", "None", "True", "\ue5dc", "#"]


def labels(folder, **options):
    samples = opened(folder, fractions=ALL_TRAIN, **options).samples()
    return {sample.key: sample.label for sample in samples}


# Labels


@given(st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_csv_labels_are_read_unchanged(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("set")
    names = [f"{index}.png" for index in range(len(texts))]
    for name in names:
        (folder / name).touch()
    table(folder, zip(names, texts, strict=True))
    assert labels(folder) == dict(zip(names, texts, strict=True))


def test_byte_order_mark_is_not_part_of_the_header(tmp_path):
    make(tmp_path, ["a.png"])
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbffilename,label\r\n./a.png,x\r\n")
    assert labels(tmp_path) == {"a.png": "x"}


def test_tab_separated_labels_are_read(tmp_path):
    make(tmp_path, ["a.png", "sub/b.png"])
    (tmp_path / "gt.txt").write_bytes(b'a.png\t "x\ty" \r\nsub/b.png\t007\n\n')
    assert labels(tmp_path) == {"a.png": ' "x\ty" ', "sub/b.png": "007"}


def test_labels_are_read_from_sidecar_files(tmp_path):
    make(tmp_path, ["a.png", "b.bin.png", "c.nrm.png", "none.png"], sub="")
    (tmp_path / "a.gt.txt").write_text(" x \n")
    (tmp_path / "b.bin.gt.txt").write_text("y")
    (tmp_path / "c.gt.txt").write_text("z\r\n")
    assert labels(tmp_path) == {"a.png": " x ", "b.bin.png": "y", "c.nrm.png": "z"}
    notes = opened(tmp_path, fractions=ALL_TRAIN).notes()
    assert notes == ["images without a label are excluded: 1 ('none.png')"]


def test_labels_are_read_from_file_names(tmp_path):
    make(tmp_path, ["226md.png", "226md_2.png", "x-7.png"], sub="")
    assert labels(tmp_path) == {"226md.png": "226md", "226md_2.png": "226md", "x-7.png": "x-7"}
    pattern = r"(?P<label>.)$"
    assert set(labels(tmp_path, filename_pattern=pattern).values()) == {"d", "2", "7"}


def test_hidden_files_and_files_that_are_not_images_are_ignored(tmp_path):
    make(tmp_path, ["a.png", ".hidden.png", ".thumbnails/b.png"], sub="")
    (tmp_path / "readme.md").write_text("x")
    assert labels(tmp_path) == {"a.png": "a"}
    assert opened(tmp_path, fractions=ALL_TRAIN).notes() == ["files not read: 1 .md ('readme.md')"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([["gone.png", "x"]], ("filename", "label"), r"labels.csv line 2: 'gone.png' does not exist"),
        ([["a.png", "x"], ["./a.png", "y"]], ("filename", "label"), "line 3: 'a.png' is already named in .* line 2"),
        ([["a.png", "x", "y"]], ("filename", "label"), "line 2 has a different number of fields than the header"),
        ([["a.png"]], ("filename", "label"), "line 2 has a different number of fields than the header"),
        ([], ("filename", "label"), "has no labeled images"),
        ([["../set.png", "x"]], ("filename", "label"), "'../set.png' leaves the folder"),
        ([["a/../../b.png", "x"]], ("filename", "label"), "leaves the folder"),
        ([["/etc/passwd", "x"]], ("filename", "label"), "'/etc/passwd' leaves the folder"),
        ([["a\0.png", "x"]], ("filename", "label"), r"'a\\x00.png' does not exist"),
        ([["n" * 300, "x"]], ("filename", "label"), "does not exist"),
        ([["", "x"]], ("filename", "label"), "'.' is not a regular file"),
        ([["sub", "x"]], ("filename", "label"), "'sub' is not a regular file"),
        ([["outside.png", "x"]], ("filename", "label"), "'outside.png' is a link that leaves the folder"),
        ([["linked/secret.png", "x"]], ("filename", "label"), "'linked/secret.png' is a link that leaves"),
        ([["fifo.png", "x"]], ("filename", "label"), "'fifo.png' is not a regular file"),
        ([["zero.png", "x"]], ("filename", "label"), "'zero.png' is a link that leaves the folder"),
        ([["cycle.png", "x"]], ("filename", "label"), "'cycle.png' is a link that leads nowhere"),
    ],
)
def test_wrong_row_or_column_is_refused_by_name(tmp_path, rows, header, message):
    folder = table(make(tmp_path / "set", ["a.png", "sub/b.png"]), rows, header)
    images = folder / "images"
    make(tmp_path, ["secret.png"], sub="elsewhere")
    (images / "outside.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "cycle.png").symlink_to("cycle.png")
    os.mkfifo(images / "fifo.png")
    with pytest.raises(DataError, match=message) as caught:
        labels(folder)
    assert caught.value.exit_code == 3


def test_link_within_the_folder_is_followed(tmp_path):
    folder = table(make(tmp_path, ["a.png"]), [["link.png", "x"]])
    (folder / "images" / "link.png").symlink_to("a.png")
    assert labels(folder) == {"link.png": "x"}


def test_link_out_of_the_folder_is_refused_with_labels_from_file_names(tmp_path):
    folder = make(tmp_path / "set", ["a.png"])
    (folder / "images" / "b.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"'b.png' is a link that leaves the folder"):
        labels(folder)


def test_file_name_that_is_not_utf8_is_refused(tmp_path):
    folder = make(tmp_path, ["a.png"])
    shutil.copy(folder / "images" / "a.png", os.fsencode(folder / "images") + b"/b\xff.png")
    with pytest.raises(DataError, match=r"'b\\udcff.png' is not valid UTF-8"):
        labels(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", b"filename,label\na.png,\xff\n", "labels.csv line 2 is not UTF-8"),
        ("labels.csv", b'filename,label\na.png,"x\n', "labels.csv line 2 is not CSV: unexpected end"),
        ("labels.txt", b"a.png\tx\nb.png y\n", "labels.txt line 2 is not a file name, a tab and a label"),
        ("images/z.gt.txt", b"x", r"1 .gt.txt files in .* have no image: 'z.gt.txt'"),
        ("images/_.png", b"x", "file name '_.png' does not match dataset.filename_pattern"),
    ],
)
def test_unreadable_labels_are_refused_by_name(tmp_path, name, content, message):
    (make(tmp_path, ["a.png"]) / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        labels(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "gone"}, "gone is not a folder; check the option path"),
        ({"path": ".", "images": "gone"}, "gone is not a folder; check the option images"),
        ({"path": ".", "labels": "csv"}, "labels.csv does not exist"),
        ({"path": ".", "labels": "tab"}, "labels.txt does not exist"),
        ({"path": "."}, "has no labeled images"),
    ],
)
def test_missing_files_named_by_options_are_refused(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        Folder(Folder.Config(**options), tmp_path).samples()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5, 0.1, 0.1)}, "must sum to 1"),
        ({"filename_pattern": "(x)"}, "no group named label"),
        ({"filename_pattern": "("}, "must be a regular expression"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Folder.Config(path=".", **options)


# Fingerprint


def test_fingerprint_depends_on_content_not_on_path(tmp_path):
    folder = table(make(tmp_path / "one", ["a.png", "b.png"]), [["a.png", "x"], ["b.png", "y"]])
    original = opened(folder, fractions=ALL_TRAIN).fingerprint()
    moved = Path(shutil.copytree(folder, tmp_path / "two"))
    assert opened(moved, fractions=ALL_TRAIN).fingerprint() == original
    table(moved, [["b.png", "y"], ["a.png", "x"]])
    assert opened(moved, fractions=ALL_TRAIN).fingerprint() == original
    table(moved, [["b.png", "y"], ["a.png", "X"]])
    assert opened(moved, fractions=ALL_TRAIN).fingerprint() != original
    (folder / "images" / "a.png").write_bytes((folder / "images" / "b.png").read_bytes())
    assert opened(folder, fractions=ALL_TRAIN).fingerprint() != original


def test_stamp_changes_with_any_change_of_a_file(tmp_path, monkeypatch):
    folder = make(tmp_path, ["a.png"])
    assert opened(folder, fractions=ALL_TRAIN).stamp() is None  # too recent
    monkeypatch.setattr("time.time", lambda: 4e9)
    first = opened(folder, fractions=ALL_TRAIN).stamp()
    assert opened(folder, fractions=ALL_TRAIN).stamp() == first
    status = (folder / "images" / "a.png").stat()
    (folder / "images" / "a.png").write_bytes(b"x" * status.st_size)
    os.utime(folder / "images" / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert opened(folder, fractions=ALL_TRAIN).stamp() != first


# Real datasets, if they are beside the project


def test_captcha_wilhelmy_is_read_without_problems(tmp_path):
    dataset = real("captcha_wilhelmy")
    samples = dataset.samples()
    assert split_sizes(samples) == [749, 107, 214]
    found = audit(samples)
    assert (len(found.characters), found.max_length) == (19, 5)
    store = open_store(dataset, samples, ImageOptions(), cache_dir=tmp_path)
    assert store.images.shape == (1070, 1, 32, 128)
    assert found.with_images(store).problems == ()


def test_labels_of_earlyprint_keep_whitespace_at_the_ends():
    texts = [sample.label for sample in real("lines_earlyprint").samples()]
    assert sum(text != text.strip() for text in texts) == 149
    assert sum("," in text for text in texts) == 125


def test_labels_of_uw3_keep_quotes():
    texts = [sample.label for sample in real("lines_uw3").samples()]
    assert (sum('"' in text for text in texts), sum("," in text for text in texts)) == (3, 171)
