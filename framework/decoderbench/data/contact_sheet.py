"""A contact sheet: sample images of a dataset with their labels, for people to look at. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from decoderbench.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 8
ROWS = 8
TILE = (192, 64)  # width and height of the area for an image, pixels
CAPTION = 20  # height of the label below it, pixels
GAP = 4
PAPER, INK = "white", "black"
FONT_SIZE = 14
UNASSIGNED = "\U0010ffff"  # a code point that no font draws


def contact_sheet(images: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> Image.Image:
    """Return the first 64 images in rows of 8, each scaled to fit its tile, with its label below.

    A label is shown as a Python string in quotes if it is empty, starts or ends with whitespace, or cannot be printed;
    in ASCII, with escapes, if Pillow's font lacks one of its characters, as a box could stand for any of them.

    Args:
        images: each (C, H, W), C 1 or 3; they may differ in size.
        labels: one per image.

    Raises:
        DataError: there is no image.
        ValueError: the numbers of images and labels differ.
    """
    if len(images) != len(labels):
        raise ValueError(f"a contact sheet needs one label per image; given {len(images)} images, {len(labels)} labels")
    if not images:
        raise DataError("a contact sheet needs at least one image; none was given")
    count = min(len(images), COLUMNS * ROWS)
    font = _font()
    columns, rows = min(count, COLUMNS), -(-count // COLUMNS)
    step = (TILE[0] + GAP, TILE[1] + CAPTION + GAP)
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place in range(count):
        x, y = GAP + place % COLUMNS * step[0], GAP + place // COLUMNS * step[1]
        image = _fit_tile(images[place])
        sheet.paste(image, (x + (TILE[0] - image.width) // 2, y + (TILE[1] - image.height) // 2))
        middle = (x + TILE[0] / 2, y + TILE[1] + CAPTION / 2)
        draw.text(middle, _caption(labels[place]), fill=INK, font=font, anchor="mm")
    return sheet


def _fit_tile(pixels: NDArray[np.uint8]) -> Image.Image:
    channels, height, width = pixels.shape
    image = Image.fromarray(pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = min(TILE[0] / width, TILE[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _caption(label: str) -> str:
    if not all(map(_has_glyph, label)):
        label = ascii(label)
    elif not label or label != label.strip():
        label = repr(label)
    if len(label) > TILE[0]:  # a character is wider than a pixel, and measuring a long text takes long
        label = f"{label[: TILE[0]]}…"
    kept = len(label)
    while _font().getlength(label) > TILE[0]:
        kept -= 1
        label = f"{label[:kept]}…"
    return label


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)  # given a size, Pillow returns no other kind
    return font


@cache
def _has_glyph(character: str) -> bool:
    return _bitmap(character) != _bitmap(UNASSIGNED)


def _bitmap(character: str) -> bytes:
    return bytes(_font().getmask(character))
