"""The package `captcha`, controlled: what it draws depends on a seed only, in every process and thread."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any

from decoderbench import PluginError

if TYPE_CHECKING:
    from captcha.image import ImageCaptcha
    from PIL.Image import Image

TESTED_CAPTCHA = "captcha>=0.5,<0.8"  # as in pyproject.toml
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
def seeded(seed: int) -> Iterator[Random]:
    """Seed the captchas that this thread draws in the block, and yield the generator that they are drawn with."""
    generator = _Seeded(seed)
    with ExitStack() as stack:
        for source in _sources.values():
            stack.enter_context(source.replaced_by(generator))
        yield generator


def captcha_painter(width: int, height: int, *, noise: bool) -> ImageCaptcha:
    """Return what draws images of a size in pixels; draw them in a block of `seeded`.

    Raises:
        PluginError: this version of captcha cannot be controlled: its images would differ in each process.
    """
    from captcha import image

    # captcha has no seed: its versions draw with either module, which it imports by name.
    vars(image).update({name: source for name, source in _sources.items() if name in vars(image)})
    painter = image.ImageCaptcha(width, height)
    _check_painter(painter)
    if not noise:
        vars(painter).update(dict.fromkeys(NOISE, _no_noise))
    return painter


def _check_painter(painter: ImageCaptcha) -> None:
    """Raise `PluginError` if this version of captcha cannot be controlled: its images would differ in each process."""
    problem = ", ".join(f"it has no {name}" for name in (*NOISE, "truefonts") if not hasattr(painter, name))
    if not problem:
        images = []
        try:
            for _ in range(2):
                with seeded(0):
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
