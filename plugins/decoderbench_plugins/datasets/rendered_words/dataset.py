"""Words drawn with real fonts: as many as requested, with an option for each factor of the drawing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from PIL import Image, features
from pydantic import Field, model_validator

from decoderbench import Charset, ComponentConfig, DataError, Dataset, Sample, Split, identity_of, source_digest

from .drawing import TextStyle, draw_text
from .texts import hash_bytes, random_numbers, random_string, read_words
from .typefaces import Typeface, select_typefaces

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

SPLITS: tuple[Split, ...] = ("train", "val", "test")
PATTERNS: tuple[Literal["plain", "gradient", "texture"], ...] = ("plain", "gradient", "texture")
# Each factor of a sample has its own random number, so that changing one option does not change the other factors.
FACTORS = (
    "typeface", "size", "spacing", "margin", "offset", "rotation", "perspective_across", "perspective_down",
    "curvature", "blur", "noise", "contrast", "brightness", "polarity", "pattern",
)  # fmt: skip
RANGES = {"size": (0.05, 1), "spacing": (-0.1, 1), "margin": (0, 2), "contrast": (0.05, 1)}
SOURCES = sorted(Path(__file__).parent.glob("*.py"))  # code that determines texts and images

Range = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[int, Field(ge=1, le=64)]


@final
class RenderedWords(Dataset):
    """Random strings or the words of a list, drawn in gray with many fonts: rotated, curved, blurred and noisy.

    Every factor of a sample is drawn uniformly from its range, independently of the others. Sample i of a split depends
    only on i, the split and the options other than the counts, so a larger dataset contains the smaller one. Changing
    the range of one factor keeps the text and all other factors of every sample, so its effect can be studied alone.
    The width of an image follows its text; set resize = "pad" in [image] to keep the aspect ratio.
    """

    name = "rendered_words"

    class Config(ComponentConfig):
        """Options of `rendered_words`."""

        words: str | None = None
        """UTF-8 file with one word per line, relative to the experiment file. Without it, texts are random strings over
        charset. Words with characters outside charset or of other lengths are excluded and counted. With words, there
        is a language to learn."""
        shared_words: bool = False
        """All splits draw from all words of the list. By default each word belongs to one split, so no word of the
        test split occurs in training."""
        word_shares: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
        """Shares of the word list that train, val and test draw from; sum 1."""
        charset: str = Field(default="0123456789abcdefghijklmnopqrstuvwxyz", min_length=1)
        """Characters of the texts, equally likely in random strings. Spaces are not supported, nor are scripts that
        join letters or run from right to left."""
        min_length: Length = 3
        """Fewest characters of a text."""
        max_length: Length = 10
        """Most characters of a text. In random strings, all lengths in between are equally likely."""
        test_lengths: tuple[Length, Length] | None = None
        """Fewest and most characters of the random strings of the test split, to read texts of other lengths than those
        that were trained on. Default: min_length and max_length."""
        repeat: Share | None = None
        """Probability that a character of a random string equals the previous one. Default: as by chance, which is 1
        divided by the size of charset."""
        train: int = Field(default=10_000, ge=1, le=10_000_000)
        """Samples to train on."""
        val: int = Field(default=1_000, ge=1, le=10_000_000)
        """Samples to validate on."""
        test: int = Field(default=2_000, ge=1, le=10_000_000)
        """Samples to test on."""
        seed: int = 0
        """Another seed gives other samples, and another assignment of words to splits."""
        fonts: str | None = None
        """Folder of .ttf, .otf and .ttc files to draw with, relative to the experiment file; each font must have every
        character of charset. Default: those text fonts in matplotlib and captcha that have every character."""
        height: int = Field(default=64, ge=16, le=512)
        """Height of a drawn image in pixels, before it is resized as specified in [image]."""
        size: Range = (0.45, 0.75)
        """Height of a line of text, as a share of the image height, 0.05 to 1. A text that would not fit, because it is
        long and rotated, is drawn smaller."""
        spacing: Range = (0.0, 0.1)
        """Space added between characters, as a share of the line height, -0.1 to 1; below 0 they touch."""
        margin: Range = (0.05, 0.25)
        """Space to the left and right of the text, as a share of the image height, 0 to 2."""
        offset: Share = 0.5
        """Largest vertical shift from the middle, as a share of the free space."""
        rotation: float = Field(default=5.0, ge=0, le=45)
        """Largest rotation in either direction, degrees."""
        perspective: float = Field(default=0.1, ge=0, le=0.3)
        """Largest share by which an end of a text is nearer or farther than its middle; the view may be tilted in any
        direction."""
        curvature: float = Field(default=20.0, ge=0, le=120)
        """Largest arc that a text spans, curved up or down, degrees; the radius stays at least two line heights."""
        blur: float = Field(default=1.0, ge=0, le=8)
        """Largest radius of a Gaussian blur, pixels of the drawn image."""
        noise: float = Field(default=0.05, ge=0, le=1)
        """Largest standard deviation of Gaussian noise, as a share of the range from black to white."""
        contrast: Range = (0.3, 1.0)
        """Difference in brightness between text and background, as a share of the range from black to white, 0.05 to
        1."""
        light_on_dark: Share = 0.3
        """Share of samples whose text is lighter than its background."""
        background: Literal["plain", "gradient", "texture", "mixed"] = "mixed"
        """plain: one brightness. gradient: a ramp in a random direction. texture: blotches and streaks. mixed: a third
        of each."""
        variation: Share = 0.4
        """How close a gradient or texture comes to the text's brightness, as a share of the contrast."""

        @model_validator(mode="after")
        def _check_consistency(self) -> Self:
            if len(set(self.charset)) < len(self.charset):
                raise ValueError("charset has a character twice; list each once")
            if self.min_length > self.max_length:
                raise ValueError(f"min_length {self.min_length} is larger than max_length {self.max_length}")
            if self.test_lengths is not None and self.words is not None:
                raise ValueError("test_lengths applies to random strings only, not to words; set one of the two")
            if self.test_lengths is not None and self.test_lengths[0] > self.test_lengths[1]:
                raise ValueError(f"test_lengths must be two ascending numbers, given {[*self.test_lengths]}")
            if abs(sum(self.word_shares) - 1) > 1e-9:
                raise ValueError(f"word_shares must sum to 1, given {list(self.word_shares)}")
            if self.repeat is not None and self.words is not None:
                raise ValueError("repeat applies to random strings only, not to words; set one of the two")
            if self.repeat not in (None, 1) and len(set(self.charset)) == 1:
                raise ValueError("repeat below 1 needs a charset of at least two characters")
            for option, (least, most) in RANGES.items():
                low, high = getattr(self, option)
                if not least <= low <= high <= most:
                    raise ValueError(
                        f"{option} must be two ascending numbers from {least} to {most}, given {[low, high]}"
                    )
            return self

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._samples

    def load_image(self, index: int) -> PillowImage:
        sample = self._samples[index]
        numbers = hash_bytes(f"{self.config.seed}/{sample.key}/image", 4 * len(FACTORS) + 16)
        # 32 bits per factor: with 64, a number could be rounded to 1
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
            "numpy": version("numpy"),  # its random streams may change between versions
        }
        options = identity_of(self.config)
        for option in ("words", "fonts"):  # the content counts, not the path
            options.pop(option, None)
        fonts = [[typeface.name, typeface.digest] for typeface in self._fonts[0]]
        sources = [source_digest(file) for file in SOURCES]
        return hash_bytes(json.dumps([options, software, sources, fonts, self._words]), 32).hex()

    def notes(self) -> Sequence[str]:
        notes = []
        if unable := self._fonts[1]:
            missing = "; ".join(face.describe_missing() for face in unable)
            notes.append(f"fonts that lack a character of charset are excluded: {len(unable)} ({missing})")
        if self._words:
            notes += self._words[1]
            counts = ", ".join(f"{split} {len(words):,}" for split, words in self._words_of.items())
            notes.append(f"{'all splits share all words' if self.config.shared_words else 'words per split'}: {counts}")
        return notes

    @cached_property
    def _samples(self) -> list[Sample]:
        assert self._fonts  # raises here if a character has no glyph, and not in the workers that draw
        counts = {"train": self.config.train, "val": self.config.val, "test": self.config.test}
        keys = ((f"{split}/{index:06d}", split) for split in SPLITS for index in range(counts[split]))
        return [Sample(key, self._text(key, split), split) for key, split in keys]

    def _text(self, key: str, split: Split) -> str:
        config = self.config
        draw = random_numbers(f"{config.seed}/{key}/text")
        if self._words:
            words = self._words_of[split]
            return words[int(draw() * len(words))]
        shortest, longest = config.min_length, config.max_length
        if split == "test" and config.test_lengths is not None:
            shortest, longest = config.test_lengths
        return random_string(
            draw, characters=config.charset, min_length=shortest, max_length=longest, repeat=config.repeat
        )

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
        """The usable words of the list and notes about the others; None if texts are random strings."""
        config = self.config
        if config.words is None:
            return None
        return read_words(
            self.base_dir / Path(config.words).expanduser(),
            charset=config.charset,
            min_length=config.min_length,
            max_length=config.max_length,
        )

    @cached_property
    def _words_of(self) -> dict[Split, list[str]]:
        """The words that each split draws from; empty if texts are random strings."""
        words = self._words[0] if self._words else []
        if self.config.shared_words:
            return dict.fromkeys(SPLITS, words)
        dealt = self.deal_splits(words, self.config.word_shares, seed=self.config.seed)
        words_of = {split: [word for word, its in zip(words, dealt, strict=True) if its == split] for split in SPLITS}
        for split in SPLITS:
            if not words_of[split]:
                others = "".join(f"; {note}" for note in (self._words[1] if self._words else ()))
                raise DataError(
                    f"split {split!r} received none of the {len(words):,} usable words in {self.config.words}; add "
                    f"words, change word_shares, or set shared_words{others}"
                )
        return words_of
