"""Which images somebody means by files, folders and lines."""

from pathlib import Path

import pytest

from decoderbench import DataError
from decoderbench.inference.image_files import find_image_files


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_means_its_images_at_any_depth_in_order(tmp_path: Path) -> None:
    inside = [tmp_path / name for name in ("a.PNG", "b/c.jpg", "b/d.webp", "z.png")]
    touch(*inside, tmp_path / "labels.csv", tmp_path / "b/notes", tmp_path / ".hidden.png", tmp_path / ".git/x.png")
    found = find_image_files([str(tmp_path)])
    assert found.paths == tuple(inside)
    assert found.note() == "files in folders that are no images and are not read: 1 without suffix, 1 .csv"


def test_named_files_are_read_whatever_their_suffix_and_in_the_order_given(tmp_path: Path) -> None:
    touch(tmp_path / "folder" / "x.png")
    found = find_image_files(["b.txt", "missing.png", str(tmp_path / "folder"), "a.png"])
    assert found.paths == (Path("b.txt"), Path("missing.png"), tmp_path / "folder" / "x.png", Path("a.png"))
    assert found.note() == ""


def test_hyphen_means_the_lines_of_standard_input() -> None:
    found = find_image_files(["a.png", "-"], ["b c.png\n", "\n", "d.png\r\n", " e.png"])
    assert found.paths == (Path("a.png"), Path("b c.png"), Path("d.png"), Path(" e.png"))


def test_nothing_to_read_is_an_error_that_says_what_is_there_instead(tmp_path: Path) -> None:
    touch(tmp_path / "a.pdf", tmp_path / "b.pdf")
    with pytest.raises(DataError, match=r"no image there; files .* not read: 2 \.pdf; name files, or a folder"):
        find_image_files([str(tmp_path)])
    with pytest.raises(DataError, match="-: no image there; name files"):
        find_image_files(["-"], [])


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.png", tmp_path / "images" / "b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "circle").symlink_to(tmp_path / "images")
    found = find_image_files([str(tmp_path / "images")])
    assert [path.name for path in found.paths] == ["b.png", "a.png"]
