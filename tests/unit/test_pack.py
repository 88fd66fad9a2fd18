"""A pack: everything in one file, the same bytes each time; refused if any part is not as it was written."""

import json
import warnings
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from helpers.recording import make_cell

from decoderbench import DataError
from decoderbench.files.integrity import seal
from decoderbench.records.pack import CARD, CHARSET, MANIFEST, WEIGHTS, Manifest, Pack, read_pack, write_pack
from decoderbench.records.schema import pack_flags

PACK = Pack(
    Manifest(cell=make_cell(), validation_log_prob=(-0.5, -1.0), validation_right=pack_flags([True, False])),
    b"weights" * 50,
    "# Card\n",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reader.zip"
    write_pack(path, PACK)
    return path


def parts_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(file: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def change_manifest(file: Path, **changes: object) -> None:
    parts = parts_of(file)
    data = json.loads(parts[MANIFEST]) | changes
    data.pop("sha256")
    rewrite(file, parts | {MANIFEST: seal(data)})


def test_reads_what_was_written_and_equal_packs_are_equal_files(file: Path, tmp_path: Path) -> None:
    read = read_pack(file)
    assert read.weights == PACK.weights
    assert read.card == PACK.card
    assert read.manifest.model_copy(update={"files": {}}) == PACK.manifest
    assert read.manifest.files[WEIGHTS].sha256 == sha256(PACK.weights).hexdigest()
    assert parts_of(file)[CHARSET].decode() == PACK.manifest.cell.labels.charset
    write_pack(tmp_path / "again.zip", PACK)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_digest_is_of_what_decides_a_start_and_stays_when_options_are_added(file: Path, tmp_path: Path) -> None:
    digest = read_pack(file).manifest.digest
    cell = PACK.manifest.cell
    renamed = cell.model_copy(update={"name": "another name"})  # what the text of the cell says besides its identity
    for path, manifest, weights, card in (
        ("card.zip", PACK.manifest, PACK.weights, "# Other card\n"),
        ("name.zip", PACK.manifest.model_copy(update={"cell": renamed}), PACK.weights, PACK.card),
    ):
        write_pack(tmp_path / path, Pack(manifest, weights, card))
        assert read_pack(tmp_path / path).manifest.digest == digest
    trained = cell.model_copy(update={"training": cell.training.model_copy(update={"ema_decay": 0.5})})
    for path, manifest, weights in (
        ("weights.zip", PACK.manifest, b"others"),
        ("cell.zip", PACK.manifest.model_copy(update={"cell": trained}), PACK.weights),
    ):
        write_pack(tmp_path / path, Pack(manifest, weights, PACK.card))
        assert read_pack(tmp_path / path).manifest.digest != digest


@pytest.mark.parametrize("part", [MANIFEST, WEIGHTS, CHARSET, CARD])
def test_changed_part_is_found_also_if_the_archive_is_in_order(file: Path, part: str) -> None:
    parts = parts_of(file)
    content = bytearray(parts[part])
    content[len(content) // 2] ^= 1
    rewrite(file, parts | {part: bytes(content)})
    with pytest.raises(DataError, match=r"damaged|is a pack of format"):
        read_pack(file)


def test_flipped_bit_of_any_content_is_found(file: Path) -> None:
    before = file.read_bytes()
    for part in parts_of(file).values():
        place = before.index(part) + len(part) // 3
        file.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        with pytest.raises(DataError):
            read_pack(file)


@pytest.mark.parametrize("length", [0, 1, 100, -30])
def test_cut_off_file_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DataError, match="is no pack, or damaged"):
        read_pack(file)


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/escape.txt", "code.py", "weights.safetensors"])
def test_further_part_is_refused_and_written_nowhere(file: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of a name that is there
        parts = parts_of(file)
        with zipfile.ZipFile(file, "w") as archive:
            for part in (*parts.items(), (name, b"x")):
                archive.writestr(*part)
    with pytest.raises(DataError, match="damaged: its parts are"):
        read_pack(file)
    assert list(file.parent.iterdir()) == [file]


def test_missing_part_is_refused(file: Path) -> None:
    parts = parts_of(file)
    del parts[CARD]
    rewrite(file, parts)
    with pytest.raises(DataError, match="damaged: its parts are"):
        read_pack(file)


def test_other_archive_is_said_to_be_no_pack(tmp_path: Path) -> None:
    rewrite(tmp_path / "x.zip", {"a.txt": b"a"})
    with pytest.raises(DataError, match=r"is no pack of decoderbench: it has no manifest\.json"):
        read_pack(tmp_path / "x.zip")


def test_compressed_part_is_refused_before_it_is_unpacked(file: Path) -> None:
    parts = parts_of(file)
    rewrite(file, parts | {WEIGHTS: bytes(10**8)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"manifest\.json: is compressed"):
        read_pack(file)


def test_pack_of_a_newer_version_is_named(file: Path) -> None:
    change_manifest(file, format=2, decoderbench="9.0")
    with pytest.raises(DataError, match=r"is a pack of format 2, written by decoderbench '9\.0'; .* reads format 1"):
        read_pack(file)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cell": {}}, r"manifest\.json: cell\.experiment: Field required"),
        ({"unknown": 1}, r"manifest\.json: unknown: Extra inputs"),
        ({"validation_right": ""}, "validation_right: 0 truth values instead of 2"),
        ({"files": {}}, r"does not say what weights\.safetensors is"),
    ],
)
def test_manifest_that_says_something_else_is_refused(file: Path, changes: dict[str, object], named: str) -> None:
    change_manifest(file, **changes)
    with pytest.raises(DataError, match=named):
        read_pack(file)


def test_charset_that_differs_from_that_of_the_cell_is_refused(file: Path) -> None:
    parts = parts_of(file)
    other = b"xyz"
    files = json.loads(parts[MANIFEST])["files"] | {CHARSET: {"size": 3, "sha256": sha256(other).hexdigest()}}
    change_manifest(file, files=files)
    rewrite(file, parts_of(file) | {CHARSET: other})
    with pytest.raises(DataError, match="is not the charset of the manifest"):
        read_pack(file)


def test_no_changed_byte_is_more_than_one_line(file: Path) -> None:
    content = file.read_bytes()
    for place in (*range(len(content) - 400, len(content)), *range(0, 60)):
        for value in (0, 255, content[place] ^ 1):
            file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            with suppress(DataError):
                read_pack(file)
