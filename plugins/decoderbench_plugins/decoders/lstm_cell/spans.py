"""Equal spans of the valid frames of a memory."""

import torch
from torch import Tensor

from decoderbench import Memory


def average_spans(memory: Memory, steps: int) -> Tensor:
    """Return the means (B, S, D) of `steps` equal spans of the valid frames of each image.

    Computed as a matrix product, because adaptive pooling adds gradients in no fixed order on CUDA.
    """
    return span_weights(memory.valid, steps).to(memory.frames.dtype) @ memory.frames


def span_weights(valid: Tensor, steps: int) -> Tensor:
    """Return the weight of each frame in each of `steps` equal spans of the valid frames (B, T), (B, S, T).

    A frame on the border of two spans contributes to each in proportion to the overlap.
    """
    edge = valid.cumsum(dim=1)[:, None]  # (B, 1, T), the right edge of each frame; one that is not valid has no extent
    frames = edge[:, :, -1:]  # (B, 1, 1)
    # In units of 1 / (T * S) of the memory, a frame covers S units and a span T units, so all overlaps are integers.
    span = torch.arange(steps, device=valid.device)[:, None] * frames  # (B, S, 1)
    left, right = (edge - valid[:, None].long()) * steps, edge * steps  # (B, 1, T)
    overlap = torch.minimum(span + frames, right) - torch.maximum(span, left)  # (B, S, T)
    return overlap.clamp(min=0) / frames
