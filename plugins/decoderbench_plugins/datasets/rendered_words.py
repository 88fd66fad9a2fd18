"""Words drawn with real fonts: as many as wanted, each factor of the drawing under control."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from PIL import Image, features
from pydantic import Field, model_validator

from decoderbench import (
    Charset,
    ComponentConfig,
    DataError,
    Dataset,
    Sample,
    TextStyle,
    Typeface,
    draw_text,
    hookimpl,
    select_typefaces,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
PATTERNS: tuple[Literal["plain", "gradient", "texture"], ...] = ("plain", "gradient", "texture")
# Each factor of a sample has its own number, so that a change to one option leaves the other factors as they were.
FACTORS = (
    "typeface", "size", "spacing", "margin", "offset", "rotation", "perspective_across", "perspective_down",
    "curvature", "blur", "noise", "contrast", "brightness", "polarity", "pattern",
)  # fmt: skip
RANGES = {"size": (0.05, 1), "spacing": (-0.1, 1), "margin": (0, 2), "contrast": (0.05, 1)}
SHOWN = 10


Range = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]


@final
class RenderedWords(Dataset):
    """Random strings or the words of a list, drawn in gray with many fonts, turned, bent, blurred and noisy.

    A factor is drawn for each sample evenly from its range, independent of the others. Sample i of a split depends
    on the options other than the counts, the split and i alone, so that a larger set holds the smaller one; and a
    changed factor leaves text and other factors of every sample as they were, so that its effect can be studied
    alone. The width of an image follows its text: to keep the aspect, set resize = "pad" in [image].
    """

    name = "rendered_words"

    class Config(ComponentConfig):
        """Options of `rendered_words`."""

        words: str | None = None
        """File with a word a line, UTF-8, relative to the experiment file. Left out: random strings over charset.
        Words outside charset or the lengths are left out and counted. Texts then have a language to learn."""
        shared_words: bool = False
        """All splits draw from all words of the list. By default each word belongs to one split, so that no word
        to test was trained on."""
        word_shares: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
        """Shares of the list's words that train, val and test draw from; sum 1."""
        charset: str = Field(default="0123456789abcdefghijklmnopqrstuvwxyz", min_length=1)
        """Characters of the texts, in random strings all equally likely. No blanks; scripts that join letters or
        run from right to left are not set properly."""
        min_length: int = Field(default=3, ge=1, le=64)
        """Fewest characters of a text."""
        max_length: int = Field(default=10, ge=1, le=64)
        """Most characters of a text; in random strings all lengths between are equally likely."""
        repeat: Share | None = None
        """Probability that a character of a random string is the same as the one before it, else it is another.
        Left out: as often as chance has it, 1 in the size of charset."""
        train: int = Field(default=10_000, ge=1)
        """Samples to train on."""
        val: int = Field(default=1_000, ge=1)
        """Samples to validate on."""
        test: int = Field(default=2_000, ge=1)
        """Samples to test on."""
        seed: int = 0
        """Another seed, other samples, and other words in each split."""
        fonts: str | None = None
        """Folder whose .ttf, .otf and .ttc files to draw with, relative to the experiment file; each must have all
        of charset. Left out: the text fonts that matplotlib and captcha carry, those that lack a character left out."""
        height: int = Field(default=64, ge=16, le=512)
        """Height of a drawn image in pixels, before it is resized as [image] says."""
        size: Range = (0.45, 0.75)
        """Height of a line of text, as a share of the image height, 0.05 to 1. A text that would not fit, as it is
        long and rotated, is drawn smaller."""
        spacing: Range = (0.0, 0.1)
        """Room added between characters, as a share of the line height, -0.1 to 1; below 0 they touch."""
        margin: Range = (0.05, 0.25)
        """Free room to the left and right, as a share of the image height, 0 to 2."""
        offset: Share = 0.5
        """Largest departure from the vertical middle, as a share of the free room."""
        rotation: float = Field(default=5.0, ge=0, le=45)
        """Largest rotation to either side, degrees."""
        perspective: float = Field(default=0.1, ge=0, le=0.3)
        """Largest share by which the end of a text is nearer or farther than its middle; the view may be tilted to any
        side."""
        curvature: float = Field(default=20.0, ge=0, le=120)
        """Largest arc that a text spans, bent up or down, degrees; the radius stays at least two line heights."""
        blur: float = Field(default=1.0, ge=0, le=8)
        """Largest radius of a Gaussian blur, pixels of the drawn image."""
        noise: float = Field(default=0.05, ge=0, le=1)
        """Largest standard deviation of Gaussian noise, as a share of the range from black to white."""
        contrast: Range = (0.3, 1.0)
        """Difference of brightness between text and background, 0.05 to 1, black to white."""
        light_on_dark: Share = 0.3
        """Share of the samples whose text is lighter than its background."""
        background: Literal["plain", "gradient", "texture", "mixed"] = "mixed"
        """One brightness, a ramp in any direction, blotches and streaks, or a third of each."""
        variation: Share = 0.4
        """How near a gradient or texture comes to the text's brightness, as a share of the contrast."""

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if len(set(self.charset)) < len(self.charset):
                raise ValueError("charset has a character twice; list each once")
            if self.min_length > self.max_length:
                raise ValueError(f"min_length {self.min_length} is larger than max_length {self.max_length}")
            if abs(sum(self.word_shares) - 1) > 1e-9:
                raise ValueError(f"word_shares must sum to 1, given {list(self.word_shares)}")
            if self.repeat is not None and self.words is not None:
                raise ValueError("repeat is for random strings, the words of a list are as they are; give one of both")
            if self.repeat not in (None, 1) and len(set(self.charset)) == 1:
                raise ValueError("repeat needs another character to go on with; give charset two")
            for option, (least, most) in RANGES.items():
                low, high = getattr(self, option)
                if not least <= low <= high <= most:
                    raise ValueError(f"{option} needs two numbers in order from {least} to {most}, given {[low, high]}")
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def load_image(self, index: int) -> PillowImage:
        sample = self._samples[index]
        numbers = _hash(f"{self.config.seed}/{sample.key}/image", 4 * len(FACTORS) + 16)
        # 32 bits a factor, as 64 could round to 1
        factors = {name: int.from_bytes(numbers[4 * at : 4 * at + 4]) / 2**32 for at, name in enumerate(FACTORS)}
        typefaces, _ = self._fonts
        typeface = typefaces[int(factors["typeface"] * len(typefaces))]
        seed = int.from_bytes(numbers[-16:])
        pixels = draw_text(sample.label, typeface, self._style(factors), height=self.config.height, seed=seed)
        return Image.fromarray(pixels)

    def fingerprint(self) -> str:
        software = {
            "pillow": version("pillow"),
            "freetype": features.version("freetype2"),
            "numpy": version("numpy"),  # may change its streams of random numbers
        }
        sources = [hashlib.sha256(Path(str(inspect.getsourcefile(part))).read_bytes()).hexdigest() for part in DRAWING]
        fonts = [[typeface.name, typeface.digest] for typeface in self._fonts[0]]
        options = self.config.model_dump(exclude={"words", "fonts"})  # where they lie is of no account
        return _hash(json.dumps([options, software, sources, fonts, self._words]), 32).hex()

    def notes(self) -> Sequence[str]:
        notes = []
        if unable := self._fonts[1]:
            lacking = "; ".join(face.lacking for face in unable)
            notes.append(f"fonts that cannot draw all of charset are left out: {len(unable)} ({lacking})")
        if self._words:
            notes += self._words[1]
            counts = ", ".join(f"{len(words):,} to {split}" for split, words in self._words_of.items())
            notes.append(f"{'all splits share' if self.config.shared_words else 'no word is in two splits'}: {counts}")
        return notes

    @cached_property
    def _samples(self) -> list[Sample]:
        assert self._fonts  # an undrawable character is reported now, not by the workers
        counts = {"train": self.config.train, "val": self.config.val, "test": self.config.test}
        keys = ((f"{split}/{index:06d}", split) for split in SPLITS for index in range(counts[split]))
        return [Sample(key, self._text(key, split), split) for key, split in keys]

    def _text(self, key: str, split: Split) -> str:
        config = self.config
        random = Random(int.from_bytes(_hash(f"{config.seed}/{key}/text", 32))).random  # Python keeps its sequence
        if self._words:
            words = self._words_of[split]
            return words[int(random() * len(words))]
        characters = config.charset
        text = characters[int(random() * len(characters))]
        length = config.min_length + int(random() * (config.max_length - config.min_length + 1))
        while len(text) < length:
            others = characters
            if config.repeat is not None:
                others = text[-1] if random() < config.repeat else characters.replace(text[-1], "")
            text += others[int(random() * len(others))]
        return text

    def _style(self, factors: dict[str, float]) -> TextStyle:
        config = self.config

        def between(bounds: Range, factor: str) -> float:
            return bounds[0] + (bounds[1] - bounds[0]) * factors[factor]

        def either_side(largest: float, factor: str) -> float:
            return between((-largest, largest), factor)

        contrast = between(config.contrast, "contrast")
        darker = (1 - contrast) * factors["brightness"]
        light_text = factors["polarity"] < config.light_on_dark
        pattern = PATTERNS[int(3 * factors["pattern"])] if config.background == "mixed" else config.background
        return TextStyle(
            size=between(config.size, "size"),
            spacing=between(config.spacing, "spacing"),
            margin=between(config.margin, "margin"),
            offset=either_side(config.offset, "offset"),
            rotation=either_side(config.rotation, "rotation"),
            perspective=(
                either_side(config.perspective, "perspective_across"),
                either_side(config.perspective, "perspective_down"),
            ),
            curvature=either_side(config.curvature, "curvature"),
            blur=between((0, config.blur), "blur"),
            noise=between((0, config.noise), "noise"),
            text=darker + contrast * light_text,
            background=darker + contrast * (not light_text),
            pattern=pattern,
            variation=config.variation,
        )

    @cached_property
    def _fonts(self) -> tuple[list[Typeface], list[Typeface]]:
        folder = self.config.fonts
        characters = Charset(self.config.charset).characters
        return select_typefaces(characters, None if folder is None else self.base_dir / Path(folder).expanduser())

    @cached_property
    def _words(self) -> tuple[list[str], list[str]] | None:
        words = self.config.words
        return None if words is None else _read_words(self.base_dir / Path(words).expanduser(), self.config)

    @cached_property
    def _words_of(self) -> dict[Split, list[str]]:
        """The words that each split draws from; none if the texts are random strings."""
        words = self._words[0] if self._words else []
        if self.config.shared_words:
            return dict.fromkeys(SPLITS, words)
        dealt = self.deal_splits(words, self.config.word_shares, seed=self.config.seed)
        words_of = {split: [word for word, its in zip(words, dealt, strict=True) if its == split] for split in SPLITS}
        for split in SPLITS:
            if not words_of[split]:
                others = "".join(f"; {note}" for note in (self._words[1] if self._words else ()))
                raise DataError(
                    f"split {split!r} received none of the {len(words):,} usable words in {self.config.words}; give "
                    f"more words or other word_shares, or set shared_words{others}"
                )
        return words_of


