"""Letters drawn one by one: each has a color, height, place and rotation of its own, and lines cross the image."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from math import ceil
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from PIL import Image, ImageColor
from PIL.ImageDraw import Draw
from PIL.ImageFilter import SMOOTH

from decoderbench import DataError

if TYPE_CHECKING:
    from captcha.image import ImageCaptcha
    from PIL.Image import Image as PillowImage
    from PIL.ImageFont import FreeTypeFont

    from .options import CaptchaOptions

Color = tuple[int, int, int]

BACKGROUND = (238, 255)  # range of each channel, as captcha has it
SATURATION = (0.4, 1.0)
LUMA = (0.299, 0.587, 0.114)  # the weights with which Pillow turns colors to gray
FONT_SIZE = 200  # at which a font is measured, pixels per em
ANGLES = 4  # to either side at which letters are measured
MARGIN = 1  # pixels by which a letter may be larger at angles in between


class ScatteredLetters:
    """Draws texts letter by letter.

    Args:
        painter: has the font, and draws the noise.
        options: those of the dataset.

    Raises:
        DataError: the letters may not fit beside each other or into the height.
    """

    def __init__(self, painter: ImageCaptcha, options: CaptchaOptions) -> None:
        self._painter, self._options = painter, options
        red, green, blue = ImageColor.getrgb(options.line_color)[:3]
        self._line_color: Color = (red, green, blue)
        font = painter.truefonts[0]
        measured = font.font_variant(size=FONT_SIZE)
        middle = median(_ink(measured, character).height for character in options.charset)
        font = font.font_variant(size=ceil(FONT_SIZE * options.letter_height[1] / middle))
        self._glyphs = {character: _ink(font, character) for character in options.charset}
        self._middle = median(glyph.height for glyph in self._glyphs.values())
        self._refuse_crowding()

    def draw(self, text: str, generator: Random) -> PillowImage:
        """Return an image of a text, RGB; draw it in a block of `seeded` with its generator."""
        options = self._options
        per_letter = options.width_per_letter
        width = round(len(text) * generator.uniform(*per_letter)) if per_letter else options.width
        background = _random_background(generator)
        image = Image.new("RGB", (width, options.height), background)
        pitch = width / len(text)
        for place, character in enumerate(text):
            color = _random_ink(generator, _brightness(background) * (1 - generator.uniform(*options.contrast)))
            height = generator.uniform(*options.letter_height)
            letter = self._letter(character, height, generator.uniform(-options.rotation, options.rotation))
            left = pitch * place + generator.random() * (pitch - letter.width)
            top = generator.random() * (options.height - letter.height)
            image.paste(color, (round(left), round(top)), letter)
        self._draw_lines(image, generator)
        self._painter.create_noise_dots(image, self._line_color)
        self._painter.create_noise_curve(image, self._line_color)
        return image.filter(SMOOTH)

    def _letter(self, character: str, height: float, angle: float) -> PillowImage:
        """Return the ink of a letter, cropped; `height` is that of a character of middle height."""
        glyph, scale = self._glyphs[character], height / self._middle
        size = max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))
        upright = glyph.resize(size, Image.Resampling.BILINEAR)
        rotated = upright.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        return rotated.crop(rotated.getbbox())

    def _draw_lines(self, image: PillowImage, generator: Random) -> None:
        draw = Draw(image)
        for _ in range(generator.randint(*self._options.lines)):
            start, end = (generator.random() * image.height for _ in range(2))
            width = generator.randint(*self._options.line_width)
            draw.line((0, start, image.width, end), fill=self._line_color, width=width)

    def _refuse_crowding(self) -> None:
        options = self._options
        largest, rotation = options.letter_height[1], options.rotation
        angles = [rotation * step / ANGLES for step in range(-ANGLES, ANGLES + 1)]
        letters = [self._letter(character, largest, angle) for character in self._glyphs for angle in angles]
        width = max(letter.width for letter in letters) + MARGIN
        height = max(letter.height for letter in letters) + MARGIN
        pitch = options.width_per_letter[0] if options.width_per_letter else options.width / options.max_length
        need = f"letters with a letter_height of {largest:g} and a rotation of {rotation:g} degrees need"
        instead = "or lower letter_height or rotation"
        if width > pitch:
            option = "width_per_letter" if options.width_per_letter else "width or set width_per_letter,"
            raise DataError(f"{need} {width} pixels of width each, and some get {pitch:g}; raise {option} {instead}")
        if height > options.height:
            raise DataError(f"{need} {height} pixels of height, and height is {options.height}; raise it {instead}")


def _ink(font: FreeTypeFont, character: str) -> PillowImage:
    mask = font.getmask(character, mode="L")
    return Image.frombytes("L", mask.size, bytes(mask))


def _random_background(generator: Random) -> Color:
    red, green, blue = (generator.randint(*BACKGROUND) for _ in range(3))
    return red, green, blue


def _brightness(color: tuple[float, float, float]) -> float:
    return sum(weight * channel for weight, channel in zip(LUMA, color, strict=True))


def _random_ink(generator: Random, brightness: float) -> Color:
    """Return a color of random hue that is as bright in gray as `brightness`, from 0 to 255."""
    pure = hsv_to_rgb(generator.random(), generator.uniform(*SATURATION), 255)
    bright = _brightness(pure)
    if brightness <= bright:  # toward black
        red, green, blue = (round(channel * brightness / bright) for channel in pure)
    else:  # toward white
        share = (brightness - bright) / (255 - bright)
        red, green, blue = (round(channel + (255 - channel) * share) for channel in pure)
    return red, green, blue
