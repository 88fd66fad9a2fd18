"""Reading of one image: which files are accepted, and how an image becomes pixels. No torch here."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from decoderbench.data.image_formats import FORMAT_OF_SUFFIX, IMAGE_FORMATS
from decoderbench.data.libtiff_messages import collected_libtiff_messages
from decoderbench.data.width_buckets import pad_right
from decoderbench.errors import DataError, DecoderBenchError
from decoderbench.exception_text import text_of, type_name
from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 4_000_000


@contextmanager
def errors_of_images() -> Iterator[None]:
    """Turn whatever Pillow or a dataset raises while it reads an image into a `DataError` that names the cause.

    Pillow raises nearly anything for a damaged file: OSError, SyntaxError, ValueError, struct.error, MemoryError and
    others. A dataset may even call `sys.exit`, which would end a run with status 0. `KeyboardInterrupt` passes.
    """
    try:
        yield
    except (DataError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise DataError(_name_cause(error)) from error


def _name_cause(error: BaseException) -> str:
    name, text = type_name(error), text_of(error)
    return text if isinstance(error, DecoderBenchError) or text == name else f"{name}: {text}"


def decode_image_file(source: Path | BinaryIO) -> Image.Image:
    """Return an image file fully decoded, and rotated as its EXIF orientation requires.

    The format is detected from the content. The file name counts for TGA and DIB only, whose content cannot be told
    from that of other files. Of an MPO container, as phones write, the first frame is read, with a warning.

    Raises:
        DataError: the image has more than `MAX_PIXELS` pixels, which is checked before decoding, or several frames; or
            the file is missing, not a regular file, damaged, or not an image in one of `IMAGE_FORMATS`.
    """
    by_name = FORMAT_OF_SUFFIX.get(source.suffix.lower()) if isinstance(source, Path) else None
    # A plugin may have told Pillow to fill up truncated images with gray.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with errors_of_images():
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise DataError("not a regular file")  # a pipe would block, and a device may never end
        try:
            image = Image.open(source, formats=[*IMAGE_FORMATS, *([by_name] if by_name else [])])
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"image has more than {MAX_PIXELS:,} pixels; crop it or scale it down") from error
        except UnidentifiedImageError as error:
            raise DataError(
                f"cannot identify image: it is damaged, or in none of the formats {', '.join(IMAGE_FORMATS)}"
            ) from error
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"image has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; crop it or scale it "
                    "down"
                )
            frames = getattr(image, "n_frames", 1)
            if frames != 1 and image.format != "MPO":
                raise DataError(f"image has {frames} frames, a sample needs one; save the labeled frame alone")
            _load(image)
            if frames != 1:
                warnings.warn("an MPO container of several frames, of which the first is read", stacklevel=2)
            return ImageOps.exif_transpose(image)


def _load(image: ImageFile.ImageFile) -> None:
    """Decode an image; what libtiff says of a damaged one is a warning, or a part of the error."""
    try:
        with collected_libtiff_messages(image) as messages:
            image.load()
    except OSError as error:
        if messages:
            raise OSError(f"{error}: {'; '.join(messages)}") from error  # Pillow says no more than "decoder error -2"
        raise
    if messages:
        warnings.warn(f"libtiff: {'; '.join(messages)}", stacklevel=4)


@errors_of_images()
def to_pixels(image: Image.Image, options: ImageOptions) -> NDArray[np.uint8]:
    """Return `image` as (C, H, W) uint8.

    Transparent images are composited on white, 16-bit gray is scaled to 8 bits, palettes and other color spaces are
    converted to RGB, and gray is the ITU-R 601 luma. Resizing is antialiased and bilinear. `stretch` ignores the aspect
    ratio. `pad` keeps it, aligns the image left and repeats its last column up to the width. `keep` omits the padding,
    so that W is the image's own width. With `pad` and `keep`, images that would exceed the width are squeezed to it.

    Raises:
        DataError: the mode has no defined range (32-bit integers or floats), or cannot be converted.
    """
    image = to_gray_or_rgb(image).convert("L" if options.channels == 1 else "RGB")
    width = options.width if options.resize == "stretch" else min(options.width, scaled_width(image, options))
    resized = np.asarray(image.resize((width, options.height), Image.Resampling.BILINEAR))
    pixels = resized.reshape(options.height, width, options.channels).transpose(2, 0, 1)  # (C, H, W)
    return pixels if options.resize == "keep" else pad_right(pixels, options.width)


def scaled_width(image: Image.Image, options: ImageOptions) -> int:
    """Return the width of an image at the requested height and its own aspect ratio."""
    return max(1, round(image.width * options.height / image.height))


def to_gray_or_rgb(image: Image.Image) -> Image.Image:
    """Return an image in mode L or RGB, composited on white; raise `DataError` if its mode has no defined range."""
    wide_gray, transparent = image.mode.startswith("I;16"), image.info.get("transparency")
    if transparent is not None and (wide_gray or (isinstance(transparent, tuple) and max(transparent) > 255)):
        raise DataError("image has 16 bits per channel and a transparent color, which is not read; save it with 8 bits")
    if wide_gray:
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"image mode {image.mode!r} has no defined range of brightness; save it with 8 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
