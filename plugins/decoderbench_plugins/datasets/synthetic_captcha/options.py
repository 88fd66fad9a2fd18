"""The options of `synthetic_captcha`, and which of them go together."""

from __future__ import annotations

from typing import Literal, Self

from PIL import ImageColor
from pydantic import Field, field_validator, model_validator

from decoderbench import ComponentConfig

Range = tuple[float, float]
Count = tuple[int, int]

RANGES = {
    "width_per_letter": (4, 500), "letter_height": (6, 1000), "contrast": (0.05, 1), "lines": (0, 100),
    "line_width": (1, 100),
}  # fmt: skip
MAX_PIXELS = 4_000_000  # as of image files, and of the largest width and height
SCATTERED_ONLY = (*RANGES, "rotation", "line_color")


class CaptchaOptions(ComponentConfig):
    """Options of `synthetic_captcha`."""

    charset: str = Field(default="0123456789", min_length=1)
    """Characters to draw from, all equally likely; captcha's font must have them."""
    min_length: int = Field(default=4, ge=1, le=32)
    """Fewest characters of a text."""
    max_length: int = Field(default=4, ge=1, le=32)
    """Most characters of a text; all lengths in between are equally likely."""
    train: int = Field(default=10_000, ge=1, le=10_000_000)
    """Samples to train on."""
    val: int = Field(default=1_000, ge=1, le=10_000_000)
    """Samples to validate on."""
    test: int = Field(default=2_000, ge=1, le=10_000_000)
    """Samples to test on."""
    width: int = Field(default=160, ge=16, le=2000)
    """Width of the drawn image in pixels, before it is resized as specified in [image]."""
    height: int = Field(default=60, ge=16, le=2000)
    """Height of the drawn image in pixels."""
    noise: bool = True
    """Draw 30 dots and a curve over the text, the default of captcha."""
    seed: int = 0
    """Another seed gives other samples."""
    style: Literal["warped", "scattered"] = "warped"
    """warped: letters of one color, close together, as captcha draws them. scattered: each letter has a color, height,
    place and rotation of its own, and lines cross the image."""
    width_per_letter: Range | None = None
    """If scattered: width of an image in pixels for each character of its text, drawn for each image, in place of
    width."""
    letter_height: Range = (20.0, 30.0)
    """If scattered: height in pixels of a character of middle height, drawn for each letter. Taller and shorter
    characters of charset keep their proportions."""
    rotation: float = Field(default=20.0, ge=0, le=45)
    """If scattered: largest rotation of a letter in either direction, degrees."""
    contrast: Range = (0.2, 0.9)
    """If scattered: how much darker than the background a letter is in gray, as a share of the background's brightness,
    0.05 (pale) to 1 (black). Its hue is random."""
    lines: Count = (2, 5)
    """If scattered: fewest and most lines from the left edge to the right, drawn over the letters."""
    line_width: Count = (1, 2)
    """If scattered: least and greatest width of a line in pixels."""
    line_color: str = "black"
    """If scattered: color of the lines, dots and curve, such as black or #204060."""

    @field_validator("line_color")
    @classmethod
    def _check_color(cls, color: str) -> str:
        try:
            channels = len(ImageColor.getrgb(color))
        except ValueError:
            channels = 0
        if channels != 3:
            raise ValueError(f"must be an opaque color such as black or #204060, given {color!r}")
        return color

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is larger than max_length {self.max_length}")
        if len(set(self.charset)) < len(self.charset):
            raise ValueError("charset has a character twice; list each once")
        for option, (least, most) in RANGES.items():
            if (bounds := getattr(self, option)) is not None and not least <= bounds[0] <= bounds[1] <= most:
                raise ValueError(f"{option} must be two ascending numbers from {least} to {most}, given {[*bounds]}")
        for option in SCATTERED_ONLY if self.style == "warped" else ():
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f'{option} has no effect on warped letters; set style = "scattered" or remove it')
        if self.width_per_letter is not None and self.width != type(self).model_fields["width"].default:
            raise ValueError("width has no effect beside width_per_letter; remove one of the two")
        if self.width_per_letter is not None:
            widest = round(self.width_per_letter[1] * self.max_length)
            if widest * self.height > MAX_PIXELS:
                raise ValueError(
                    f"images of up to {widest} x {self.height} pixels have more than {MAX_PIXELS:,}; lower "
                    "width_per_letter, max_length or height"
                )
        return self
