"""Where the dataset `folder` finds labels: the layouts of common tools, and what is refused."""

import json
import sys

import pytest
from helpers.folders import make, opened

from decoderbench import DataError

ALL_TRAIN = {"fractions": (1.0, 0.0, 0.0), "split": "dealt"}
PATTERN = "(pattern '^(?P<label>[^_]+)')"


def lay_out(folder, images, files):
    """Write images, and files of text, bytes or JSON data."""
    make(folder, images.split(), sub="")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        if isinstance(content, (str, bytes)):
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def labels_of(dataset):
    return {sample.key: sample.label for sample in dataset.samples()}


LAYOUTS = [
    pytest.param(  # PaddleOCR, relative to the root
        "train/a.png test/b.png",
        {"rec_gt_train.txt": "train/a.png\t007\n", "rec_gt_test.txt": "test/b.png\tNA\r\n"},
        {"train/a.png": "007", "test/b.png": "NA"},
        "rec_gt_test.txt, rec_gt_train.txt (file name, tab, label)",
        id="paddle",
    ),
    pytest.param(  # relative to the parent of the root, with backslashes
        "train/a.png train/b.png",
        {"train_list.txt": "set/train/a.png\tx\n.\\train\\b.png\ty\n"},
        {"train/a.png": "x", "train/b.png": "y"},
        "train_list.txt (file name, tab, label)",
        id="paddle in parent",
    ),
    pytest.param(
        "train/a.png test/a.png",
        {"train/label.txt": "a.png\tx y\n", "test/label.txt": "a.png\tnull\n"},
        {"train/a.png": "x y", "test/a.png": "null"},
        "test/label.txt, train/label.txt (file name, tab, label)",
        id="tables in split folders",
    ),
    pytest.param(
        "train/images/a.png val/images/a.png",
        {"train/labels.json": {"a.png": "1e5"}, "val/labels.json": {"a.png": "True"}},
        {"train/images/a.png": "1e5", "val/images/a.png": "True"},
        "train/labels.json, val/labels.json (file name: label)",
        id="docTR",
    ),
    pytest.param(
        "0.jpg 1.jpg",
        {"labels.txt": "0.jpg hello big world\n1.jpg 5\n"},
        {"0.jpg": "hello big world", "1.jpg": "5"},
        "labels.txt (file name, blank, label)",
        id="TRDG",
    ),
    pytest.param(
        "aaia_0.jpg bbob_1.jpg ccec_2.jpg",
        {"README.md": "aaia_0.jpg"},
        {"aaia_0.jpg": "aaia", "bbob_1.jpg": "bbob", "ccec_2.jpg": "ccec"},
        f"file names {PATTERN}",
        id="TRDG -na 0",
    ),
    pytest.param(
        "word_1.png word_2.png",
        {
            "gt.txt": b'\xef\xbb\xbfword_1.png, "Tiredness"\r\nword_2.png, "a, \\"b\\\\\\""\r\n',
            "coords.txt": "word_1.png,1,2\n",
        },
        {"word_1.png": "Tiredness", "word_2.png": 'a, "b\\"'},
        "gt.txt (file name, comma, label in quotes)",
        id="ICDAR",
    ),
    pytest.param(
        "train/a.png test/a.png",
        {
            "train/metadata.csv": 'file_name,text,w\na.png,"x, y",1\n',
            "test/metadata.csv": "file_name,text,w\na.png,z,1",
        },
        {"train/a.png": "x, y", "test/a.png": "z"},
        "test/metadata.csv, train/metadata.csv (columns file_name and text)",
        id="imagefolder csv",
    ),
    pytest.param(
        "a.png b.png",
        {"metadata.jsonl": '{"file_name": "a.png", "text": "x"}\n{"text": "0042", "file_name": "b.png"}\n'},
        {"a.png": "x", "b.png": "0042"},
        "metadata.jsonl (columns file_name and text)",
        id="imagefolder jsonl",
    ),
    pytest.param(
        "train_v2/train/T_1.jpg test_v2/test/E_1.jpg",
        {
            "written_name_train_v2.csv": "FILENAME,IDENTITY\nT_1.jpg,BALTHAZAR\n",
            "written_name_test_v2.csv": "FILENAME,IDENTITY\nE_1.jpg,None\n",
        },
        {"train_v2/train/T_1.jpg": "BALTHAZAR", "test_v2/test/E_1.jpg": "None"},
        "written_name_test_v2.csv, written_name_train_v2.csv (columns FILENAME and IDENTITY)",
        id="Kaggle",
    ),
    pytest.param(
        "imgs/0001.png imgs/0002.png",
        {"train.csv": "Id,Solution\n0001,0001\n0002,x\n"},
        {"imgs/0001.png": "0001", "imgs/0002.png": "x"},
        "train.csv (columns Id and Solution)",
        id="ids without suffix",
    ),
    pytest.param(
        "A.PNG",
        {"LABELS.CSV": "FileName,Label\nA.PNG,007\n"},
        {"A.PNG": "007"},
        "LABELS.CSV (columns FileName and Label)",
        id="capitals",
    ),
    pytest.param(
        "a.png b.png",
        {"data.csv": "image;transcript\na.png;x,y\nb.png;nan\n"},
        {"a.png": "x,y", "b.png": "nan"},
        "data.csv (columns image and transcript)",
        id="semicolon",
    ),
    pytest.param(
        "a.png b.png",
        {"list.txt": "a.png|x\nb.png|z z\n"},
        {"a.png": "x", "b.png": "z z"},
        "list.txt (file name, bar, label)",
        id="bar",
    ),
    pytest.param(
        "a.png b.png",
        {"all.tsv": "path\tcaption\twidth\na.png\tx\t1\nb.png\ty\t2\n"},
        {"a.png": "x", "b.png": "y"},
        "all.tsv (columns path and caption)",
        id="tsv",
    ),
    pytest.param(
        "a.png b.png",
        {"gt.json": '[{"image": "a.png", "gt": 7}, {"image": "b.png", "gt": 1.50}]'},
        {"a.png": "7", "b.png": "1.50"},
        "gt.json (columns image and gt)",
        id="json records",
    ),
    pytest.param(
        "a.png b.png",
        {"gt.json": {"image": {"0": "a.png", "1": "b.png"}, "gt": {"0": "x", "1": "y"}}},
        {"a.png": "x", "b.png": "y"},
        "gt.json (columns image and gt)",
        id="json columns",
    ),
    pytest.param(
        "a.png b.png",
        {"gt.json": {"a.png": {"text": "x", "w": 3}, "b.png": {"text": "y", "w": 5}}},
        {"a.png": "x", "b.png": "y"},
        "gt.json (columns filename and text)",
        id="json records by name",
    ),
    pytest.param(
        "a.png b.png",
        {"t.csv": "id,image,text\n1,a.png,x\n2,b.png,y\n"},
        {"a.png": "x", "b.png": "y"},
        "t.csv (columns image and text)",
        id="names told by content",
    ),
    pytest.param(
        "226md.png 226md_2.png",
        {"train.txt": "226md.png\n", "test.txt": "226md_2\n"},
        {"226md.png": "226md", "226md_2.png": "226md"},
        f"file names {PATTERN}",
        id="lists of splits are no labels",
    ),
]


