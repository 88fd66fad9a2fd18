"""What the dataset `folder` says about layouts that can be misread, and that its advice fits."""

import pytest
from helpers.folders import make, opened, table

from decoderbench import DataError

TWENTY = [f"{number}.png" for number in range(20)]
ALL_TRAIN = {"fractions": (1.0, 0.0, 0.0), "split": "dealt"}


@pytest.mark.parametrize("name", ["Thumbs.db", "ehthumbs.db", "desktop.ini"])
def test_files_of_windows_are_no_labels_but_are_counted(tmp_path, name):
    make(tmp_path, ["ab.png", "cd.png"], sub="")
    (tmp_path / name).write_bytes(b"\xd0\xcf ab.png")
    dataset = opened(tmp_path, **ALL_TRAIN)
    assert [sample.label for sample in dataset.samples()] == ["ab", "cd"]
    assert any(name in note for note in dataset.notes())


def test_linked_folder_of_images_is_not_said_to_be_left_out(tmp_path):
    make(tmp_path / "elsewhere", ["0.png"], sub="")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    table(folder, [["0.png", "ab"]])
    dataset = opened(folder, **ALL_TRAIN)
    assert [sample.label for sample in dataset.samples()] == ["ab"]
    assert not [note for note in dataset.notes() if "links" in note]


def test_name_without_suffix_of_two_images_asks_for_the_suffix(tmp_path):
    table(make(tmp_path, ["0.jpg", "0.jpeg"]), [["0", "ab"]], header=("id", "label"))
    with pytest.raises(DataError, match="write the suffix too"):
        opened(tmp_path, **ALL_TRAIN).samples()


def test_table_of_a_part_names_the_images_in_the_folders_of_that_part(tmp_path):
    parts = ("train", "test")
    make(tmp_path, [f"word_{part}_images/{number}.png" for part in parts for number in range(4)], sub="")
    for part in parts:
        rows = [[f"{number}.png", f"{part}{number}"] for number in range(4)]
        table(tmp_path, rows, name=f"{part.title()}_GT.csv")
    samples = opened(tmp_path).samples()
    assert {(sample.key, sample.label) for sample in samples} == {
        (f"word_{part}_images/{number}.png", f"{part}{number}") for part in parts for number in range(4)
    }
    assert {sample.split for sample in samples if sample.label.startswith("test")} == {"test"}


def test_text_files_in_another_folder_lead_to_where_they_are_read(tmp_path):
    make(tmp_path, ["train/images/a.png"], sub="")
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "train/labels/a.txt").write_text("ab")
    with pytest.raises(DataError, match=r"labels = \"txt\" reads a\.txt beside a\.png"):
        opened(tmp_path).samples()


def test_images_named_in_two_tables_lead_to_the_option_that_chooses_one(tmp_path):
    rows = [[name, f"label of {name}"] for name in TWENTY]
    table(make(tmp_path, TWENTY), rows)
    table(tmp_path / "images", rows)
    with pytest.raises(DataError, match=r"or set dataset\.labels_file to one of the tables"):
        opened(tmp_path).samples()
    assert len(opened(tmp_path, labels_file="labels.csv").samples()) == len(TWENTY)


def test_labels_file_of_something_else_leads_to_the_option_for_file_names(tmp_path):
    make(tmp_path, ["ab.png", "cd.png"], sub="")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r'or dataset\.labels = "filename" to use the file names'):
        opened(tmp_path, **ALL_TRAIN).samples()
    assert len(opened(tmp_path, labels="filename", **ALL_TRAIN).samples()) == 2


def test_table_without_rows_is_named(tmp_path):
    table(make(tmp_path, TWENTY), [])
    with pytest.raises(DataError, match=r"no labeled images; labels\.csv .* names none"):
        opened(tmp_path).samples()


def test_columns_of_one_name_are_to_be_renamed(tmp_path):
    rows = [[name, "ab", "cd"] for name in TWENTY]
    table(make(tmp_path, TWENTY), rows, header=("filename", "label", "label"))
    with pytest.raises(DataError, match="2 columns are called 'label'; rename one"):
        opened(tmp_path).samples()


