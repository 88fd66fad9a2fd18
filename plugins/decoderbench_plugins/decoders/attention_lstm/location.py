"""Location-sensitive attention: additive attention that also reads where it has read.

Chorowski et al. 2015, "Attention-Based Models for Speech Recognition", in the form of Shen et al. 2018, "Natural TTS
Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions" (Tacotron 2): the weights of the step before and the
sum of all weights before are two channels, from which 32 filters compute features of each frame. Both are 0 before the
first step.
"""

from math import ceil

import torch
from torch import Tensor, nn

from decoderbench import Memory

from .additive import AdditiveAttention
from .mechanism import Tensors

FILTERS = 32


class LocationAttention(AdditiveAttention):
    """By content and by the weights of earlier steps."""

    def __init__(self, memory_dim: int, hidden_dim: int, *, bias_of: str, kernel: int) -> None:
        super().__init__(memory_dim, hidden_dim, bias_of=bias_of)
        self.filters = nn.Conv1d(2, FILTERS, kernel, padding=kernel // 2, bias=False)
        self.location = nn.Linear(FILTERS, hidden_dim, bias=False)

    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        return (self.key(values),), (values.new_zeros(memory.batch, 2, memory.length),)

    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        location = self.location(self.filters(before[0]).transpose(1, 2))  # (B, T, N)
        weights = self.weigh(fixed[0] + self.query(hidden)[:, None] + location, memory)
        return weights, (torch.stack([weights, before[0][:, 1] + weights], dim=1),)


def kernel_for(frames_per_character: float) -> int:
    """Return the smallest odd width that sees two characters to either side of a frame."""
    return 2 * ceil(2 * frames_per_character) + 1
