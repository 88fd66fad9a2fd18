"""Attention with coverage: additive attention that reads how much of each frame has been read, and a loss for it.

Tu et al. 2016, "Modeling Coverage for Neural Machine Translation", in the form of See et al. 2017, "Get To The Point:
Summarization with Pointer-Generator Networks".
"""

import torch
from torch import Tensor, nn

from decoderbench import Memory

from .additive import AdditiveAttention
from .mechanism import Tensors


class CoverageAttention(AdditiveAttention):
    """By content and by the sum of all weights before."""

    def __init__(self, memory_dim: int, hidden_dim: int, *, bias_of: str) -> None:
        super().__init__(memory_dim, hidden_dim, bias_of=bias_of)
        self.coverage = nn.Linear(1, hidden_dim, bias=False)

    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        return (self.key(values),), (values.new_zeros(memory.batch, memory.length),)

    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        covered = self.coverage(before[0][:, :, None])  # (B, T, N)
        weights = self.weigh(fixed[0] + self.query(hidden)[:, None] + covered, memory)
        return weights, (before[0] + weights,)


def coverage_penalty(weights: Tensor, counted: Tensor) -> Tensor:
    """Return the sum over steps and frames of min(weight, sum of the weights before), (B,): what is read twice.

    Args:
        weights: (B, S, T).
        counted: (B, S) bool, the steps that count.
    """
    covered = torch.zeros_like(weights[:, 0])
    penalty = covered.new_zeros(len(weights))
    for of_step, counts in zip(weights.unbind(dim=1), counted.unbind(dim=1), strict=True):
        # Not by cumsum, which adds in no fixed order on CUDA.
        penalty = penalty + of_step.minimum(covered).sum(dim=1) * counts
        covered = covered + of_step
    return penalty
