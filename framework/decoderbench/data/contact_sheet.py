"""A contact sheet: images from all over a data set with their labels, for people to look at. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from decoderbench.errors import DataError
from decoderbench.typefaces import load_typefaces, package_fonts

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 8
ROWS = 8
TILE = (192, 64)  # pixels that an image gets, width and height
CAPTION = 20  # pixels that a label gets below it
GAP = 4
PAPER, INK = "white", "black"


def contact_sheet(images: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> Image.Image:
    """Return the first 64 images in rows of 8, each scaled to fit its tile, with its label below.

    A label that is empty, has outer blanks, or holds what cannot be printed is shown as Python writes it, and
    one that DejaVu Sans lacks a glyph for in ASCII: a box would stand for any character.

    Args:
        images: each (C, H, W), C 1 or 3; they may differ in size.
        labels: one an image.

    Raises:
        DataError: there is no image.
        ValueError: as many labels as images were not given.
    """
    if len(images) != len(labels):
        raise ValueError(f"a contact sheet needs one label an image; given {len(images)} images, {len(labels)} labels")
    if not images:
        raise DataError("a contact sheet needs at least one image; none was given")
    count = min(len(images), COLUMNS * ROWS)
    font = _Font("".join(labels[:count]))
    columns, rows = min(count, COLUMNS), -(-count // COLUMNS)
    step = (TILE[0] + GAP, TILE[1] + CAPTION + GAP)
    sheet = Image.new("RGB", (columns * step[0] + GAP, rows * step[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place in range(count):
        x, y = GAP + place % COLUMNS * step[0], GAP + place // COLUMNS * step[1]
        image = _fitted(images[place])
        sheet.paste(image, (x + (TILE[0] - image.width) // 2, y + (TILE[1] - image.height) // 2))
        middle = (x + TILE[0] / 2, y + TILE[1] + CAPTION / 2)
        draw.text(middle, font.caption(labels[place]), fill=INK, font=font.drawn, anchor="mm")
    return sheet


def _fitted(pixels: NDArray[np.uint8]) -> Image.Image:
    channels, height, width = pixels.shape
    image = Image.fromarray(pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = min(TILE[0] / width, TILE[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


class _Font:
    """DejaVu Sans, and which of `characters` it lacks."""

    def __init__(self, characters: str) -> None:
        (file,) = (file for file in package_fonts() if file.name == "DejaVuSans.ttf")
        (typeface,) = load_typefaces(file, "".join(set(characters)))
        self.lacking = set(typeface.undrawable) - {" "}
        self.drawn = ImageFont.truetype(file, 14, layout_engine=ImageFont.Layout.BASIC)

    def caption(self, label: str) -> str:
        if not self.lacking.isdisjoint(label):
            label = ascii(label)
        elif not label or label != label.strip() or not label.isprintable():
            label = repr(label)
        kept = len(label)
        while self.drawn.getlength(label) > TILE[0]:
            kept -= 1
            label = f"{label[:kept]}…"
        return label
