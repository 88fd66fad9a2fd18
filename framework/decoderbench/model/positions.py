"""Sinusoidal positions, made for whatever length there is.

Vaswani et al. 2017, "Attention Is All You Need"; in two dimensions as in Parmar et al. 2018, "Image Transformer".
"""

from math import log

import torch
from torch import Tensor

from decoderbench.model.memory import Memory


def sinusoidal_positions(length: int, dim: int, device: torch.device | str | None = None) -> Tensor:
    """Return a vector for each position, (T, D) float32: sin and cos in turn, from wavelength 2 pi to 20000 pi."""
    position = torch.arange(length, dtype=torch.float32, device=device)
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-log(10_000) / max(dim, 1)))
    angle = position[:, None] * frequency  # (T, D / 2), rounded up
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim]


def memory_positions(memory: Memory) -> Tensor:
    """Return a vector for the position of each frame of a memory, (T, D).

    In a feature map, half of the vector is the position of the row and the rest that of the column, so a place has the
    same vector whatever the width of the map.
    """
    if memory.shape is None:
        return sinusoidal_positions(memory.length, memory.dim, memory.device)
    height, width = memory.shape
    of_rows = sinusoidal_positions(height, memory.dim // 2, memory.device)
    of_columns = sinusoidal_positions(width, memory.dim - memory.dim // 2, memory.device)
    grid = torch.cat(
        [of_rows[:, None].expand(-1, width, -1), of_columns[None].expand(height, -1, -1)], dim=2
    )  # (H, W, D)
    return grid.flatten(0, 1)