@pytest.mark.parametrize(("images", "files", "expected", "source"), LAYOUTS)
def test_labels_are_read_from_usual_layouts(tmp_path, images, files, expected, source):
    dataset = opened(lay_out(tmp_path / "set", images, files), **ALL_TRAIN)
    assert labels_of(dataset) == expected
    assert dataset.label_source() == source


@pytest.mark.parametrize(
    ("images", "files", "options", "expected"),
    [
        ("a.png b.png", {"x.tsv": "a.png\tx\t1\nb.png\ty\t2\n"}, {"label_column": "2"}, "xy"),
        ("a.png b.png", {"x.csv": "x,a.png\ny,b.png\n"}, {"name_column": "2"}, "xy"),
        ("a.png b.png", {"labels.csv": "filename,label,text\na.png,0,x\nb.png,1,y\n"}, {"label_column": "Text"}, "xy"),
        ("a.png b.png", {"labels.csv": "filename,label,text\na.png,x,0\nb.png,y,1\n"}, {"labels": "csv"}, "xy"),
        ("a.png b.png", {"x.csv": "foo,bar\na.png,x\nb.png,y\n"}, {"label_column": "bar"}, "xy"),
        ("a.png b.png", {"x/a.csv": "id,gt\na,x\nb,y\n", "b.csv": "id,gt\na,u"}, {"labels_file": "x/a.csv"}, "xy"),
        ("a.png b.png", {"1.csv": "id,gt\na,x\n", "c.txt": "b.png\ty"}, {"labels_file": ["1.csv", "c.txt"]}, "xy"),
        ("a.png b.png", {"a.txt": "x\n", "b.TXT": "y"}, {"labels": "txt"}, "xy"),
        ("x/1.png y/1.png", {}, {"labels": "folder"}, "xy"),
        ("x_1.png x_2.png x_3.png", {"labels.xml": "x_1.png"}, {"labels": "filename"}, "xxx"),
        ("1_x.png 2_y.png 3_z.png", {}, {"filename_pattern": "_(?P<label>.+)"}, "xyz"),
    ],
)
def test_options_say_where_labels_are(tmp_path, images, files, options, expected):
    dataset = opened(lay_out(tmp_path, images, files), **ALL_TRAIN, **options)
    assert "".join(labels_of(dataset).values()) == expected


