"""Contrast of images: which have nothing to read once they are converted to pixels, and why. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from decoderbench.data.image_decoding import errors_of_images, to_gray_or_rgb
from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CONTRAST = 20
"""The least difference of brightness, of 255, within a channel of an image that can be read. 12 bits stored as 16 give
at most 16. The faintest of 6,387 photographs, scans and captchas has 33."""


def measure_contrast(pixels: NDArray[np.uint8]) -> int:
    """Return the largest difference of brightness within a channel of (C, H, W) pixels."""
    return int(np.ptp(pixels.reshape(len(pixels), -1), axis=1).max())


@errors_of_images()
def is_transparent(image: Image.Image) -> bool:
    """Return whether any pixel of an image is transparent, wholly or in part."""
    if not image.has_transparency_data or image.mode.startswith("I;16"):
        return False
    alpha = image if "A" in image.getbands() else image.convert("RGBA")
    return bool(alpha.getchannel("A").getextrema()[0] < 255)  # type: ignore[operator]  # a pair of integers


@errors_of_images()
def find_lost_contrast(image: Image.Image, pixels: NDArray[np.uint8], options: ImageOptions) -> str | None:
    """Return why the pixels that an image was converted to lack contrast, and what helps; None if they do not."""
    if measure_contrast(pixels) >= MIN_CONTRAST:
        return None
    source = image if image.mode.startswith("I;16") else image.convert("RGBA")
    values = np.asarray(source).reshape(image.height * image.width, -1)  # (pixels, 1 or 4)
    if source.mode == "RGBA" and not values[:, 3].any():
        return "it is transparent everywhere"
    if (values == values[0]).all():
        return "it is of one color everywhere"
    shown = to_gray_or_rgb(image)
    contrast = _contrast_of(shown)
    if contrast >= MIN_CONTRAST:
        if options.channels == 1 and _contrast_of(shown.convert("L")) < MIN_CONTRAST:
            return "its colors differ, but not in brightness; image.channels = 3 keeps colors"
        return (
            f"what is visible at its own {image.width} x {image.height} pixels vanishes when it is resized; crop it, "
            "or raise image.height and image.width"
        )
    if source.mode != "RGBA":
        low, high = values.min(), values.max()
        return f"its 16-bit brightness is from {low:,} to {high:,} of 65,535; save it with the whole range"
    if _contrast_of(source) >= MIN_CONTRAST:
        return "it is composited on white, where its transparent and opaque parts look alike; save it on another ground"
    return f"its brightness differs by {contrast} of 255; raise its contrast"


def _contrast_of(image: Image.Image) -> int:
    return measure_contrast(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))
