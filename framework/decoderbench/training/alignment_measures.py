"""What an alignment says about a reading, as one number per image each: computed on the device, without waiting."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from decoderbench.alignments import MEASURES

LEAST_STEP = 1e-3
"""Frames by which the center of a character must lie right of the one before: less is rounding."""


def measure_alignments(weights: Tensor, lengths: Tensor, *, left_to_right: bool) -> Tensor:
    """Return the measures of each text's alignment, (B, 5) float32, in the order of `MEASURES`; NaN where undefined.

    The shares of a character are its weights over the frames, divided by their sum. Its center is their mean frame.

    - alignment_entropy: mean over the characters of the entropy of their shares, divided by log T, the largest that it
      can be: 0 if each character is read from one frame, 1 if from all frames alike. NaN for an empty text, or T = 1.
    - alignment_monotonicity: share of the characters after the first whose center lies right of the one before, 0..1.
      NaN for fewer than two characters, or frames that are not in reading order.
    - alignment_coverage: distance between the leftmost and the rightmost center, divided by T - 1: the share of the
      image's width that the characters span, 0..1. NaN as for monotonicity.
    - frames_per_character: mean over the characters of the exponential of that entropy, the number of frames that a
      character is read from if all count alike, 1..T. NaN for an empty text.
    - unused_frames: share of the frames from which no character is read, 0..1: the mean over the frames of 1 minus the
      sum of the weights of all characters, where that is above 0. For CTC it is the share of blanks.

    Args:
        weights: (B, S, T) of `Decoder.alignment`.
        lengths: (B,) characters of each text.
        left_to_right: whether the frames are in reading order.
    """
    _, longest, frames = weights.shape
    inside = torch.arange(longest, device=weights.device) < lengths[:, None]  # (B, S)
    weights = torch.where(inside[:, :, None], weights.float(), 0.0)
    shares = weights / weights.sum(dim=2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    entropy = -torch.xlogy(shares, shares).sum(dim=2)  # (B, S)
    centers = (shares * torch.arange(frames, device=weights.device)).sum(dim=2)  # (B, S)
    undefined = weights.new_full((len(weights),), math.nan)

    def mean(values: Tensor, mask: Tensor) -> Tensor:
        """Return the means over the characters in the mask, (B,); NaN if there are none."""
        return torch.where(mask, values, 0.0).sum(dim=1) / mask.sum(dim=1)

    monotonicity = coverage = undefined
    if left_to_right and frames > 1 and longest > 1:
        moves = centers.diff(dim=1) > LEAST_STEP  # (B, S - 1)
        monotonicity = mean(moves.float(), inside[:, 1:])
        rightmost = torch.where(inside, centers, -math.inf).amax(dim=1)
        leftmost = torch.where(inside, centers, math.inf).amin(dim=1)
        coverage = torch.where(lengths > 1, (rightmost - leftmost) / (frames - 1), undefined)
    measures = {
        "alignment_entropy": mean(entropy, inside) / math.log(frames) if frames > 1 else undefined,
        "alignment_monotonicity": monotonicity,
        "alignment_coverage": coverage,
        "frames_per_character": mean(entropy.exp(), inside),
        "unused_frames": (1 - weights.sum(dim=1)).clamp(min=0).mean(dim=1),
    }
    return torch.stack([measures[name] for name in MEASURES], dim=1)
