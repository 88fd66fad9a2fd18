"""Image files: which are read, and that every other one is a `DataError` that names the cause."""

import random
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import permutations
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from helpers.commands import call
from PIL import Image, ImageFile

from decoderbench import (
    IMAGE_SUFFIXES,
    UNSUPPORTED_IMAGE_SUFFIXES,
    DataError,
    Dataset,
    Experiment,
    Registry,
    Sample,
    prepare,
)
from decoderbench.data import image_decoding, image_formats
from decoderbench.data.audit import audit
from decoderbench.data.contrast import find_lost_contrast, is_transparent
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_decoding import to_pixels
from decoderbench.data.image_reading import collected_warnings, read_image
from decoderbench.options import ComponentConfig, ImageOptions

NOISE = np.random.default_rng(0).integers(0, 256, (11, 17, 4), dtype=np.uint8)
COLORS = Image.fromarray(NOISE)
SIXTEEN_BITS = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def converted(mode: str, kind: str, **options: Any) -> bytes:
    return encoded(COLORS.convert("RGB").convert(mode) if mode == "CMYK" else COLORS.convert(mode), kind, **options)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the right side is up
    exif[0x010F] = "maker"
    return exif


def two_frames(kind: str, **options: Any) -> bytes:
    return converted("RGB", kind, save_all=True, append_images=[COLORS.convert("RGB").rotate(180)], **options)


def with_header_of_five_bytes() -> bytes:
    """Return a PNG whose first chunk says that it is five bytes long."""
    content = bytearray(converted("L", "PNG"))
    content[11] = 5
    return bytes(content)


