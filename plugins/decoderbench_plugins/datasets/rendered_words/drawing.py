"""Draw texts with fonts: one warp for rotation, perspective and curvature, then background, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, floor, inf, log2, pi, radians, sin
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageFilter

from .typefaces import Glyph, Typeface, draw_glyph, kerning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIZES_PER_OCTAVE = 3  # font sizes at which glyphs are drawn; the warp scales them down to the size needed
SOURCE_PAD = 3  # empty pixels around a line of glyphs; hinting moves an edge by less
EDGE = 2  # empty pixels above and below a text
CELL = 0.4  # side of the mesh squares, in line heights; the warp is exact at their corners, bilinear inside
MAX_BEND = 0.5  # line height divided by radius; a tighter arc would collapse the inner side of the glyphs


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How one text is drawn. Shares are of the image height, unless stated otherwise."""

    size: float
    """Height of a line, from the highest to the lowest ink of the typeface's characters; reduced if the text would not
    fit."""
    spacing: float = 0.0
    """Space added between characters, as a share of the line height; negative: closer."""
    margin: float = 0.1
    """Space to the left and right."""
    offset: float = 0.0
    """Vertical position in the free space: -1 top, 0 middle, 1 bottom."""
    rotation: float = 0.0
    """Degrees, counterclockwise."""
    perspective: tuple[float, float] = (0.0, 0.0)
    """Shares by which the right end and the lower end are farther away than the middle; negative: nearer."""
    curvature: float = 0.0
    """Degrees of the arc that the text spans; positive: middle up, negative: middle down."""
    blur: float = 0.0
    """Radius in pixels."""
    noise: float = 0.0
    """Standard deviation, as a share of the range from black to white."""
    text: float = 0.0
    """Brightness of the text, 0 black to 1 white."""
    background: float = 1.0
    """Brightness of the background where it differs most from the text."""
    pattern: Literal["plain", "gradient", "texture"] = "plain"
    """How the background varies."""
    variation: float = 0.0
    """How close a pattern comes to the text's brightness, as a share of the contrast."""


