"""Fonts: which files to use, which characters they can draw, and their glyphs as pixels."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import ImageFont

from decoderbench import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fonts for text: the others in these packages contain mathematical symbols and parts of brackets.
PACKAGE_FONTS = re.compile(r"DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*|cm(b|r|ss|ti|tt)10|DroidSansMono")
FONT_SUFFIXES = {".otf", ".ttc", ".ttf"}
MEASURED_AT = 128  # font size at which lines are measured, pixels per em
SHOWN = 10  # fonts or characters listed in a message


def package_fonts() -> list[Path]:
    """Return the text fonts in matplotlib and captcha, sorted by name; neither package is imported."""
    fonts: dict[str, Path] = {}
    for package in ("matplotlib", "captcha"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            found = Path(spec.origin).parent.rglob("*.ttf")
            fonts |= {file.name: file for file in found if PACKAGE_FONTS.fullmatch(file.stem)}
    return [fonts[name] for name in sorted(fonts)]


class Glyph(NamedTuple):
    """A drawn character: its ink, (h, w) uint8, and where its upper left corner is relative to the pen, pixels."""

    ink: NDArray[np.uint8]
    left: int
    top: int
    advance: float


@dataclass(frozen=True, eq=False)
class Typeface:
    """One face of a font file, with the characters to draw.

    Attributes:
        name: file name, with the number of the face if the file has several.
        data: content of the font file.
        face: number of the face in the file.
        characters: the characters to draw; they determine the height of a line.
    """

    name: str
    data: bytes
    face: int
    characters: str

    @cached_property
    def missing(self) -> str:
        """The characters without a glyph, with a blank glyph, or (ASCII) with the glyph of another character.

        The font's character map decides, not the bitmaps: the box for a missing glyph may look like a letter. Glyph
        names reveal errors in the map: Computer Modern maps `<` to an exclamation mark, all-capital fonts map `a` to A.

        Raises:
            DataError: the font cannot be read.
        """
        from fontTools import agl
        from fontTools.ttLib import TTFont

        try:
            with TTFont(BytesIO(self.data), fontNumber=self.face, lazy=True) as font:
                names: dict[int, str] = font.getBestCmap() or {}
        except Exception as error:  # fontTools raises many types of errors for a damaged file
            raise DataError(f"font {self.name} cannot be read: {error}; replace or remove it") from error

        def can_draw(character: str) -> bool:
            name = names.get(ord(character), ".notdef")
            other = character.isascii() and agl.toUnicode(name) not in ("", character)
            return name != ".notdef" and not other and bool(draw_glyph(self, character, MEASURED_AT).ink.any())

        return "".join(character for character in self.characters if not can_draw(character))

    def describe_missing(self) -> str:
        """Return the name and the missing characters as text."""
        named = [f"{character!r} (U+{ord(character):04X})" for character in self.missing]
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return f"{self.name} lacks {', '.join(named[:SHOWN])}{more}"

    @cached_property
    def line(self) -> tuple[float, float]:
        """Extent of the ink of `characters` above and below the baseline, as shares of the font size."""
        glyphs = [draw_glyph(self, character, MEASURED_AT) for character in self.characters]
        above, below = max(-g.top for g in glyphs), max(g.top + g.ink.shape[0] for g in glyphs)
        return above / MEASURED_AT, below / MEASURED_AT

    @property
    def digest(self) -> str:
        """SHA-256 of the file, and the number of the face."""
        return f"{hashlib.sha256(self.data).hexdigest()}/{self.face}"


def load_typefaces(file: Path, characters: str) -> list[Typeface]:
    """Return every face of a font file; raise `DataError` if it cannot be read."""
    try:
        data = file.read_bytes()
        count = int.from_bytes(data[8:12]) if data[:4] == b"ttcf" else 1
        names = [file.name] if count == 1 else [f"{file.name} face {face}" for face in range(count)]
        faces = [Typeface(name, data, face, characters) for face, name in enumerate(names)]
        for typeface in faces:
            _font(typeface, MEASURED_AT)
    except OSError as error:
        raise DataError(f"font {file} cannot be read: {error}; replace or remove it") from error
    return faces


def select_typefaces(characters: str, folder: Path | None) -> tuple[list[Typeface], list[Typeface]]:
    """Return the faces that can draw all `characters`, and the faces that cannot.

    Args:
        characters: the characters that each face must draw.
        folder: folder of .ttf, .otf and .ttc files, each of which must have all characters. None: `package_fonts`, some
            of which may lack characters.

    Raises:
        DataError: there is no font, a font cannot be read, a font of the folder lacks a character, or all fonts do.
    """
    files = package_fonts()
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; check the option fonts of the dataset")
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FONT_SUFFIXES)
        if not files:
            raise DataError(f"folder {folder} has no .ttf, .otf or .ttc file; check the option fonts of the dataset")
    faces = [face for file in files for face in load_typefaces(file, characters)]
    able, unable = [face for face in faces if not face.missing], [face for face in faces if face.missing]
    if unable and (folder is not None or not able):
        missing = "".join(f"\n  {face.describe_missing()}" for face in unable[:SHOWN])
        more = f"\n  and {len(unable) - SHOWN} more" if len(unable) > SHOWN else ""
        raise DataError(
            f"{len(unable)} of {len(faces)} fonts cannot draw all of charset; remove the characters from the option "
            f"charset, or set the option fonts to a folder of fonts that have them:{missing}{more}"
        )
    return able, unable


@lru_cache(maxsize=512)
def _font(typeface: Typeface, em: int) -> ImageFont.FreeTypeFont:
    # From memory, because every open font would keep a file open. Basic layout, because the other needs a library.
    return ImageFont.truetype(BytesIO(typeface.data), em, typeface.face, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=16384)
def draw_glyph(typeface: Typeface, character: str, em: int) -> Glyph:
    """Return `character` at a font size of `em` pixels."""
    font = _font(typeface, em)
    mask, (left, top) = font.getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    ink = np.frombuffer(bytes(mask), dtype=np.uint8).reshape(height, width)
    return Glyph(ink, int(left), int(top), font.getlength(character))


@lru_cache(maxsize=65536)
def kerning(typeface: Typeface, pair: str, em: int) -> float:
    """Return the kerning of two characters at a font size of `em` pixels, in pixels; mostly 0 or less."""
    separate = sum(draw_glyph(typeface, character, em).advance for character in pair)
    return _font(typeface, em).getlength(pair) - separate
