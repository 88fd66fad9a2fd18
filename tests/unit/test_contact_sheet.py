import numpy as np
import pytest
from PIL import Image

from decoderbench import DataError
from decoderbench.data.contact_sheet import CAPTION, GAP, TILE, contact_sheet

STEP = (TILE[0] + GAP, TILE[1] + CAPTION + GAP)


def image(height=32, width=96, channels=1, level=0):
    return np.full((channels, height, width), level, dtype=np.uint8)


def tile(sheet, place):
    """Return the picture and the caption of a tile, (h, w, 3) each."""
    x, y = GAP + place % 8 * STEP[0], GAP + place // 8 * STEP[1]
    pixels = np.asarray(sheet)[y : y + TILE[1] + CAPTION, x : x + TILE[0]]
    return pixels[: TILE[1]], pixels[TILE[1] :]


def caption(label):
    return tile(contact_sheet([image()], [label]), 0)[1]


def test_sheet_shows_first_64_images_in_rows_of_8_in_order():
    images = [image(level=3 * place) for place in range(70)]
    sheet = contact_sheet(images, [f"{place}" for place in range(70)])
    assert isinstance(sheet, Image.Image)
    assert sheet.size == (8 * STEP[0] + GAP, 8 * STEP[1] + GAP)
    assert [int(tile(sheet, place)[0][32, 96, 0]) for place in range(64)] == [3 * place for place in range(64)]
    captions = {tile(sheet, place)[1].tobytes() for place in range(64)}
    assert len(captions) == 64


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (8, 8, 1), (9, 8, 2), (65, 8, 8)])
def test_sheet_size_follows_number_of_images(count, columns, rows):
    sheet = contact_sheet([image()] * count, ["a"] * count)
    assert sheet.size == (columns * STEP[0] + GAP, rows * STEP[1] + GAP)


@pytest.mark.parametrize(("height", "width"), [(32, 10), (32, 96), (64, 640), (500, 20), (1, 1), (1, 5000)])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_is_scaled_to_fit_its_tile(height, width, channels):
    picture, _ = tile(contact_sheet([image(height, width, channels)], ["a"]), 0)
    black = (picture == 0).all(axis=-1)
    scale = min(TILE[0] / width, TILE[1] / height)
    assert black.any(axis=1).sum() == max(1, round(height * scale))
    assert black.any(axis=0).sum() == max(1, round(width * scale))


def test_colors_are_preserved():
    red = np.concatenate([image(level=255), image(), image()])
    assert tile(contact_sheet([red], ["a"]), 0)[0][32, 96].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("", "''"),
        (" a", "' a'"),
        ("a\n", r"'a\n'"),
        ("a\u200b", r"'a\u200b'"),
        ("été", r"'\xe9t\xe9'"),
        ("漢", r"'\u6f22'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_label_that_cannot_be_drawn_or_seen_is_escaped(label, shown):
    assert np.array_equal(caption(label), caption(shown))


def test_every_printable_ascii_character_is_drawn():
    captions = {caption(f"a{chr(code)}b").tobytes() for code in range(32, 127)}
    assert len(captions) == 95
    assert caption(r"a\b").tobytes() in captions  # as it is, without quotes


def test_long_label_is_shortened_to_its_tile():
    sheet = np.asarray(contact_sheet([image()] * 2, ["m" * 500, "a"]))
    gap = sheet[GAP + TILE[1] :, GAP + TILE[0] : STEP[0] + GAP]
    assert (gap == 255).all()
    assert not np.array_equal(caption("m" * 500), caption("m" * 5))


def test_sheet_refuses_no_images_and_wrong_number_of_labels():
    with pytest.raises(DataError, match="at least one image"):
        contact_sheet([], [])
    with pytest.raises(ValueError, match="given 1 images, 2 labels"):
        contact_sheet([image()], ["a", "b"])


def test_caption_of_a_long_label_is_that_of_its_start() -> None:
    image = np.zeros((1, 16, 32), dtype=np.uint8)
    long, longer = (contact_sheet([image], ["ab" * half]) for half in (100, 50_000))  # measuring each end takes minutes
    assert long.tobytes() == longer.tobytes()
