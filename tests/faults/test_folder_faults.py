"""Names in label tables, and archives: each wrong one is refused by name, and nothing outside is opened."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import make, opened, table
from PIL import Image

from decoderbench import DataError, Registry
from decoderbench.planning.compare_preset import fit_preset

NAMES = [f"{number}.png" for number in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ten images, beside a file that must not be read."""
    make(tmp_path / "set", NAMES)
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "set" / "images" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set" / "images" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "set" / "images" / "sub.png").mkdir()
    return tmp_path / "set"


REFUSED = {
    "missing.png": "does not exist",
    "": "",
    "../../secret.png": "leaves the folder",
    "a/../../../secret.png": "leaves the folder",
    "/etc/passwd": "leaves the folder",
    "/etc/passwd.png": "leaves the folder",
    "..\\..\\secret.png": "does not exist",
    "C:\\images\\x.png": "does not exist",
    "\\\\host\\share\\x.png": "does not exist",
    "file:///etc/passwd": "does not exist",
    "https://example.com/x.png": "does not exist",
    "x\0.png": "does not exist",
    "3.png\0.txt": "does not exist",
    "line\nbreak.png": "does not exist",
    "x" * 300 + ".png": "does not exist",
    "x/" * 3000 + "y.png": "does not exist",
    "3.PNG": "did you mean '3.png', which differs by upper and lower case",
    "３.png": "did you mean '3.png'",
    " 3.png": "did you mean '3.png', which differs by blanks",
    "3.jpg": "did you mean '3.png', which differs by its suffix",
    "out.png": "is a link that leaves the folder",
    "gone.png": "is a link that leads nowhere",
    "sub.png": "is not a regular file",
    ".": "is not a regular file",
    "~/x.png": "does not exist",
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name[:24]))
def test_name_that_denotes_no_image_of_the_folder_is_refused(folder: Path, name: str) -> None:
    rows = [(one, "label") for one in [*NAMES, name]]
    with pytest.raises(DataError) as caught:
        opened(table(folder, rows), labels_file="labels.csv").samples()
    message = str(caught.value)
    assert "1 names do not each denote one image" in message
    assert REFUSED[name] in message
    assert "labels.csv line 12" in message or "\n" in name
    assert len(message) < 1000


@pytest.mark.parametrize(("label", "reason"), [("0", "with the label '0', not '1'"), ("1", "is already named in")])
def test_name_that_is_there_twice_is_refused(folder: Path, label: str, reason: str) -> None:
    rows = [*((name, "1") for name in NAMES[1:]), (NAMES[0], label), (NAMES[0], "1")]
    with pytest.raises(
        DataError, match=rf"'0\.png' is already named in labels\.csv line 11 ?{reason if label == '0' else ''}"
    ):
        opened(table(folder, rows), labels_file="labels.csv").samples()


def test_image_that_no_row_names_is_counted(folder: Path) -> None:
    dataset = opened(table(folder, [(name, "label") for name in NAMES[:8]]), fractions=[1, 0, 0])
    assert len(dataset.samples()) == 8
    assert any(note.startswith("images without a label are excluded: 5 (") for note in dataset.notes())


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing here")
    with pytest.raises(DataError, match=r"has no labeled images; other files there: 1 \.md"):
        opened(tmp_path).samples()


# Archives


def zipped(file: Path, *names: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")


def tarred(file: Path, kind: bytes = tarfile.REGTYPE, mode: Any = "w") -> None:
    with tarfile.open(file, mode) as archive:
        member = tarfile.TarInfo("../../escaped.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(20_000_000))


def many(file: Path) -> None:
    zipped(file, *(f"{number}.png" for number in range(2_000)))


ARCHIVES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "traversal": ("a.zip", lambda file: zipped(file, "../../escaped.png")),
    "absolute": ("a.zip", lambda file: zipped(file, "/tmp/escaped.png")),
    "backslashes": ("a.zip", lambda file: zipped(file, "..\\..\\escaped.png")),
    "bomb": ("a.ZIP", bomb),
    "many members": ("a.zip", many),
    "damaged": ("a.zip", lambda file: file.write_bytes(b"PK\3\4")),
    "traversal in tar": ("a.tar", tarred),
    "symbolic link": ("a.tar", lambda file: tarred(file, tarfile.SYMTYPE)),
    "hard link": ("a.tgz", lambda file: tarred(file, tarfile.LNKTYPE, "w:gz")),
    "device": ("a.tar.xz", lambda file: tarred(file, tarfile.CHRTYPE, "w:xz")),
    "rar": ("a.rar", lambda file: file.write_bytes(b"Rar!\x1a\7\0")),
    "7z": ("a.7z", lambda file: file.write_bytes(b"7z\xbc\xaf\x27\x1c")),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_archive_is_refused_and_nothing_is_unpacked(tmp_path: Path, registry: Registry, what: str) -> None:
    name, create = ARCHIVES[what]
    (tmp_path / "set").mkdir()
    create(file := tmp_path / "set" / name)
    with pytest.raises(DataError, match="is an archive, which is not read; unpack it yourself"):
        fit_preset(file, registry)
    with pytest.raises(DataError, match="is an archive, which is not read; unpack it yourself"):
        opened(file).samples()
    with pytest.raises(DataError, match="archives are not read: unpack them yourself"):
        opened(tmp_path / "set").samples()
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["set", name])


def test_archive_beside_images_is_named_in_a_note(tmp_path: Path) -> None:
    make(tmp_path, NAMES)
    shutil.make_archive(str(tmp_path / "backup"), "zip", tmp_path / "images")
    dataset = opened(table(tmp_path, [(name, "label") for name in NAMES]))
    dataset.samples()
    assert any("backup.zip (.zip files are not read)" in note for note in dataset.notes())


def test_archive_is_refused_before_the_hugging_face_library_unpacks_it(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from decoderbench_plugins.datasets.hf import HuggingFace

    (tmp_path / "set").mkdir()
    zipped(tmp_path / "set" / "train.zip", "../../escaped.png")
    for path in ("set", "set/train.zip"):
        with pytest.raises(DataError, match="is an archive, which is not read; unpack it yourself"):
            HuggingFace(HuggingFace.Config(path=path), tmp_path).samples()
