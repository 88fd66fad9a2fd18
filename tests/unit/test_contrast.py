"""Images whose pixels show nothing to read are a problem of their own, whatever lost their contrast."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from decoderbench import DataError, Dataset, Sample
from decoderbench.data.audit import Audit, audit
from decoderbench.data.contrast import MIN_CONTRAST, find_lost_contrast, is_transparent
from decoderbench.data.image_cache import open_store
from decoderbench.data.image_decoding import to_pixels
from decoderbench.data.image_store import ImageStore
from decoderbench.options import ComponentConfig, ImageOptions

GRAY = ImageOptions(height=32, width=96)
COLOR = ImageOptions(height=32, width=96, channels=3)


def written(mode: str, ground: Any, ink: Any, size: tuple[int, int] = (64, 24)) -> Image.Image:
    """Return an image of a mark in one color on another."""
    image = Image.new(mode, size, ground)
    ImageDraw.Draw(image).rectangle((10, 6, 40, 12), fill=ink)
    return image


def through_png(image: Image.Image, **options: Any) -> Image.Image:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return Dataset.decode(file)


def palette(ground: tuple[int, int, int], ink: tuple[int, int, int]) -> Image.Image:
    image = written("P", 0, 1)
    image.putpalette([*ground, *ink])
    return through_png(image, transparency=0)


def sixteen_bits(low: int, high: int) -> Image.Image:
    pixels = np.full((24, 64), low, dtype=np.uint16)
    pixels[6:12, 10:40] = high
    return Image.fromarray(pixels)


def small_marks() -> Image.Image:
    """Return a large white image with one black pixel."""
    image = Image.new("L", (2000, 2000), 255)
    image.putpixel((1000, 1000), 0)
    return image


LOST = {
    "white on transparent": (written("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)), "composited on white"),
    "nearly white on transparent": (written("RGBA", (0, 0, 0, 0), (250, 250, 250, 255)), "composited on white"),
    "faint black on transparent": (written("RGBA", (0, 0, 0, 0), (0, 0, 0, 12)), "brightness differs by 12 of 255"),
    "gray with alpha": (written("LA", (0, 0), (255, 255)), "composited on white"),
    "white in a palette": (palette((0, 0, 0), (255, 255, 255)), "composited on white"),
    "gray with a transparent value": (through_png(written("L", 0, 255), transparency=0), "composited on white"),
    "color with a transparent value": (
        through_png(written("RGB", (9, 9, 9), (255, 255, 255)), transparency=(9, 9, 9)),
        "composited on white",
    ),
    "transparent everywhere": (written("RGBA", (0, 0, 0, 0), (255, 0, 0, 0)), "transparent everywhere"),
    "red on green": (written("RGB", (255, 0, 0), (0, 130, 0)), "image.channels = 3 keeps colors"),
    "one gray": (written("L", 90, 90), "of one color everywhere"),
    "one color in a palette": (through_png(written("P", 3, 3)), "of one color everywhere"),
    "one 16-bit gray": (sixteen_bits(9, 9), "of one color everywhere"),
    "10 bits in 16": (sixteen_bits(0, 1023), "16-bit brightness is from 0 to 1,023 of 65,535"),
    "12 bits in 16": (sixteen_bits(0, 4095), "16-bit brightness is from 0 to 4,095 of 65,535"),
    "faint gray": (written("L", 100, 110), "brightness differs by 10 of 255"),
    "marks too small": (small_marks(), "vanishes when it is resized"),
}
KEPT = {
    "black on transparent": written("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
    "white on opaque black": written("RGBA", (0, 0, 0, 255), (255, 255, 255, 255)),
    "black in a palette": palette((255, 255, 255), (0, 0, 0)),
    "faint but visible": written("L", 100, 100 + MIN_CONTRAST),
    "one bit": written("1", 0, 1),
    "cyan": written("CMYK", (0, 0, 0, 0), (255, 0, 0, 0)),
    "14 bits in 16": sixteen_bits(0, 16383),
    "full 16 bits": sixteen_bits(0, 65535),
}


@pytest.mark.parametrize("name", LOST)
def test_image_without_contrast_is_found_with_the_reason(name: str) -> None:
    image, reason = LOST[name]
    assert reason in str(find_lost_contrast(image, to_pixels(image, GRAY), GRAY))


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("options", [GRAY, COLOR], ids=["gray", "color"])
def test_image_with_contrast_has_no_reason(name: str, options: ImageOptions) -> None:
    assert find_lost_contrast(KEPT[name], to_pixels(KEPT[name], options), options) is None


def test_colors_of_one_brightness_have_contrast_with_three_channels() -> None:
    image, _ = LOST["red on green"]
    assert find_lost_contrast(image, to_pixels(image, COLOR), COLOR) is None


@pytest.mark.parametrize(
    ("image", "transparent"), [(sixteen_bits(0, 65535), 0), (written("RGB", "red", "blue"), (65535, 0, 0))]
)
def test_16_bits_with_a_transparent_color_are_refused(image: Image.Image, transparent: Any) -> None:
    image.info["transparency"] = transparent  # as Pillow gives it, not scaled to the 8 bits that it keeps
    with pytest.raises(DataError, match="16 bits per channel and a transparent color"):
        to_pixels(image, GRAY)


@pytest.mark.parametrize(
    ("image", "transparent"),
    [
        (written("RGBA", (0, 0, 0, 255), (9, 9, 9, 255)), False),
        (written("RGBA", (0, 0, 0, 255), (9, 9, 9, 254)), True),
        (written("LA", (0, 255), (9, 0)), True),
        (palette((0, 0, 0), (9, 9, 9)), True),
        (written("P", 0, 1), False),
        (through_png(written("L", 7, 8), transparency=8), True),
        (through_png(written("L", 7, 8), transparency=9), False),
        (written("RGB", "red", "blue"), False),
        (sixteen_bits(0, 9), False),
    ],
)
def test_image_is_transparent_if_any_of_its_pixels_is(image: Image.Image, transparent: bool) -> None:
    assert is_transparent(image) == transparent


class Written(Dataset):
    """Images by their key: visible ones, transparent ones that are visible, and one that is white on transparent."""

    name = "written"
    Config = ComponentConfig
    keys = ("a", "b-lost", "c-transparent", "d", "e-transparent", "f-lost")

    def samples(self) -> list[Sample]:
        splits = ("train", "train", "train", "val", "test", "test")
        return [Sample(key, str(row), split) for row, (key, split) in enumerate(zip(self.keys, splits, strict=True))]  # type: ignore[arg-type]

    def load_image(self, index: int) -> Image.Image:
        kinds = {
            "": written("L", 255, 0),
            "transparent": KEPT["black on transparent"],
            "lost": LOST["white on transparent"][0],
        }
        return kinds[self.keys[index].partition("-")[2]].rotate(index)

    def fingerprint(self) -> str:
        return "written"


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[ImageStore, Callable[..., Audit]]]:
    """Opens the store of `Written`, and returns it with a function that audits it."""

    def open_written(workers: int) -> tuple[ImageStore, Callable[..., Audit]]:
        dataset = Written(ComponentConfig(), tmp_path)
        samples = dataset.samples()
        store = open_store(dataset, samples, GRAY, cache_dir=tmp_path / "cache", workers=workers)
        return store, lambda **options: audit(samples, **options).with_images(store)

    return open_written


@pytest.mark.parametrize("workers", [1, 2])
def test_audit_refuses_images_without_contrast_and_excludes_them_from_training_if_allowed(
    opened: Callable[..., tuple[ImageStore, Callable[..., Audit]]], workers: int
) -> None:
    store, audited = opened(workers)
    assert list(store.no_contrast) == [1, 5]
    with pytest.raises(DataError) as caught:
        audited()
    assert "no_contrast: image 'b-lost' shows nothing to read: it is composited on white" in str(caught.value)
    assert "2 in all: 'b-lost', 'f-lost'" in str(caught.value)
    assert 'allow = ["no_contrast"]' in str(caught.value)
    found = audited(allow=["no_contrast"])
    assert (found.excluded, found.unspellable) == ((1,), ())
    assert found.counts == {"train": 2, "val": 1, "test": 2}
    assert found.footnotes() == ["no_contrast: allowed, in 2 of 6 samples"]


@pytest.mark.parametrize("workers", [1, 2])
def test_audit_counts_transparent_images(
    opened: Callable[..., tuple[ImageStore, Callable[..., Audit]]], workers: int
) -> None:
    _, audited = opened(workers)
    notes = audited(allow=["no_contrast"]).notes
    assert "transparent images are composited on white: 4 of 6 images, such as 'b-lost'" in notes