UNREAD = 'files that look like labels are not read.*labels = "filename"(?s:.*)'


@pytest.mark.parametrize(
    ("images", "files", "message"),
    [
        ("a.png", {"word.xml": '<image file="a.png"/>'}, UNREAD + r"word.xml: .xml files are not read"),
        ("a.png", {"traindata.mat": b"\0\1"}, UNREAD + "traindata.mat"),
        ("a.png", {"stuff.pkl": b"\x80\x04a.png\0"}, UNREAD + "stuff.pkl"),
        ("a.png", {"words.xlsx": b"PK"}, UNREAD + "words.xlsx: cannot be read as xlsx"),
        ("a.png", {"t.parquet": b"PAR1"}, UNREAD + "t.parquet: is not parquet"),
        ("a.png", {"train.csv": b"filename,label\na.png,\xe9\n"}, UNREAD + "train.csv: line 2 is not UTF-8"),
        ("a.png", {"t.csv": "foo,bar\na.png,x\n"}, UNREAD + "no header is known .* set dataset.label_column"),
        ("a.png", {"t.csv": "x,a.png\n"}, UNREAD + "column 2 names images; set dataset.name_column"),
        (
            "a.png b.png",
            {"t.tsv": "a.png\tx\t1\nb.png\ty\t1\n"},
            UNREAD + "3 columns and no header; set dataset.label_column",
        ),
        ("ab_1.png", {"notes.txt": "the one called ab_1.png is blurred\n"}, UNREAD + "notes.txt"),
        ("a.png", {"a.txt": "x"}, UNREAD + '1 .txt files have names of images; dataset.labels = "txt"'),
        ("images/1.png", {"labels/1.txt": "x"}, UNREAD + "labels/1.txt: 1 .txt files have names of images"),
        ("images/1.png", {"labels/1.gt.txt": "x"}, UNREAD + "labels/1.gt.txt"),
        ("a.png", {"a.json": "{}"}, UNREAD + "a.json: 1 .json files have names of images"),
        ("a.png b.png", {"labels.txt": "x\ny\n"}, "labels.txt: it is no table of file names and labels"),
        ("a.png", {"labels.csv": "filename,label,text\na.png,0,x\n"}, "in 'label' or 'text'; set dataset.label_column"),
        (
            "a.png b.png",
            {"labels.csv": "file,image,text\na.png,b.png,x\n"},
            "in 'file' or 'image'; set dataset.name_column",
        ),
        ("a.png", {"Label.txt": 'a.png\t[{"transcription": "x"}]\n'}, "its labels are lists, as of text detection"),
        ("a.png", {"labels.json": {"a.png": None}}, "labels.json entry 1: the label is null, not text"),
        ("a.png", {"labels.json": [{"file": "a.png", "text": True}]}, "entry 1: the label is true, not text"),
        ("a.png", {"labels.json": '{"a.png": "x", "a.png": "y"}'}, "the key 'a.png' is there twice"),
        (
            "a.png",
            {"t.csv": "file,label\na.png,x\n", "a.gt.txt": "x"},
            "in t.csv and in 1 .gt.txt files; set dataset.labels",
        ),
        (
            "train/1.png test/2.png",
            {"train.csv": "id,label\n1,x\n", "sample_submission.csv": "id,label\n2,0\n"},
            "several tables of labels: sample_submission.csv, train.csv; set dataset.labels_file",
        ),
        (
            "a.png b.png",
            {"labels.csv": "file,label\na.png,x\nb.png,y\n", "test.csv": "file,label\nb.png,y\n"},
            "several tables of labels: labels.csv, test.csv",
        ),
        (
            "a.png",
            {"train.csv": "file,label\na.png,x\n", "test.csv": "file,label\na.png,y\n"},
            "'a.png' is already named in test.csv line 2 with the label 'y', not 'x'",
        ),
        ("train/1.png test/1.png", {"all.csv": "id,label\n1,x\n"}, "'1' could be 'train/1.png' or 'test/1.png'"),
        (
            "1/1_Lube_45.jpg 1/2_Red_7.jpg",
            {"annotation.txt": "./1/1_Lube_45.jpg 45\n./1/2_Red_7.jpg 7\n"},
            "every label is the number at the end of its file name.*'_\\(\\?P<label>\\[\\^_\\]\\+\\)_'",
        ),
        ("word_1.png word_2.png word_3.png", {}, r"all 3 labels would be 'word'.*\n.*last underscore\): '1', '2', '3'"),
        ("0_aaia.jpg 1_bbob.jpg 2_ccec.jpg", {}, r"only count up: 0, 1, 2.*\n.*: 'aaia', 'bbob', 'ccec'"),
        ("7_aaia.jpg 39_bbob.jpg 8_ccec.jpg", {}, r"numbers only \(39, 7, 8\), although the names hold other text"),
        ("img-01.png img-02.png img-03.png", {}, "only count up: img-01, img-02, img-03"),
        ("aaia/img0.png aaia/img1.png bbob/img0.png", {}, r"only count up.*\n.*labels = \"folder\".*: 'aaia', 'bbob'"),
        ("aaia/img0.png bbob/img0.png ccec/img0.png", {}, r"all 3 labels would be 'img0'.*\n.*labels = \"folder\""),
        ("a.png b.png c.heic", {}, r"images that cannot be read here would be left out: 1 .heic \('c.heic'\)"),
        ("a.png c.heic", {"labels.csv": "file,label\na.png,x\nc.heic,y\n"}, "'c.heic' is a .heic image, which cannot"),
        ("a.png c.heic", {"a.gt.txt": "x", "c.gt.txt": "y"}, "images that cannot be read here: 1 .heic"),
        ("images/a.png test/b.png", {}, r"1 images outside of .*images would be left out \('test/b.png'\)"),
        (
            "images/a.png b.png",
            {"t.csv": "file,label\na.png,x\nb.png,y\n"},
            "'b.png' is outside of the folder of images",
        ),
    ],
)
def test_labels_that_may_be_others_are_refused(tmp_path, images, files, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(lay_out(tmp_path / "set", images, files), **ALL_TRAIN).samples()
    assert caught.value.exit_code == 3


def test_files_that_are_not_read_are_named(tmp_path):
    files = {
        "labels.csv": "filename,label\na.png,x\nb.png,y\n",
        "corrections.csv": "filename,label\na.png,z\n",
        "c.heic": b"x",
        "d.heic": b"x",
        "README.md": "a.png",
    }
    dataset = opened(lay_out(tmp_path, "a.png b.png e.png", files), **ALL_TRAIN)
    assert labels_of(dataset) == {"a.png": "x", "b.png": "y"}
    assert dataset.notes() == [
        "files that look like labels and are not read: corrections.csv (which names images too)",
        "images without a label are excluded: 1 ('e.png')",
        "files not read: 2 .heic ('c.heic', ...), 1 .md ('README.md')",
    ]


@pytest.mark.parametrize("name", ["48213.png", "0_000.png"])
def test_digits_that_do_not_count_up_are_labels(tmp_path, name):
    images = [name, name.replace("0.png", "1.png"), "1934.png", "7_1.png", "5512.png"]
    assert (
        labels_of(opened(make(tmp_path, images, sub=""), **ALL_TRAIN))[name] == name.removesuffix(".png").split("_")[0]
    )


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("e\u0301a.png", "Unicode form"),
        ("\u00c9A.png", "upper and lower case"),
        (" \u00e9a.png", "blanks"),
        ("\u00e9a.jpg", "suffix"),
    ],
)
def test_name_that_is_written_another_way_is_refused_with_the_file_that_may_be_meant(tmp_path, name, difference):
    folder = lay_out(tmp_path, "\u00e9a.png b.png", {"labels.csv": f"filename,label\nb.png,x\n{name},y\n"})
    with pytest.raises(
        DataError, match=rf"line 3: .* does not exist; did you mean '\u00e9a.png', .* by .*{difference}"
    ):
        opened(folder, **ALL_TRAIN).samples()