def test_scores_after_the_labels_are_a_column(tmp_path):
    make(tmp_path, TWENTY)
    (tmp_path / "labels.txt").write_text("".join(f"{name} ab 0.9{number}\n" for number, name in enumerate(TWENTY)))
    with pytest.raises(DataError, match="more than two columns and no header"):
        opened(tmp_path).samples()


def test_column_of_two_values_in_all_parts_is_no_group(tmp_path):
    parts = ("train", "val", "test")
    rows = [[name, "ab", ("web", "scan")[at % 2], parts[at % 3]] for at, name in enumerate(TWENTY)]
    table(make(tmp_path, TWENTY), rows, header=("filename", "label", "source", "split"))
    assert opened(tmp_path).split_source() == "given by column split of labels.csv"


def test_images_of_one_name_in_several_folders_are_noted(tmp_path):
    make(tmp_path, ["ab.png", "cd.png", "thumbnails/ab.png"], sub="")
    (note,) = opened(tmp_path, **ALL_TRAIN).notes()
    assert note.endswith("which may be copies: 2 ('ab.png', 'thumbnails/ab.png')")


def test_names_of_parts_are_no_labels(tmp_path):
    make(tmp_path, [f"{part}_{number}x.png" for part in ("train", "test") for number in range(5)], sub="")
    with pytest.raises(DataError, match="every label would be the name of a part of a split, such as 'test'"):
        opened(tmp_path).samples()


def test_file_name_that_does_not_match_leads_to_the_option(tmp_path):
    make(tmp_path, ["_ab.png", "_cd.png"], sub="")
    with pytest.raises(DataError, match=r"'_ab.png' does not match dataset\.filename_pattern .*; set another"):
        opened(tmp_path, **ALL_TRAIN).samples()


@pytest.mark.parametrize(("options", "noted"), [({}, True), ({"labels": "folder"}, False)])
def test_folders_that_may_be_groups_are_noted(tmp_path, options, noted):
    make(tmp_path, [f"page{page}/{page}{line}x.png" for page in range(4) for line in range(4)], sub="")
    notes = opened(tmp_path, **options, fractions=(1.0, 0.0, 0.0)).notes()
    assert any("without regard to their 4 folders ('page0', 'page1', 'page2', ...)" in note for note in notes) == noted


def test_folders_of_a_split_in_another_language_are_noted(tmp_path):
    make(
        tmp_path,
        [f"{part}/{part[0]}{number}x.png" for part in ("entrenamiento", "prueba") for number in range(10)],
        sub="",
    )
    dataset = opened(tmp_path)
    assert dataset.split_source().startswith("dealt")
    assert any(
        "2 folders ('entrenamiento', 'prueba'): if each is a part of the split" in one for one in dataset.notes()
    )


def test_link_that_leads_nowhere_is_said_to_be_one(tmp_path):
    make(tmp_path, ["ab.png"], sub="")
    (tmp_path / "cd.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"'cd\.png' is a link that leads nowhere$"):
        opened(tmp_path).samples()


def test_results_in_the_folder_of_images_are_not_read(tmp_path):
    make(tmp_path, ["ab.png", "cd.png", "results/set/accuracy.png"], sub="")
    (tmp_path / "results/set/cells/a").mkdir(parents=True)
    (tmp_path / "results/set/plan.json").write_text("{}")
    (tmp_path / "results/set/cells/a/labels.csv").write_text("filename,label\nab.png,x\ncd.png,y\n")
    dataset = opened(tmp_path, **ALL_TRAIN)
    assert [sample.label for sample in dataset.samples()] == ["ab", "cd"]
    assert dataset.notes() == ["results of decoderbench are not read: 'results/set/'"]


@pytest.mark.parametrize("options", [{"labels": "csv"}, {"labels_file": "labels.csv"}])
def test_table_that_is_missing_is_said_to_be_missing(tmp_path, options):
    make(tmp_path, ["ab.png"], sub="")
    with pytest.raises(DataError, match=r"labels\.csv does not exist$"):
        opened(tmp_path, **options).samples()
