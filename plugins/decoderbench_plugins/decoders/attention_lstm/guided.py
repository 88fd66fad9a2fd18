"""Guided attention: a loss for weights far from the diagonal, for texts whose characters are about equally wide.

Tachibana et al. 2018, "Efficiently Trainable Text-to-Speech System Based on Deep Convolutional Networks with Guided
Attention".
"""

import torch
from torch import Tensor

from decoderbench import Labels, Memory


def guided_penalty(weights: Tensor, memory: Memory, labels: Labels, sigma: float) -> Tensor:
    """Return the weights of each text in sum, each times 1 - exp(-d^2 / 2 sigma^2), (B,).

    d is the distance of the middle of a character from the middle of a frame, both as a share of the text and of the
    valid frames: so padding changes nothing. The weights of a character sum to 1, so each character adds 0 to 1. The
    end of a text has no place on the diagonal and adds nothing.

    Args:
        weights: (B, S, T), S at least `labels.longest`.
        memory: which frames are valid.
        labels: the texts.
        sigma: the distance, as a share, at which the penalty is 0.39.
    """
    steps = torch.arange(labels.longest, device=memory.device)
    in_text = (steps + 0.5) / labels.lengths[:, None].clamp(min=1)  # (B, L)
    valid = memory.valid.cumsum(dim=1)
    in_frames = (valid - 0.5) / valid[:, -1:]  # (B, T)
    distance = in_text[:, :, None] - in_frames[:, None]
    penalty = -torch.expm1(-(distance**2) / (2 * sigma**2))  # (B, L, T)
    of_characters = (weights[:, : labels.longest] * penalty).sum(dim=2)
    return (of_characters * labels.mask()[:, : labels.longest]).sum(dim=1)
