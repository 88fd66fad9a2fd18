"""Alignments of texts with the frames that their characters were read from, as a file. No torch here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEASURES = (
    "alignment_entropy",
    "alignment_monotonicity",
    "alignment_coverage",
    "frames_per_character",
    "unused_frames",
)
"""The columns of predictions that describe an alignment, as `training.alignment_measures` defines them."""


@dataclass(frozen=True)
class Alignment:
    """The alignment of one transcription.

    Attributes:
        sample: the key of the image.
        text: what was read, before it was normalized: one character per row of `weights`.
        weights: (S, T), the probability that a character is read from a frame, as `Decoder.alignment` defines it.
    """

    sample: str
    text: str
    weights: NDArray[np.float32]


def encode_alignments(alignments: Sequence[Alignment]) -> bytes:
    """Return B > 0 alignments as the bytes of an `.npz` file.

    Its arrays: `samples` and `texts` (B,); `alignments` (B, S, T), 0 past the `lengths` (B,) and `frames` (B,) of each.
    """
    shapes = np.array([one.weights.shape for one in alignments])  # (B, 2)
    weights = np.zeros((len(alignments), *shapes.max(axis=0)), dtype=np.float32)
    for padded, one in zip(weights, alignments, strict=True):
        padded[: one.weights.shape[0], : one.weights.shape[1]] = one.weights
    file = io.BytesIO()
    np.savez_compressed(
        file,
        allow_pickle=False,
        samples=np.array([one.sample for one in alignments]),
        texts=np.array([one.text for one in alignments]),
        alignments=weights,
        lengths=shapes[:, 0],
        frames=shapes[:, 1],
    )
    return file.getvalue()


def decode_alignments(content: bytes) -> list[Alignment]:
    """Return the alignments of the bytes of a file; raise `ValueError` if they are not those of such a file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            texts = [arrays[name].tolist() for name in ("samples", "texts", "lengths", "frames")]
            return [
                Alignment(sample, text, weights[:length, :frames])
                for sample, text, length, frames, weights in zip(*texts, arrays["alignments"], strict=True)
            ]
    except Exception as error:  # noqa: BLE001 - zipfile and NumPy raise many kinds for a damaged file
        raise ValueError(f"no file of alignments: {error}") from None
