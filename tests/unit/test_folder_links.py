"""Links in a folder of images: refused, or followed if the options allow it."""

import pytest
from helpers.folders import make, opened, table

from decoderbench import DataError

ALL_TRAIN = {"fractions": (1.0, 0.0, 0.0), "split": "dealt"}


def labels_of(dataset):
    return {sample.key: sample.label for sample in dataset.samples()}


def test_links_out_of_the_folder_are_followed_if_allowed(tmp_path, monkeypatch):
    make(tmp_path, ["c.png", "d.png"], sub="elsewhere")
    folder = make(tmp_path / "set", ["a.png"], sub="")
    (folder / "b.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    with pytest.raises(DataError, match=r"'b.png' is a link that leaves the folder; set dataset.follow_links = true"):
        opened(folder, **ALL_TRAIN).samples()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    options = {**ALL_TRAIN, "follow_links": True}
    assert list(labels_of(opened(folder, **options))) == ["a.png", "b.png", "more/c.png", "more/d.png"]
    monkeypatch.setattr("time.time", lambda: 4e9)
    before = opened(folder, **options).fingerprint(), opened(folder, **options).stamp()
    make(tmp_path, ["d.png", "c.png"], sub="elsewhere")
    after = opened(folder, **options).fingerprint(), opened(folder, **options).stamp()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_links_that_form_a_cycle_are_refused(tmp_path):
    folder = make(tmp_path / "set", ["a/a.png", "b/b.png"], sub="")
    (folder / "a" / "b").symlink_to(folder / "b")
    (folder / "b" / "a").symlink_to(folder / "a")
    with pytest.raises(DataError, match="leads back to a folder that holds it"):
        opened(folder, follow_links=True, **ALL_TRAIN).samples()


def test_link_to_a_folder_is_not_left_out_in_silence(tmp_path):
    make(tmp_path, ["c.png"], sub="elsewhere")
    folder = make(tmp_path / "set", ["a.png"], sub="")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"would be left out: 'more'; set dataset.follow_links = true"):
        opened(folder, **ALL_TRAIN).samples()
    table(folder, [["a.png", "x"]])
    dataset = opened(folder, **ALL_TRAIN)
    assert labels_of(dataset) == {"a.png": "x"}
    assert dataset.notes() == ["links to folders are not followed: 'more'"]
