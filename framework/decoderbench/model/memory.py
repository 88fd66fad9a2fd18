"""Memory: what a decoder reads of a batch of images, and which frames of it show more than padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """The output of a bridge for a batch of images. At least one frame of each image is valid.

    Attributes:
        frames: (B, T, D) float32.
        valid: (B, T) bool, false at frames that show nothing but the padding of an image.
        shape: (H, W) if the frames are a feature map, row by row: T = H * W. None for a sequence.

    Raises:
        ValueError: the sizes do not agree.
    """

    frames: Tensor
    valid: Tensor
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 3 or self.valid.shape != self.frames.shape[:2]:
            raise ValueError(
                f"a memory has frames (B, T, D) and valid (B, T), given {tuple(self.frames.shape)} and "
                f"{tuple(self.valid.shape)}"
            )
        if self.shape is not None and self.shape[0] * self.shape[1] != self.length:
            raise ValueError(f"a feature map of {self.shape[0]}x{self.shape[1]} has not T = {self.length} frames")

    @classmethod
    def of(cls, memory: Memory | Tensor) -> Memory:
        """Return the memory; frames (B, T, D) alone are a sequence of which all are valid."""
        if isinstance(memory, Memory):
            return memory
        return cls(memory, torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device))

    @property
    def batch(self) -> int:
        """B, the number of images."""
        return self.frames.shape[0]

    @property
    def length(self) -> int:
        """T, the number of frames."""
        return self.frames.shape[1]

    @property
    def dim(self) -> int:
        """D, the width of a frame."""
        return self.frames.shape[2]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.frames.device

    def map(self) -> Tensor:
        """Return the frames as a feature map, (B, D, H, W); raise `ValueError` for a sequence."""
        return self.frames.transpose(1, 2).reshape(self.batch, self.dim, *self._require_shape())

    def valid_map(self) -> Tensor:
        """Return which places of the feature map are valid, (B, H, W); raise `ValueError` for a sequence."""
        return self.valid.reshape(self.batch, *self._require_shape())

    def hide(self, scores: Tensor) -> Tensor:
        """Return scores (B, ..., T) with -inf at the frames that are not valid, so that a softmax gives them 0."""
        valid = self.valid.view(self.batch, *[1] * (scores.ndim - 2), self.length)
        return torch.where(valid, scores, float("-inf"))

    def repeat_interleave(self, times: int) -> Memory:
        """Return a memory in which each image is there `times` times, one after the other, as for beams."""
        return self._change(lambda part: part.repeat_interleave(times, dim=0))

    def to(self, device: torch.device | str) -> Memory:
        """Return it on a device."""
        return self._change(lambda part: part.to(device))

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Memory:
        """Return the memory of some images, given as a slice, a mask (B,) or indices (N,)."""
        return self._change(lambda part: part[rows])

    def __len__(self) -> int:
        """Return B."""
        return self.batch

    def with_frames(self, frames: Tensor) -> Memory:
        """Return it with other frames (B, T, any width)."""
        return replace(self, frames=frames)

    def _change(self, change: Callable[[Tensor], Tensor]) -> Memory:
        return Memory(change(self.frames), change(self.valid), self.shape)

    def _require_shape(self) -> tuple[int, int]:
        if self.shape is None:
            raise ValueError("this memory is a sequence, not a feature map; let the decoder say needs_map = True")
        return self.shape
