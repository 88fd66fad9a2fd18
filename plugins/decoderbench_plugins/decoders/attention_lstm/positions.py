"""Learned positions of the frames of a memory."""

import torch
from torch import Tensor, nn

from decoderbench import Memory, SequenceSpec

STANDARD_DEVIATION = 0.02  # of the initial values; Devlin et al. 2019, "BERT"


class LearnedPositions(nn.Module):
    """A learned vector for each frame; in a feature map, the sum of one for its row and one for its column."""

    def __init__(self, memory: SequenceSpec) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.empty(memory.columns, memory.dim))
        self.rows = nn.Parameter(torch.empty(memory.shape[0], memory.dim)) if memory.shape else None
        for table in self.parameters():
            nn.init.normal_(table, std=STANDARD_DEVIATION)

    def forward(self, memory: Memory) -> Tensor:
        """Return the vectors of the frames of a memory, (T, D); it may be narrower than declared, not wider."""
        width = memory.length if memory.shape is None else memory.shape[1]
        if width > len(self.columns):
            raise ValueError(
                f"learned positions exist for {len(self.columns)} columns, as declared, and the memory has {width}; "
                f"use positions = 'sinusoidal'"
            )
        if self.rows is None:
            return self.columns[:width]
        return (self.rows[:, None] + self.columns[:width]).flatten(0, 1)
