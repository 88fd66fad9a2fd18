"""The recipe of `decoderbench compare`: settings that follow from what is seen of the data, each with its reason.

The rules were measured on drawn captchas and on validation images of real ones: `results/LOG.md`. No torch here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

HEIGHTS = (48, 40, 32)
"""Heights to choose from, in pixels."""
PIXELS_PER_CHARACTER = 2_400
"""The most pixels of an image per character: more take time and read no better."""
PIXELS_PER_IMAGE = 16_000
"""The most pixels of an image."""
WIDTH_STEP = 8
MAX_WIDTH = 2_048
ALIKE = 1.3
"""Images are stretched to one width if the 95th percentile of width per height is at most so many times the 5th."""
WIDTH_REDUCTIONS = (8, 4, 2)
"""Factors by which the encoder may reduce the width."""
FRAMES_PER_CHARACTER = 2.0
"""The fewest frames per character of an image with narrow characters: CTC may need two, of equal neighbors."""
COLORED = 0.05
"""The share of images with colors from which on colors are kept."""
FEW_IMAGES = 2_000
"""Below so many training images, the augmentation is the strong one."""
STRONG = {
    "rotate": 4.0,
    "shear": 0.15,
    "scale": 0.12,
    "translate": 0.08,
    "contrast": 0.3,
    "brightness": 0.1,
    "noise": 0.05,
}
WEAK = {
    "rotate": 3.0,
    "shear": 0.1,
    "scale": 0.1,
    "translate": 0.06,
    "contrast": 0.2,
    "brightness": 0.1,
    "noise": 0.04,
}
KEEP_WIDTH = ("grid", "encoder", "ResNet-10-T, stage 3", "keep_width")
LOOP = ("grid", "decoder", "LSTMCell loop", "pool")
BATCH_SIZE = 32
STEPS = (2_000, 6_000)
"""The fewest and the most steps, in between as many as `EPOCHS` take."""
EPOCHS = 8


@dataclass(frozen=True)
class Sighting:
    """What is seen of data before anything is trained.

    Attributes:
        num_train: number of training images.
        sizes: width and height of some images, in pixels.
        lengths: number of characters of their labels, in the same order.
        colored: the share of them that have colors.
    """

    num_train: int
    sizes: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    colored: float

    @property
    def height(self) -> float:
        """The median height."""
        return statistics.median(height for _, height in self.sizes)

    @property
    def aspect_ratios(self) -> list[float]:
        """Width per height of each image."""
        return [width / height for width, height in self.sizes]

    @property
    def character_widths(self) -> list[float]:
        """The share of the height that a character is wide, of each image with a label."""
        return [ratio / length for ratio, length in zip(self.aspect_ratios, self.lengths, strict=True) if length]


class Choice(NamedTuple):
    """A setting and why it has its value."""

    option: tuple[str, ...]
    value: Any
    reason: str

    def as_changes(self) -> dict[str, Any]:
        """Return the setting as a change of an experiment."""
        changes: Any = self.value
        for key in reversed(self.option):
            changes = {key: changes}
        return {**changes}


def choose_recipe(seen: Sighting, given: Mapping[str, Any]) -> list[Choice]:
    """Return the settings that follow from what is seen, without those that `given` has.

    Args:
        seen: what is seen of the data.
        given: tables with options that a user set by hand, as plain data; what is chosen goes with them.
    """
    choices: list[Choice] = []

    def decide(option: tuple[str, ...], value: Any, reason: str) -> Any:
        table: Any = given
        for key in option:
            if not isinstance(table, Mapping) or key not in table:
                choices.append(Choice(option, value, reason))
                return value
            table = table[key]
        return table

    decide(("image", "channels"), 3 if seen.colored >= COLORED else 1, f"{seen.colored:.0%} of images have colors")
    height = decide(("image", "height"), *_height(seen))
    resize = decide(("image", "resize"), *_resize(seen))
    width = decide(("image", "width"), *_width(seen, height, resize))
    decide(KEEP_WIDTH, *_width_reduction(seen, height, width, resize))
    decide(LOOP, *_loop(resize))
    augmentation, why = _augmentation(seen)
    for option, value in augmentation.items():
        decide(("augmentation", option), value, why)
    why = "more steps in the same time than with larger batches"
    batch_size = decide(("training", "batch_size"), BATCH_SIZE, why)
    decide(("training", "steps"), *_steps(seen, batch_size))
    return choices


def describe_recipe(choices: Iterable[Choice]) -> list[str]:
    """Return the settings as lines for people; those of one table with one reason share a line."""
    lines: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for option, value, reason in choices:
        lines.setdefault((option[:-1], reason), []).append(f"{option[-1]} = {value}")
    return [
        f"[{'.'.join(key if key.isidentifier() else json.dumps(key) for key in table)}] {', '.join(settings)}: {reason}"
        for (table, reason), settings in lines.items()
    ]


def _height(seen: Sighting) -> tuple[int, str]:
    native = seen.height
    for height in HEIGHTS[:-1]:
        pixels = height**2 * statistics.median(seen.aspect_ratios)
        per_character = height**2 * statistics.median(seen.character_widths or [1.0])
        if height <= native and pixels <= PIXELS_PER_IMAGE and per_character <= PIXELS_PER_CHARACTER:
            return height, (
                f"images are {native:g} pixels high (median); at this height an image has {pixels:,.0f} pixels, "
                f"{per_character:,.0f} per character"
            )
    return HEIGHTS[-1], f"images are {native:g} pixels high (median), and more would take long or add nothing"


def _resize(seen: Sighting) -> tuple[str, str]:
    narrow, wide = np.percentile(seen.aspect_ratios, (5, 95))
    spread = f"images are {narrow:.1f} to {wide:.1f} times as wide as high (5th to 95th percentile)"
    return ("stretch" if wide <= ALIKE * narrow else "keep"), spread


def _width(seen: Sighting, height: int, resize: str) -> tuple[int, str]:
    if resize == "stretch":
        ratio, reason = statistics.median(seen.aspect_ratios), "keeps the median width per height"
    else:
        ratio, reason = 1.25 * max(seen.aspect_ratios), "a quarter more than the widest image that was looked at"
    width = WIDTH_STEP * round(height * ratio / WIDTH_STEP)
    bounded = min(max(width, height), MAX_WIDTH)
    limit = "the most" if bounded < width else "the least"
    return bounded, reason if bounded == width else f"{limit}; {reason} would be {width:,}"


def _width_reduction(seen: Sighting, height: int, width: int, resize: str) -> tuple[int, str]:
    """Return how far the encoder reduces the width, so that narrow characters still have frames."""
    widths = [
        (width if resize == "stretch" else min(height * ratio, width)) / length
        for ratio, length in zip(seen.aspect_ratios, seen.lengths, strict=True)
        if length
    ] or [float(width)]
    narrow = float(np.percentile(widths, 5))
    reduction = next((r for r in WIDTH_REDUCTIONS if narrow / r >= FRAMES_PER_CHARACTER), WIDTH_REDUCTIONS[-1])
    return reduction, f"a character is {narrow:.0f} pixels wide (5th percentile), {narrow / reduction:.1f} frames"


def _loop(resize: str) -> tuple[str, str]:
    if resize == "stretch":
        return "flatten", "images have one width"
    return "frames", "images have different widths, and a flattened memory has one"


def _augmentation(seen: Sighting) -> tuple[Mapping[str, float], str]:
    few = seen.num_train < FEW_IMAGES
    return (STRONG if few else WEAK), f"{seen.num_train:,} training images are {'few' if few else 'enough for less'}"


def _steps(seen: Sighting, batch_size: int) -> tuple[int, str]:
    wanted = 500 * math.ceil(EPOCHS * seen.num_train / batch_size / 500)
    steps = min(max(wanted, STEPS[0]), STEPS[1])
    epochs = steps * batch_size / max(seen.num_train, 1)
    limit = {STEPS[0]: ", the fewest steps", STEPS[1]: ", the most steps; more may read more"}.get(steps, "")
    return steps, f"{epochs:,.0f} epochs of {seen.num_train:,} training images{limit}"