def _read_words(file: Path, config: RenderedWords.Config) -> tuple[list[str], list[str]]:
    """Return the usable words of a list, each once, sorted; and sentences about the others."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"word list {file} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"word list {file} cannot be read: {error.strerror}; check the option words") from error
    counts = Counter(line for line in lines if line)
    if not counts:
        raise DataError(f"word list {file} is empty; write a word on each line")
    charset, bounds = Charset(config.charset), f"of {config.min_length} to {config.max_length} characters"
    spelled = {word for word in counts if not charset.missing(word)}
    fitting = sorted(word for word in spelled if config.min_length <= len(word) <= config.max_length)
    if not fitting:
        raise DataError(
            f"word list {file} has no word {bounds} of charset {config.charset!r} among its {len(counts):,}; "
            "change charset, min_length or max_length"
        )
    others = {
        "words with characters outside charset are left out": counts.keys() - spelled,
        f"words not {bounds} are left out": spelled.difference(fitting),
        "words that the list holds several times count once": {word for word in fitting if counts[word] > 1},
    }
    return fitting, [f"{fact}: {len(words):,} ({_few(sorted(words))})" for fact, words in others.items() if words]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def _hash(text: str, size: int) -> bytes:
    return hashlib.shake_256(text.encode()).digest(size)


DRAWING = (RenderedWords, draw_text, select_typefaces)  # a change to the code of these draws other images


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Offer `rendered_words`."""
    return [RenderedWords]