# Tables of spreadsheets and data frames


def spreadsheet(folder, *cells):
    openpyxl = pytest.importorskip("openpyxl")
    make(folder, ["a.png", "b.png"], sub="")
    book = openpyxl.Workbook()
    for row in (["file", "text"], ["a.png", "007"], ["b.png", cells[0]]):
        book.active.append(row)
    if len(cells) > 1:
        book.active["B3"].number_format = cells[1]
    book.save(folder / "Words.XLSX")
    return opened(folder, **ALL_TRAIN)


@pytest.mark.parametrize(("cells", "label"), [((42,), "42"), ((42, "00000"), "00042"), (("1e5",), "1e5")])
def test_cells_of_xlsx_are_read_as_they_are_shown(tmp_path, cells, label):
    dataset = spreadsheet(tmp_path, *cells)
    assert labels_of(dataset) == {"a.png": "007", "b.png": label}
    assert dataset.label_source() == "Words.XLSX (columns file and text)"
    assert any("numbers in the table" in note for note in dataset.notes()) == isinstance(cells[0], int)


@pytest.mark.parametrize("cell", [True, 1.5, None, "#N/A"])
def test_cells_of_xlsx_that_are_no_text_are_refused(tmp_path, cell):
    with pytest.raises(DataError, match=r"Words.XLSX row 3: the label is .*, not text"):
        spreadsheet(tmp_path, cell).samples()


