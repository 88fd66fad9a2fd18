"""Captchas with random texts: as many as requested, the same in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

from PIL import features

from decoderbench import Charset, DataError, Dataset, Sample, Split, identity_of, source_digest

from .options import CaptchaOptions
from .scattered import ScatteredLetters
from .seeded_captcha import captcha_painter, seeded

if TYPE_CHECKING:
    from captcha.image import ImageCaptcha
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

UNASSIGNED = "\U0010ffff"  # a code point that no font draws
SCATTERED = Path(__file__).with_name("scattered.py")


@final
class SyntheticCaptcha(Dataset):
    """Random texts drawn as captchas: warped letters of one color, or scattered ones of many colors with lines across.

    Text and image of sample i of a split depend only on i, the split and the options other than the counts, so a larger
    dataset contains the smaller one. The pixels also depend on the versions of captcha and Pillow.
    """

    name = "synthetic_captcha"

    Config = CaptchaOptions

    config: CaptchaOptions

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def label_source(self) -> str:
        return f"random texts over the option charset, seed {self.config.seed}, which are drawn as images"

    def split_source(self) -> str:
        return "drawn separately: options train, val and test"

    def load_image(self, index: int) -> Image:
        sample = self._samples[index]
        seed = int.from_bytes(_hash(f"{self.config.seed}/{sample.key}/image", 32))
        with seeded(seed) as generator:
            if self.config.style == "warped":
                return self._painter.generate_image(sample.label)
            return self._letters.draw(sample.label, generator)

    def fingerprint(self) -> str:
        software = {
            "captcha": version("captcha"),
            "pillow": version("pillow"),
            "freetype": features.version("freetype2"),
        }
        # captcha decides how letters are warped, scattered.py how they are scattered
        sources = [] if self.config.style == "warped" else [source_digest(SCATTERED)]
        return _hash(json.dumps([identity_of(self.config), software, *sources]), 32).hex()

    @cached_property
    def _samples(self) -> list[Sample]:
        self._refuse_missing_glyphs()
        if self.config.style == "scattered":
            assert self._letters  # raises here if letters may not fit, and not in the workers that draw
        counts: dict[Split, int] = {
            "train": self.config.train,
            "val": self.config.val,
            "test": self.config.test,
        }
        keys = ((f"{split}/{index:06d}", split) for split, count in counts.items() for index in range(count))
        return [Sample(key, self._text(key), split) for key, split in keys]

    def _text(self, key: str) -> str:
        config = self.config
        number = int.from_bytes(_hash(f"{config.seed}/{key}/text", 8 * (config.max_length + 1)))
        number, more = divmod(number, config.max_length - config.min_length + 1)
        text = ""
        for _ in range(config.min_length + more):
            number, index = divmod(number, len(config.charset))
            text += config.charset[index]
        return text

    @cached_property
    def _painter(self) -> ImageCaptcha:
        return captcha_painter(self.config.width, self.config.height, noise=self.config.noise)

    @cached_property
    def _letters(self) -> ScatteredLetters:
        return ScatteredLetters(self._painter, self.config)

    def _refuse_missing_glyphs(self) -> None:
        charset = Charset(self.config.charset)
        font = self._painter.truefonts[0]
        missing = [c for c in charset.characters if not _bitmap(font, c).strip(b"\0")]
        missing += [c for c in charset.characters if _bitmap(font, c) == _bitmap(font, UNASSIGNED)]
        if missing:
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing)
            raise DataError(f"the font of captcha cannot draw {named}; remove it from the option charset")


def _bitmap(font: FreeTypeFont, character: str) -> bytes:
    return bytes(font.getmask(character))


def _hash(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)
