"""Captchas drawn by the package `captcha`: as many as requested, the same in every process."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib.metadata import version
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, final

from PIL import features
from pydantic import Field, model_validator

from decoderbench import (
    Charset,
    ComponentConfig,
    DataError,
    Dataset,
    PluginError,
    Sample,
    Split,
    hookimpl,
    identity_of,
)

if TYPE_CHECKING:
    from captcha.image import ImageCaptcha
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

TESTED_CAPTCHA = "captcha>=0.5,<0.8"  # as in pyproject.toml
UNASSIGNED = "\U0010ffff"  # a code point that no font draws
NOISE = ("create_noise_dots", "create_noise_curve")


class _Seeded(Random):
    """The functions of `random` and `secrets` that captcha calls.

    All are computed from `random()`, because Python promises to keep the sequence of no other function.
    """

    def randbelow(self, bound: int) -> int:
        return int(self.random() * bound)

    def randbits(self, count: int) -> int:
        return int(self.random() * 2**count)

    def choice(self, items: Any) -> Any:
        return items[self.randbelow(len(items))]

    def randint(self, low: int, high: int) -> int:
        return low + self.randbelow(high - low + 1)

    def uniform(self, low: float, high: float) -> float:
        return low + self.random() * (high - low)


class _SourcePerThread(threading.local):
    """Replaces a module in captcha: a seeded generator while this thread draws a sample, otherwise the module."""

    def __init__(self, module: ModuleType) -> None:
        self.module: ModuleType = module
        self.source: Any = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    @contextmanager
    def replaced_by(self, generator: Random) -> Iterator[None]:
        self.source = generator
        try:
            yield
        finally:
            self.source = self.module


_sources = {"random": _SourcePerThread(random), "secrets": _SourcePerThread(secrets)}


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Seed the captchas that this thread draws in the block."""
    generator = _Seeded(int.from_bytes(_hash(seed, 32)))
    with ExitStack() as stack:
        for source in _sources.values():
            stack.enter_context(source.replaced_by(generator))
        yield


@final
class SyntheticCaptcha(Dataset):
    """Random texts drawn as captchas: warped and rotated glyphs with dots and a curve.

    Text and image of sample i of a split depend only on i, the split and the options other than the counts, so a larger
    dataset contains the smaller one. The pixels also depend on the versions of captcha and Pillow.
    """

    name = "synthetic_captcha"

    class Config(ComponentConfig):
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

        @model_validator(mode="after")
        def _check_consistency(self) -> Self:
            if self.min_length > self.max_length:
                raise ValueError(f"min_length {self.min_length} is larger than max_length {self.max_length}")
            if len(set(self.charset)) < len(self.charset):
                raise ValueError("charset has a character twice; list each once")
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def label_source(self) -> str:
        return f"random texts over the option charset, seed {self.config.seed}, which are drawn as images"

    def split_source(self) -> str:
        return "drawn separately: options train, val and test"

    def load_image(self, index: int) -> Image:
        sample = self._samples[index]
        with _seeded(f"{self.config.seed}/{sample.key}/image"):
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
        self._refuse_missing_glyphs()
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

        # captcha has no seed: its versions draw with either module, which it imports by name.
        vars(image).update({name: source for name, source in _sources.items() if name in vars(image)})
        painter = image.ImageCaptcha(self.config.width, self.config.height)
        _check_painter(painter)
        if not self.config.noise:
            vars(painter).update(dict.fromkeys(NOISE, _no_noise))
        return painter

    def _refuse_missing_glyphs(self) -> None:
        charset = Charset(self.config.charset)
        font = self._painter.truefonts[0]
        missing = [c for c in charset.characters if not _bitmap(font, c).strip(b"\0")]
        missing += [c for c in charset.characters if _bitmap(font, c) == _bitmap(font, UNASSIGNED)]
        if missing:
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing)
            raise DataError(f"the font of captcha cannot draw {named}; remove it from the option charset")


def _check_painter(painter: ImageCaptcha) -> None:
    """Raise `PluginError` if this version of captcha cannot be controlled: its images would differ in each process."""
    problem = ", ".join(f"it has no {name}" for name in (*NOISE, "truefonts") if not hasattr(painter, name))
    if not problem:
        images = []
        try:
            for _ in range(2):
                with _seeded("check"):
                    images.append(painter.generate_image("0").tobytes())
        except Exception as error:  # noqa: BLE001 - the type depends on the version
            problem = f"{type(error).__name__}: {error}"
        else:
            problem = "" if images[0] == images[1] else "two images with the same seed differ"
    if problem:
        raise PluginError(
            f"dataset synthetic_captcha cannot use captcha {version('captcha')}: {problem}; install '{TESTED_CAPTCHA}'"
        )


def _no_noise(image: Image, _color: object) -> Image:
    return image


def _bitmap(font: FreeTypeFont, character: str) -> bytes:
    return bytes(font.getmask(character))


def _hash(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `synthetic_captcha`."""
    return [SyntheticCaptcha]