def test_xlsx_without_openpyxl_is_refused_naming_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    folder = lay_out(tmp_path, "a.png", {"labels.xlsx": b"PK"})
    with pytest.raises(DataError, match=r"labels.xlsx needs openpyxl: pip install 'decoderbench\[xlsx\]'"):
        opened(folder, **ALL_TRAIN).samples()


def test_parquet_is_read_as_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    make(tmp_path, ["a.png", "b.png"], sub="")
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "text": ["007", "NA"]}), tmp_path / "metadata.parquet")
    assert labels_of(opened(tmp_path, **ALL_TRAIN)) == {"a.png": "007", "b.png": "NA"}
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "text": ["x", None]}), tmp_path / "metadata.parquet")
    with pytest.raises(DataError, match=r"row 2: the label is null, not text"):
        opened(tmp_path, **ALL_TRAIN).samples()


def test_progress_is_reported_while_files_are_read(tmp_path):
    make(tmp_path, [f"{index * 7}x.png" for index in range(501)], sub="")
    for index in range(501):
        (tmp_path / f"{index * 7}x.gt.txt").write_text("y")
    dataset, seen = opened(tmp_path, **ALL_TRAIN), []
    dataset.report_progress = lambda done, total: seen.append((done, total))
    dataset.samples()
    assert seen == [(0, 501), (500, 501)]
    dataset.fingerprint()
    assert seen[2:] == [(500, 501), (501, 501)]