def draw_text(text: str, typeface: Typeface, style: TextStyle, *, height: int, seed: int) -> NDArray[np.uint8]:
    """Return an image of `text`, (height, W) uint8; W follows the text, and no ink is cut off.

    Glyphs are laid out from left to right with the font's kerning; scripts that join letters are not supported.

    Args:
        text: one or more characters of the typeface.
        typeface: the font.
        style: size, position, warp, colors and noise.
        height: height of the image, pixels.
        seed: seed of noise, texture and the direction of a gradient, up to 128 bits.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    ink = _draw_warped(text, typeface, style, height).filter(ImageFilter.GaussianBlur(style.blur))
    coverage = np.asarray(ink, dtype=np.float32) / 255  # (H, W)
    background = style.background + style.variation * (style.text - style.background) * _draw_pattern(
        style.pattern, coverage.shape, random
    )
    image = background + (style.text - background) * coverage
    if style.noise:
        image += style.noise * random.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _draw_warped(text: str, typeface: Typeface, style: TextStyle, height: int) -> Image.Image:
    """Return the ink of a text, warped and placed in the image, (height, W)."""
    above, below = typeface.line
    scale, em = style.size * height, inf  # pixels per line in the image; pixels per em in the source
    while (needed := _drawn_size(scale / (above + below))) < em:
        em = needed
        line = (above + below) * em  # pixels per line in the source
        source = _set_line(text, typeface, int(em), style.spacing * line)
        warp = _Warp((source.shape[1] - 2 * SOURCE_PAD) / line, style)
        left, top, right, bottom = warp.bounds
        scale = min(scale, (height - 2 * EDGE) / (bottom - top))
    margin = style.margin * height
    width = max(1, round(scale * (right - left) + 2 * margin))
    free = height - 2 * EDGE - scale * (bottom - top)
    origin = np.array([width / 2 - scale * (left + right) / 2, EDGE + free * (1 + style.offset) / 2 - scale * top])
    middle = np.array([source.shape[1] / 2, SOURCE_PAD + ceil(above * em) + (below - above) / 2 * em])

    columns = _mesh_edges(origin[0] + scale * left, origin[0] + scale * right, width, scale)
    rows = _mesh_edges(origin[1] + scale * top, origin[1] + scale * bottom, height, scale)
    corners = np.stack(np.meshgrid(columns, rows), axis=-1)  # (rows, columns, 2)
    places = middle + line * warp.backward((corners - origin) / scale)
    quads = np.concatenate([places[:-1, :-1], places[1:, :-1], places[1:, 1:], places[:-1, 1:]], axis=-1).tolist()
    mesh = [
        ((columns[j], rows[i], columns[j + 1], rows[i + 1]), tuple(quads[i][j]))
        for i in range(len(rows) - 1)
        for j in range(len(columns) - 1)
    ]
    return Image.fromarray(source).transform(
        (width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR, fillcolor=0
    )


class _Warp:
    """Maps between the plane of the text and that of the image: curvature, rotation, perspective.

    In both planes, the origin is the middle of the text, the unit is the line height, and y points down.
    """

    def __init__(self, aspect: float, style: TextStyle) -> None:
        bend = radians(style.curvature) / aspect
        self.bend = max(-MAX_BEND, min(MAX_BEND, bend))  # 1 / radius
        angle = radians(style.rotation)
        self.rotation = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])  # for row vectors
        along = np.linspace(-aspect / 2, aspect / 2, 17)
        outline = np.concatenate([np.stack([along, np.full(17, side)], axis=-1) for side in (-0.5, 0.5)])
        rotated = self._bend_points(outline) @ self.rotation
        self.tilt = np.array(style.perspective) / np.abs(rotated).max()
        projected = rotated / (1 + rotated @ self.tilt)[:, None]
        self.bounds: tuple[float, float, float, float] = (
            *projected.min(axis=0).tolist(),
            *projected.max(axis=0).tolist(),
        )

    def _bend_points(self, points: Floats) -> Floats:
        if abs(self.bend) < 1e-6:
            return points
        radius = 1 / self.bend
        x, distance = points[:, 0] * self.bend, radius - points[:, 1]
        return np.stack([distance * np.sin(x), radius - distance * np.cos(x)], axis=-1)

    def backward(self, points: Floats) -> Floats:
        """Return the points of the text, (..., 2), that are drawn at the given points of the image."""
        depth = np.maximum(1 - points @ self.tilt, 0.05)  # points beyond the horizon show nothing
        points = (points / depth[..., None]) @ self.rotation.T
        if abs(self.bend) < 1e-6:
            return points
        radius = 1 / self.bend
        side = np.sign(radius)
        x, y = points[..., 0] * side, (radius - points[..., 1]) * side
        return np.stack([np.arctan2(x, y) * radius, radius - side * np.hypot(x, y)], axis=-1)


def _mesh_edges(low: float, high: float, size: int, scale: float) -> list[int]:
    """Return the edges of mesh cells that cover `low` to `high` within an image of `size`, all in pixels."""
    first, last = max(0, floor(low) - 1), min(size, ceil(high) + 1)
    return [*range(first, last, max(4, round(CELL * scale))), last]


def _drawn_size(size: float) -> int:
    """Return the font size at which to draw glyphs that are shown at `size`: the next larger of a few sizes."""
    return ceil(2 ** (ceil(log2(max(size, 4)) * SIZES_PER_OCTAVE) / SIZES_PER_OCTAVE))


def _set_line(text: str, typeface: Typeface, em: int, spacing: float) -> NDArray[np.uint8]:
    """Return the glyphs of `text` side by side, (h, w), with `SOURCE_PAD` empty pixels on each side of the line."""
    placed: list[tuple[int, Glyph]] = []
    pen = 0.0
    for place, character in enumerate(text):
        glyph = draw_glyph(typeface, character, em)
        if place:
            pen += spacing + kerning(typeface, text[place - 1 : place + 1], em)
        placed.append((floor(pen + 0.5) + glyph.left, glyph))
        pen += glyph.advance
    left = min(x for x, _ in placed)
    right = max(x + glyph.ink.shape[1] for x, glyph in placed)
    above, below = (ceil(share * em) for share in typeface.line)
    line = np.zeros((above + below + 2 * SOURCE_PAD, right - left + 2 * SOURCE_PAD), dtype=np.uint8)
    for x, glyph in placed:
        row, column = SOURCE_PAD + above + glyph.top, SOURCE_PAD + x - left
        part = line[row : row + glyph.ink.shape[0], column : column + glyph.ink.shape[1]]
        np.maximum(part, glyph.ink, out=part)
    return line


def _draw_pattern(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Return values from 0 to 1, (H, W); for plain, a single 0, (1, 1)."""
    height, width = shape
    if kind == "plain":
        return np.zeros((1, 1), dtype=np.float32)
    values: Floats
    if kind == "gradient":
        angle = random.uniform(0, 2 * pi)
        down, right = cos(angle) * np.linspace(-1, 1, height), sin(angle) * np.linspace(-1, 1, width)
        values = down[:, None] + right
    else:
        cells = [max(2, round(length / random.uniform(4, 32))) for length in shape]
        coarse = Image.fromarray(random.integers(0, 256, cells, dtype=np.uint8))
        values = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.interp(values, (values.min(), values.max()), (0, 1)).astype(np.float32)
