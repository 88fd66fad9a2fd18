"""Damaged images in a folder: each is refused by name, or changes the fingerprint; none blocks or fills the memory."""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.folders import opened
from PIL import Image

from decoderbench import DataError
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_reading import collected_warnings
from decoderbench.options import ImageOptions

FORMATS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "GIF": "gif", "WEBP": "webp", "TIFF": "tif"}
SMALL = ImageOptions(height=8, width=16)
HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>nginx</body></html>"
IRREGULAR = "is not a regular file"


def encoded(kind: str, seed: int = 0, size: tuple[int, int] = (17, 11)) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def flipped(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


# The damage of a file, and whether the file must then be refused: a flipped bit may decode, and nobody can know it.
DAMAGES: dict[str, tuple[Callable[[bytes, random.Random], bytes], bool]] = {
    "truncated": (lambda content, chance: content[: chance.randrange(len(content))], False),
    "header only": (lambda content, chance: content[: chance.randint(4, 24)], True),
    "empty": (lambda content, chance: b"", True),
    "zeros": (lambda content, chance: bytes(len(content)), True),
    "zeroed block": (lambda content, chance: content[:64] + bytes(48) + content[112:], False),
    "flipped bit": (flipped, False),
    "text": (lambda content, chance: b"label,7\n" * chance.randint(1, 99), True),
    "error page": (lambda content, chance: HTML, True),
    "two files in one": (lambda content, chance: content + content, False),
    "swapped halves": (lambda content, chance: content[len(content) // 2 :] + content[: len(content) // 2], True),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 24 images with their labels in their names, four of each format."""
    (tmp_path / "set").mkdir()
    for number in range(24):
        kind = list(FORMATS)[number % 6]
        (tmp_path / "set" / f"w{number * number}.{FORMATS[kind]}").write_bytes(encoded(kind, number))
    return tmp_path / "set"


def damaged(count: int) -> Iterator[tuple[str, str, bytes, bool]]:
    """Yield format, damage, content, and whether it must be refused; `count` of each damage of each format."""
    for kind in FORMATS:
        for damage, (apply, hopeless) in DAMAGES.items():
            chance = random.Random(f"{kind} {damage}")
            for _ in range(count):
                yield kind, damage, apply(encoded(kind), chance), hopeless


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_damaged_image_is_refused_by_name_or_changes_the_fingerprint(folder: Path, tmp_path: Path, count: int) -> None:
    file_of = {kind: folder / f"w0.{suffix}" for kind, suffix in FORMATS.items()}
    for kind, file in file_of.items():
        file.write_bytes(encoded(kind))
    before = opened(folder).fingerprint()
    refused = decoded = 0
    kept: dict[str, tuple[bytes, bool]] = {}
    for kind, damage, content, hopeless in damaged(count):
        if content == (whole := encoded(kind)):
            continue
        file_of[kind].write_bytes(content)
        dataset = opened(folder)
        row = [sample.key for sample in dataset.samples()].index(file_of[kind].name)
        assert dataset.fingerprint() != before, (kind, damage)
        try:
            with collected_warnings():
                dataset.load_image(row)
        except DataError:
            refused += 1
        else:
            assert not hopeless, (kind, damage)
            decoded += 1
        kept[f"v{len(kept)}.{FORMATS[kind]}"] = content, hopeless
        file_of[kind].write_bytes(whole)
    assert opened(folder).fingerprint() == before
    assert refused > 2 * decoded > 0
    for name, (content, _) in kept.items():
        (folder / name).write_bytes(content)
    dataset = opened(folder, labels="filename")
    arguments = {"cache_dir": tmp_path / "cache", "workers": 1}
    with pytest.raises(DataError, match=f"{refused} of {len(dataset.samples())} images cannot be decoded"):
        open_store(dataset, dataset.samples(), SMALL, **arguments)
    store = open_store(dataset, dataset.samples(), SMALL, allow_unreadable=True, **arguments)
    assert len(store.unreadable) == refused
    assert {name for name, (_, hopeless) in kept.items() if hopeless} <= {store.keys[row] for row in store.unreadable}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as bound:
        patch.chdir(path.parent)  # the path of a socket may be 107 bytes long
        bound.bind(path.name)


IRREGULARS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (fifo, IRREGULAR),
    "socket": (unix_socket, IRREGULAR),
    "folder": (Path.mkdir, IRREGULAR),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "is a link that leaves the folder"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "is a link that leads nowhere"),
    "link to itself": (lambda path: path.symlink_to(path.name), "is a link that leads nowhere"),
}


@pytest.mark.parametrize("what", IRREGULARS)
@pytest.mark.parametrize(
    "suffix", ["png", *(pytest.param(suffix, marks=pytest.mark.slow) for suffix in FORMATS.values() if suffix != "png")]
)
def test_what_is_no_regular_file_is_refused_by_name_and_never_opened(folder: Path, what: str, suffix: str) -> None:
    create, reason = IRREGULARS[what]
    create(folder / f"x.{suffix}")
    with pytest.raises(DataError, match=f"'x.{suffix}' {reason}"):
        opened(folder).samples()
    if what == "endless device":
        with pytest.raises(DataError, match=f"'x.{suffix}' {IRREGULAR}"):
            opened(folder, follow_links=True).samples()


@pytest.mark.parametrize("what", ["pipe", "socket", "folder"])
def test_image_replaced_after_listing_by_no_regular_file_is_refused_by_name(folder: Path, what: str) -> None:
    dataset = opened(folder)
    dataset.samples()
    (folder / "w0.png").unlink()
    IRREGULARS[what][0](folder / "w0.png")
    with pytest.raises(DataError, match=r"w0\.png is not a regular file"):
        dataset.fingerprint()
    with pytest.raises(DataError, match="not a regular file"):
        dataset.load_image([sample.key for sample in dataset.samples()].index("w0.png"))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", FORMATS.values())
def test_image_with_the_suffix_of_another_format_is_read_as_what_it_is(tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(encoded(kind))
    assert np.array_equal(
        np.asarray(opened(tmp_path).decode(tmp_path / f"a.{suffix}")), np.asarray(Image.open(BytesIO(encoded(kind))))
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, extra: bytes = b"", content: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def solid(kind: str, size: int, mode: str = "L", **options: object) -> bytes:
    file = BytesIO()
    Image.new(mode, (size, size)).save(file, kind, **options)
    return file.getvalue()


def bmp(width: int, height: int) -> bytes:
    small = solid("BMP", 4)
    return small[:18] + struct.pack("<ii", width, height) + small[26:]


@cache
def bomb() -> bytes:
    return zlib.compress(bytes(10**8), 1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(19_000, 19_000),
    "png of bits": lambda: solid("PNG", 9_000, "1"),
    "png with a bomb as text": lambda: png(9, 9, chunk(b"zTXt", b"a\0\0" + bomb()), bytes(90)),
    "png with a bomb as profile": lambda: png(9, 9, chunk(b"iCCP", b"a\0\0" + bomb()), bytes(90)),
    "gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b"\x2c" + struct.pack(
        "<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00\x3b",
    "bmp": lambda: bmp(60_000, 60_000),
    "webp": lambda: solid("WEBP", 3_000, method=0),
    "tiff of bits": lambda: solid("TIFF", 9_000, "1", compression="group4"),
    "pgm": lambda: b"P5 60000 60000 255\n",
    "jpeg": lambda: solid("JPEG", 8).replace(b"\x00\x08\x00\x08", struct.pack(">HH", 65_000, 65_000), 1),
    "no rows": lambda: png(9, 0),
}  # fmt: skip
MEASURE = """
import json, resource, sys
from pathlib import Path
from decoderbench.data.image_decoding import decode_image_file
from decoderbench.errors import DataError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder, refused = Path(sys.argv[1]), {}
decode_image_file(folder / "whole.png")
before = peak()
for file in sorted(folder.glob("*.bomb")):
    try:
        decode_image_file(file)
    except DataError as error:
        refused[file.stem] = str(error)
print(json.dumps([refused, peak() - before]))
"""


def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "whole.png").write_bytes(encoded("PNG"))
    for name, build in BOMBS.items():
        (tmp_path / f"{name}.bomb").write_bytes(build())
    measured = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    refused, megabytes = json.loads(measured.stdout)
    assert refused.keys() == BOMBS.keys()
    assert megabytes < 64
    assert all("pixels" in refused[name] for name in BOMBS if " bomb " not in name and name != "no rows")


@pytest.mark.parametrize("size", [(1, 1), (1, 65_535), (65_535, 1), (4_000_000, 1)])
def test_image_of_odd_shape_is_read_or_refused_by_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size, 7).save(tmp_path / "a.png")
    assert opened(tmp_path).decode(tmp_path / "a.png").size == size
