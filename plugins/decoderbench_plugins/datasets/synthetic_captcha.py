"""Captchas drawn by the `captcha` package: as many as wanted, the same in every process."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Self, final

from PIL import features
from pydantic import Field, model_validator

from decoderbench import Charset, ComponentConfig, DataError, Dataset, Sample, hookimpl, identity_of

if TYPE_CHECKING:
    from captcha.image import ImageCaptcha
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

Split = Literal["train", "val", "test"]
UNDEFINED = "\U0010ffff"  # a code point that no font draws


class _Seeded(Random):
    """The functions of `secrets` that captcha calls, made of `random()`, whose sequence Python keeps."""

    def randbelow(self, bound: int) -> int:
        return int(self.random() * bound)

    def randbits(self, count: int) -> int:
        return int(self.random() * 2**count)

    def choice(self, items: Any) -> Any:
        return items[self.randbelow(len(items))]


class _SecretsPerThread(threading.local):
    """Stands in for the module `secrets`: seeded while this thread draws a sample, secret otherwise."""

    source: Any = secrets

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    @contextmanager
    def seeded(self, seed: str) -> Iterator[None]:
        self.source = _Seeded(int.from_bytes(_hash(seed, 32)))
        try:
            yield
        finally:
            self.source = secrets


_secrets = _SecretsPerThread()


@final
class SyntheticCaptcha(Dataset):
    """Random texts drawn as captchas: warped and turned glyphs with dots and a curve.

    Text and image of sample i of a split depend on the options other than the counts, the split and i alone,
    so that a larger set holds the smaller one. The pixels also depend on the versions of captcha and Pillow.
    """

    name = "synthetic_captcha"

    class Config(ComponentConfig):
        """Options of `synthetic_captcha`."""

        charset: str = Field(default="0123456789", min_length=1)
        """Characters to draw from, all equally likely; the font of captcha must have them."""
        min_length: int = Field(default=4, ge=1, le=32)
        """Fewest characters of a text."""
        max_length: int = Field(default=4, ge=1, le=32)
        """Most characters of a text; all lengths between are equally likely."""
        train: int = Field(default=10_000, ge=1)
        """Samples to train on."""
        val: int = Field(default=1_000, ge=1)
        """Samples to validate on."""
        test: int = Field(default=2_000, ge=1)
        """Samples to test on."""
        width: int = Field(default=160, ge=16, le=2000)
        """Width of the drawn image in pixels, before it is resized as [image] says."""
        height: int = Field(default=60, ge=16, le=2000)
        """Height of the drawn image in pixels."""
        noise: bool = True
        """Draw 30 dots and a curve over the text, as captcha does by itself."""
        seed: int = 0
        """Another seed, other samples."""

        @model_validator(mode="after")
        def _lengths_in_order(self) -> Self:
            if self.min_length > self.max_length:
                raise ValueError(f"min_length {self.min_length} is larger than max_length {self.max_length}")
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def load_image(self, index: int) -> Image:
        sample = self._samples[index]
        with _secrets.seeded(f"{self.config.seed}/{sample.key}/image"):
            return self._painter.generate_image(sample.label)

    def fingerprint(self) -> str:
        software = {
            "captcha": version("captcha"),
            "pillow": version("pillow"),
            "freetype": features.version("freetype2"),
        }
        return _hash(json.dumps([identity_of(self.config), software]), 32).hex()

    @cached_property
    def _samples(self) -> list[Sample]:
        self._refuse_undrawable()
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
        from captcha import image

        vars(image)["secrets"] = _secrets
        painter = image.ImageCaptcha(self.config.width, self.config.height)
        if not self.config.noise:
            vars(painter).update(dict.fromkeys(("create_noise_dots", "create_noise_curve"), _no_noise))
        return painter

    def _refuse_undrawable(self) -> None:
        charset = Charset(self.config.charset)
        font = self._painter.truefonts[0]
        missing = [c for c in charset.characters if not _bitmap(font, c).strip(b"\0")]
        missing += [c for c in charset.characters if _bitmap(font, c) == _bitmap(font, UNDEFINED)]
        if missing:
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing)
            raise DataError(f"the font of captcha cannot draw {named}; take it out of the option charset")


def _no_noise(image: Image, _color: object) -> Image:
    return image


def _bitmap(font: FreeTypeFont, character: str) -> bytes:
    return bytes(font.getmask(character))


def _hash(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Offer `synthetic_captcha`."""
    return [SyntheticCaptcha]
