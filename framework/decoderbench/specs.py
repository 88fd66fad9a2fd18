"""The shapes that components declare to each other, known before anything is computed.

Shape letters, here and everywhere: B batch, C channels, H W height and width, T frames of the memory,
D frame width, L label length, S decoding steps, V vocabulary. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from decoderbench.errors import InfeasibleError
from decoderbench.labels import Charset


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The input of rectifier and encoder: (B, channels, height, width), values in [-1, 1]."""

    channels: int
    height: int
    width: int

    def require_size(self, *, height: int, width: int, by: str) -> None:
        """Raise `InfeasibleError` if images are smaller than `height` x `width`.

        Args:
            height: smallest height that the component accepts.
            width: smallest width that the component accepts.
            by: the component, for the message, as in "encoder grcnn".
        """
        if self.height < height or self.width < width:
            raise InfeasibleError(
                f"{by} needs images of at least {height}x{width} (height x width), given "
                f"{self.height}x{self.width}; raise image.height or image.width"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureMapSpec:
    """The output of an encoder, a feature map: (B, channels, height, width)."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """The output of a bridge, the frames of a memory: (B, length, dim).

    Narrower images have fewer frames. `left_to_right` is true if frame t lies left of frame t + 1 in the image, which
    CTC requires. `shape` is (H, W) if the frames are a feature map, row by row: length = H * W. None for a sequence.
    """

    length: int
    dim: int
    left_to_right: bool
    shape: tuple[int, int] | None = None

    @property
    def columns(self) -> int:
        """The number of frames side by side: W of a feature map, else the length."""
        return self.shape[1] if self.shape else self.length

    def of_length(self, length: int) -> SequenceSpec:
        """Return the spec of narrower images, whose memory has `length` frames; a map keeps its height."""
        shape = (self.shape[0], length // self.shape[0]) if self.shape else None
        return replace(self, length=length, shape=shape)


class FramesPerCharacter(NamedTuple):
    """How many frames side by side a character of the labels has: percentiles over the labels."""

    low: float
    """The 5th percentile."""

    median: float

    high: float
    """The 95th percentile."""


@dataclass(frozen=True, kw_only=True)
class LabelSpec:
    """The charset and the lengths of an experiment's labels.

    `max_length` bounds the characters of a label and of an autoregressive transcription.
    `frames_needed` is the number of frames that CTC needs for the most demanding label, as counted by the data audit:
    one frame per character, plus one blank between repeated characters. Without data it is the bound
    2 * max_length - 1.
    `width_per_character` is the share of the image width that a character has: the 5th, 50th and 95th percentile over
    the training labels. Without data it is that of a label of `max_length` characters.
    """

    charset: Charset
    max_length: int
    frames_needed: int = 0
    width_per_character: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, given {self.max_length}")
        if self.frames_needed == 0:
            object.__setattr__(self, "frames_needed", 2 * self.max_length - 1)

    def frames_per_character(self, memory: SequenceSpec) -> FramesPerCharacter:
        """Return the frames of this memory per character of the labels, side by side."""
        shares = self.width_per_character or (1 / self.max_length,) * 3
        return FramesPerCharacter(*(share * memory.columns for share in shares))


def ctc_frames_needed(text: str) -> int:
    """Return the fewest frames in which CTC can spell `text`.

    One frame per character, plus one blank between repeated characters.
    Source: Graves et al. 2006, "Connectionist Temporal Classification".
    """
    return len(text) + sum(left == right for left, right in pairwise(text))