FILES = {
    **{f"{mode}.png": converted(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "16_bits.png": encoded(SIXTEEN_BITS),
    "turned.png": converted("RGB", "PNG", exif=turned()),
    "transparent_palette.png": converted("P", "PNG", transparency=3),
    **{f"{mode}.jpg": converted(mode, "JPEG", exif=turned()) for mode in ("L", "RGB", "CMYK")},
    "progressive.jfif": converted("RGB", "JPEG", progressive=True),
    "a.jpe": converted("RGB", "JPEG"),
    "phone.jpeg": two_frames("MPO"),
    "phone.mpo": two_frames("MPO"),
    "turned.mpo": two_frames("MPO", exif=turned()),
    **{f"{mode}.bmp": converted(mode, "BMP") for mode in ("1", "L", "P", "RGB")},
    "a.dib": converted("RGB", "DIB"),
    "named.dib": converted("RGB", "BMP"),
    "a.gif": converted("P", "GIF"),
    "lossless.webp": converted("RGBA", "WEBP", lossless=True, exif=turned()),
    "lossy.webp": converted("RGB", "WEBP"),
    **{f"{name}.tif": converted("RGB", "TIFF", compression=name) for name in ("raw", "tiff_lzw", "packbits", "jpeg")},
    "fax.tiff": converted("1", "TIFF", compression="group4"),
    "16_bits.tif": encoded(SIXTEEN_BITS, "TIFF"),
    "a.pbm": converted("1", "PPM"),
    "a.pgm": converted("L", "PPM"),
    "a.ppm": converted("RGB", "PPM"),
    "a.pnm": b"P2\n3 2\n255\n1 2 3\n4 5 6\n",
    "a.jp2": encoded(COLORS.resize((32, 32)), "JPEG2000"),
    "a.j2k": encoded(COLORS.resize((32, 32)).convert("L"), "JPEG2000", no_jp2=True),
    "a.tga": converted("RGBA", "TGA"),
    "compressed.tga": converted("P", "TGA", compression="tga_rle"),
    **({"a.avif": converted("RGBA", "AVIF")} if ".avif" in IMAGE_SUFFIXES else {}),
}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file and returns its path."""

    def save(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return save


# Formats and suffixes


@pytest.mark.parametrize("name", FILES)
def test_decode_reads_file_of_every_suffix(saved: Callable[[str, bytes], Path], name: str) -> None:
    with collected_warnings():
        image = Dataset.decode(saved(name, FILES[name]))
    assert min(image.size) > 1
    assert Path(name).suffix in IMAGE_SUFFIXES


def test_every_suffix_is_either_read_or_not() -> None:
    assert {".jfif", ".jpe", ".jp2", ".tga", ".mpo", ".apng", ".dib", ".pnm"} <= IMAGE_SUFFIXES
    assert {".heic", ".svg", ".psd", ".jxl", ".pdf"} <= UNSUPPORTED_IMAGE_SUFFIXES
    assert not IMAGE_SUFFIXES & UNSUPPORTED_IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES | UNSUPPORTED_IMAGE_SUFFIXES)


def test_suffix_of_a_format_that_pillow_lacks_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats.features, "check", lambda name: name not in ("avif", "jpg_2000"))
    scope: dict[str, Any] = {}
    exec(Path(image_formats.__file__).read_text(encoding="utf-8"), scope)
    assert {".avif", ".avifs", ".jp2", ".j2k"} <= scope["UNSUPPORTED_IMAGE_SUFFIXES"]
    assert {".png", ".jpg", ".tga"} <= scope["IMAGE_SUFFIXES"]
    assert not {"AVIF", "JPEG2000"} & set(scope["IMAGE_FORMATS"])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bin"])
def test_file_that_only_its_name_tells_is_refused_under_another_name(
    saved: Callable[[str, bytes], Path], name: str
) -> None:
    for content in (FILES["a.tga"], FILES["a.dib"]):
        with pytest.raises(DataError, match="cannot identify image"):
            Dataset.decode(saved(name, content))
        with pytest.raises(DataError, match="cannot identify image"):
            Dataset.decode(BytesIO(content))


def test_first_frame_of_a_phone_image_is_read_with_a_warning(saved: Callable[[str, bytes], Path]) -> None:
    with collected_warnings() as warned:
        image = Dataset.decode(saved("phone.jpg", FILES["phone.mpo"]))
    first = Dataset.decode(BytesIO(converted("RGB", "JPEG")))
    assert np.array_equal(np.asarray(image), np.asarray(first))
    assert warned == ["an MPO container of several frames, of which the first is read"]


@pytest.mark.parametrize("name", ["turned.png", "RGB.jpg", "lossless.webp", "turned.mpo"])
def test_decode_applies_exif_orientation(name: str) -> None:
    with collected_warnings():
        assert Dataset.decode(BytesIO(FILES[name])).size == (11, 17)


def one_bit_png(size: int) -> bytes:
    return encoded(Image.new("1", (size, size)))


PLAIN = converted("L", "PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one_bit_png(2001), "2001 x 2001 pixels"),
        (one_bit_png(10_000), "more than 4,000,000"),
        (one_bit_png(14_000), "more than 4,000,000 pixels"),
        (two_frames("GIF"), "2 frames"),
        (two_frames("PNG"), "2 frames"),
        (two_frames("TIFF"), "2 frames"),
        (two_frames("WEBP"), "2 frames"),
        (PLAIN[:60], "OSError: .*truncated"),
        (with_header_of_five_bytes(), "ValueError: Truncated IHDR chunk"),
        (b"", "cannot identify image"),
        (b"<html>not found</html>", "cannot identify image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decode_refuses_file_that_is_not_one_image(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.decode(BytesIO(content))


def test_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"FileNotFoundError: .*gone\.png"):
        Dataset.decode(tmp_path / "gone.png")


def test_truncated_file_is_refused_although_a_plugin_told_pillow_to_accept_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="truncated"):
        Dataset.decode(BytesIO(PLAIN[:60]))


# Damage


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return a file with one kind of damage: cut short, bytes inserted, lost or changed, or one in its header."""
    damaged, place = bytearray(content), chance.randrange(len(content))
    kind = chance.random()
    if kind < 0.15:
        del damaged[place:]
    elif kind < 0.3:
        damaged[place:place] = chance.randbytes(chance.randint(1, 8))
    elif kind < 0.45:
        del damaged[place : place + chance.randint(1, 8)]
    elif kind < 0.6:
        damaged[place % 64 % len(damaged)] = chance.choice((0, 1, 5, 127, 128, 255))
    else:
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("options", [ImageOptions(height=8, width=16), ImageOptions(channels=3, resize="keep")])
def test_damaged_file_is_an_image_or_a_data_error(
    saved: Callable[[str, bytes], Path], capfd: pytest.CaptureFixture[str], options: ImageOptions
) -> None:
    images, messages = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none reaches whoever collects them
        for name, content in FILES.items():
            chance = random.Random(f"{name} {options.channels}")
            for _ in range(12):
                file = saved(name, mutated(content, chance))
                try:
                    with collected_warnings():
                        image = Dataset.decode(file)
                        pixels = to_pixels(image, options)
                        reason = find_lost_contrast(image, pixels, options)
                        assert is_transparent(image) in (True, False)
                except DataError as error:
                    messages.append(str(error))
                else:
                    images += 1
                    assert pixels.dtype == np.uint8
                    assert reason is None or reason.isprintable()
    assert images > 50
    assert len(messages) > 200
    assert all(message.isprintable() and 0 < len(message) < 400 for message in messages)
    assert capfd.readouterr().err == ""


def test_message_of_libtiff_about_a_damaged_fax_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(FILES["fax.tiff"])
    damaged[12:16] = b"\xff\x00\xff\x00"
    with collected_warnings() as warned:
        assert Dataset.decode(BytesIO(damaged)).size == (17, 11)
    (warning,) = warned
    assert re.match(r"libtiff: Fax4Decode: .* at line \d+", warning)
    assert capfd.readouterr().err == ""


def test_error_of_a_damaged_tiff_gives_the_reason_of_libtiff(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = bytearray(converted("RGB", "TIFF", compression="tiff_deflate"))
    damaged[20:40] = bytes(20)
    with pytest.raises(DataError, match=r"decoder error -2: ZIPDecode: Decoding error at scanline 0"):
        Dataset.decode(BytesIO(damaged))
    assert capfd.readouterr().err == ""


class OneImage(Dataset):
    """A dataset of one image: `load_image` returns the given object, or raises it if it is an exception."""

    name = "given"

    def __init__(self, given: Any) -> None:
        super().__init__(None, Path())
        self.given = given

    def samples(self) -> list[Sample]:
        return [Sample("a", "a", "train")]

    def load_image(self, index: int) -> Image.Image:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given

    def fingerprint(self) -> str:
        return "given"


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("not a PNG file"),
        IndexError("index out of range"),
        OverflowError("too large"),
        MemoryError(),
        EOFError(),
        RuntimeError("\x1b[31mred\udcff\n" + "x" * 5_000_000),
        type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_dataset_raises_is_a_data_error_that_names_it(error: Exception) -> None:
    with pytest.raises(DataError, match=f"^{type(error).__name__}") as caught:
        read_image(OneImage(error), 0)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"bytes", "load_image of dataset 'given' returned bytes, not a PIL image"),
        (None, "returned NoneType"),
        (Image.new("L", (0, 5)), "no pixels"),
        (Image.open(BytesIO(PLAIN[:60])), "truncated"),
    ],
)
def test_what_is_not_a_decoded_image_is_a_data_error(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image(OneImage(given), 0)


def test_request_to_end_passes() -> None:
    with pytest.raises(KeyboardInterrupt), image_decoding.errors_of_images():
        raise KeyboardInterrupt


def damaged_folder(tmp_path: Path) -> Path:
    """Return a folder of 12 labeled images, one of which has a PNG header of five bytes."""
    (tmp_path / "set").mkdir()
    for number, letters in enumerate(permutations("abcd", 2)):
        file = tmp_path / "set" / f"{''.join(letters)}.png"
        Image.fromarray(np.roll(NOISE, number, axis=1)).save(file)
    file.write_bytes(with_header_of_five_bytes())
    return tmp_path / "set"


def test_damaged_image_ends_compare_with_status_3(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = damaged_folder(tmp_path)
    status, _, err = call(capfd, "compare", str(folder), "--steps", "1", "--results", str(tmp_path / "out"))
    assert status == 3
    assert "1 of 12 images cannot be decoded" in err
    assert "'dc.png': ValueError: Truncated IHDR chunk" in err
    assert "Traceback" not in err


def test_damaged_image_is_a_data_error_of_a_plan_with_images(
    tmp_path: Path, tiny: dict[str, Any], tiny_registry: Registry
) -> None:
    tiny["dataset"] = {"use": "folder", "path": str(damaged_folder(tmp_path))}
    tiny["image"] = {"height": 16, "width": 64, "resize": "keep"}
    with pytest.raises(DataError, match=r"'dc\.png': ValueError: Truncated IHDR chunk"):
        prepare(Experiment(**tiny), registry=tiny_registry, cache_dir=tmp_path / "cache")


# Warnings


class Warned(Dataset):
    """Twelve images, most of which are loaded with a warning of one of five kinds."""

    name = "warned"
    Config = ComponentConfig

    def samples(self) -> list[Sample]:
        return [Sample(f"{i}.tif", "a", ("train", "val", "test")[i % 3]) for i in range(12)]  # type: ignore[arg-type]

    def load_image(self, index: int) -> Image.Image:
        if index > 0:
            warnings.warn(f"tag {index} is {'abcde'[index.bit_length()]}", stacklevel=1)
        return COLORS.rotate(30 * index)

    def fingerprint(self) -> str:
        return "warned"


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_are_counted_by_kind_in_notes_and_shown_nowhere_else(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    dataset = Warned(ComponentConfig(), tmp_path)
    samples = dataset.samples()
    store = open_store(dataset, samples, ImageOptions(), cache_dir=tmp_path, workers=workers)
    assert [note for note in audit(samples).with_images(store).notes if "warning" in note] == [
        "read with a warning: 4 of 12 images, such as '4.tif': tag 4 is d",
        "read with a warning: 4 of 12 images, such as '8.tif': tag 8 is e",
        "read with a warning: 2 of 12 images, such as '2.tif': tag 2 is c",
        "read with other warnings: 1 of 12 images",
    ]
    assert not recwarn.list
    assert capfd.readouterr().err == ""


def test_each_thread_collects_its_own_warnings_and_others_are_shown(recwarn: pytest.WarningsRecorder) -> None:
    met = Barrier(2)

    def warn(name: str) -> list[str]:
        with collected_warnings() as collected:
            met.wait()
            warnings.warn(name, stacklevel=1)
            met.wait()
        return collected

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(warn, ["one", "other"])) == [["one"], ["other"]]
    assert not recwarn.list
    warnings.warn("mine", stacklevel=1)
    assert [str(shown.message) for shown in recwarn.list] == ["mine"]
