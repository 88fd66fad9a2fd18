"""The recipe of `decoderbench compare`: settings that follow from what is seen of the data, each with its reason.

Which of the rules were measured, and which are assumptions: `decisions/0022`. No torch here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

HEIGHTS = (48, 40, 32)
"""Heights to choose from, in pixels."""
PIXELS_PER_CHARACTER = 2_400
"""The most pixels of an image per character, as more take time."""
PIXELS_PER_IMAGE = 16_000
"""The most pixels of an image."""
WIDTH_STEP = 8
MAX_WIDTH = 2_048
ALIKE, ALL_ALIKE = 1.3, 2.0
"""Images are stretched to one width if the 95th percentile of width per height is at most so many times the 5th, and
the largest at most so many times the smallest."""
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
BATCH_SIZE = 32
STEPS = (2_000, 6_000)
"""The fewest and the most steps, in between as many as `EPOCHS` take."""
EPOCHS = 8
KEEP_WIDTH = ("grid", "encoder", "ResNet-10-T, stage 3", "keep_width")
POOL_OF_LOOP = ("grid", "decoder", "LSTMCell loop", "pool")


@dataclass(frozen=True)
class Sighting:
    """What is seen of data before anything is trained.

    Attributes:
        num_train: number of training images.
        frames_needed: frames that CTC needs for the most demanding of all labels.
        sizes: width and height in pixels of the images that were looked at, one at least.
        labels: their labels.
        colored: the share of them that have colors.
    """

    num_train: int
    frames_needed: int
    sizes: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]
    colored: float

    @cached_property
    def height(self) -> float:
        """The median height."""
        return statistics.median(height for _, height in self.sizes)

    @cached_property
    def aspect_ratios(self) -> list[float]:
        """Width per height of each image."""
        return [width / height for width, height in self.sizes]

    def character_widths(self, widths: Iterable[float]) -> list[float]:
        """Return the width per character of the images with a label, given the widths of all images."""
        return [width / len(label) for width, label in zip(widths, self.labels, strict=True) if label]


class Choice(NamedTuple):
    """A setting and why it has its value."""

    option: tuple[str, ...]
    value: Any
    reason: str

    def as_changes(self) -> dict[str, Any]:
        """Return the setting as a change of an experiment."""
        *tables, key = self.option
        changes = {key: self.value}
        for table in reversed(tables):
            changes = {table: changes}
        return changes


def choose_recipe(seen: Sighting, given: Mapping[str, Any]) -> list[Choice]:
    """Return the settings that follow from what is seen, without those that `given` has.

    Args:
        seen: what is seen of the data.
        given: tables with options that a user set by hand, as plain data; what is chosen goes with them. A component
            that is replaced has none of the options of the one in its place.
    """
    choices: list[Choice] = []

    def decide(option: tuple[str, ...], value: Any, reason: str) -> Any:
        table: Any = given
        for key in option:
            if not isinstance(table, Mapping) or "use" in table:
                return value  # another component
            if key not in table:
                choices.append(Choice(option, value, reason))
                return value
            table = table[key]
        return table

    decide(("image", "channels"), *_channels(seen))
    height = decide(("image", "height"), *_height(seen))
    resize = decide(("image", "resize"), *_resize(seen))
    width = decide(("image", "width"), *_width(seen, height, resize))
    decide(KEEP_WIDTH, *_width_reduction(seen, height, width, resize))
    decide(POOL_OF_LOOP, *_pool(resize))
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
        lines.setdefault((option[:-1], reason), []).append(f"{option[-1]} = {json.dumps(value)}")
    return [
        f"[{'.'.join(key if key.isidentifier() else json.dumps(key) for key in table)}] {', '.join(settings)}: {reason}"
        for (table, reason), settings in lines.items()
    ]


def _channels(seen: Sighting) -> tuple[int, str]:
    share = f"{100 * seen.colored:.3g} % of images have colors"
    if seen.colored >= COLORED:
        return 3, share
    return 1, f"{share}, fewer than {100 * COLORED:.0f} %" if seen.colored else "no image has colors"


def _height(seen: Sighting) -> tuple[int, str]:
    """Return the first height that no reason speaks against, or the last one."""
    ratio = statistics.median(seen.aspect_ratios)
    of_character = statistics.median(seen.character_widths(seen.aspect_ratios) or [ratio])
    native = f"images are {seen.height:g} pixels high (median)"
    against = ""
    for height in HEIGHTS:
        pixels, per_character = height**2 * ratio, height**2 * of_character
        if height == HEIGHTS[-1]:
            break
        if height > seen.height:
            continue
        if pixels > PIXELS_PER_IMAGE:
            against = f", and would have {pixels:,.0f} at {height}, more than {PIXELS_PER_IMAGE:,}"
        elif per_character > PIXELS_PER_CHARACTER:
            against = (
                f", and would have {per_character:,.0f} per character at {height}, more than {PIXELS_PER_CHARACTER:,}"
            )
        else:
            break
    return height, f"{native}; they get {pixels:,.0f} pixels, {per_character:,.0f} per character{against}"


def _resize(seen: Sighting) -> tuple[str, str]:
    ratios = seen.aspect_ratios
    narrow, wide = np.percentile(ratios, (5, 95))
    if wide <= ALIKE * narrow and max(ratios) <= ALL_ALIKE * min(ratios):
        return "stretch", f"images are alike, {statistics.median(ratios):.1f} times as wide as high (median)"
    return "keep", f"images are {min(ratios):.1f} to {max(ratios):.1f} times as wide as high"


def _width(seen: Sighting, height: int, resize: str) -> tuple[int, str]:
    if resize == "stretch":
        ratio, reason = statistics.median(seen.aspect_ratios), "the median width per height"
    else:
        ratio, reason = 1.25 * max(seen.aspect_ratios), "a quarter more than the widest image that was looked at"
    width = WIDTH_STEP * round(height * ratio / WIDTH_STEP)
    if width > MAX_WIDTH:
        return MAX_WIDTH, f"the most that is chosen; {reason} would need {width:,}"
    if width < height:
        return height, f"as wide as high, the least that is chosen; {reason} would need {width:,}"
    return width, reason


def _width_reduction(seen: Sighting, height: int, width: int, resize: str) -> tuple[int, str]:
    """Return how far the encoder may reduce the width, so that narrow characters and the longest label have frames."""
    widths = [float(width) if resize == "stretch" else min(height * ratio, width) for ratio in seen.aspect_ratios]
    of_characters = seen.character_widths(widths)
    narrow = float(np.percentile(of_characters, 5)) if of_characters else math.inf

    def fits(reduction: int) -> bool:
        # Where images have one width, the longest label must fit into it; elsewhere, it has a wide image of its own.
        longest = seen.frames_needed if resize == "stretch" else 0
        return narrow >= FRAMES_PER_CHARACTER * reduction and width // reduction >= longest

    reduction = next(filter(fits, WIDTH_REDUCTIONS), WIDTH_REDUCTIONS[-1])
    if not of_characters:
        return reduction, "no label has a character"
    unit = "pixel" if round(narrow) == 1 else "pixels"
    reason = f"narrow characters are {narrow:.0f} {unit} wide (5th percentile), {narrow / reduction:.1f} times as much"
    if any(narrow >= FRAMES_PER_CHARACTER * more for more in WIDTH_REDUCTIONS if more > reduction):
        reason += f"; the longest label needs {seen.frames_needed} frames"
    return reduction, reason


def _pool(resize: str) -> tuple[str, str]:
    if resize == "keep":
        return "frames", "images have different widths, and a flattened memory has one"
    return "flatten", "images have one width"


def _augmentation(seen: Sighting) -> tuple[Mapping[str, float], str]:
    images = _count(seen.num_train, "training image")
    if seen.num_train < FEW_IMAGES:
        return STRONG, f"{images}, fewer than {FEW_IMAGES:,}, so changed much"
    return WEAK, f"{images}, at least {FEW_IMAGES:,}, so changed a little"


def _steps(seen: Sighting, batch_size: int) -> tuple[int, str]:
    wanted = 500 * math.ceil(EPOCHS * seen.num_train / batch_size / 500)
    steps = min(max(wanted, STEPS[0]), STEPS[1])
    epochs = steps * batch_size / max(seen.num_train, 1)
    how_often = _count(round(epochs), "epoch") if epochs >= 1 else "less than an epoch"
    limit = ""
    if steps != wanted:
        limit = ", the fewest that are chosen" if steps > wanted else ", the most that are chosen; more may read more"
    return steps, f"{how_often} of {_count(seen.num_train, 'training image')}{limit}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
