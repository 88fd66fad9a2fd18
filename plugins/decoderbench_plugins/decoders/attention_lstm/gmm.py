"""GMM attention: a mixture of Gaussians whose means move from left to right, whatever the frames hold.

Graves 2013, "Generating Sequences With Recurrent Neural Networks", in the form V2 of Battenberg et al. 2020,
"Location-Relative Attention Mechanisms for Robust Long-Form Speech Synthesis". A hidden layer reads the hidden state
and gives each of K components a weight (softmax), a step and a width (softplus). The weight of a frame is the mass of
the mixture between its two edges, in frames.

In speech synthesis a step is about one frame; here the initial step is h, the median frames per character of the
training labels, and the initial width h / 2. The paper leaves open where reading begins and what lies outside. Here the
means begin h / 2 left of the first frame, so that the first step leads into the middle of the first character; the mass
left of the first frame is that of the first, and the mass right of the last valid frame is that of the last, so that
the weights sum to 1.
"""

from math import expm1, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoderbench import Memory

from .mechanism import Attention, Tensors

NARROWEST = 0.05
"""Frames that are added to each width: no component falls between two edges."""


class GMMAttention(Attention):
    """By location alone."""

    def __init__(self, hidden_dim: int, *, components: int, frames_per_step: float) -> None:
        super().__init__()
        self.components, self.frames_per_step = components, frames_per_step
        self.hidden = nn.Linear(hidden_dim, hidden_dim)
        self.mixture = nn.Linear(hidden_dim, 3 * components)
        with torch.no_grad():
            _, step, width = self.mixture.bias.chunk(3)
            step.fill_(inverse_softplus(frames_per_step))
            width.fill_(inverse_softplus(frames_per_step / 2))

    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        # The right edge of each valid frame; a frame that is not valid ends where it begins.
        edges = memory.valid.cumsum(dim=1)  # (B, T)
        fixed = edges.to(values.dtype), edges == edges[:, -1:], edges == 0
        return fixed, (values.new_full((memory.batch, self.components), -self.frames_per_step / 2),)

    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        edges, at_end, before_start = fixed
        share, step, width = self.mixture(torch.tanh(self.hidden(hidden))).chunk(3, dim=1)  # (B, K) each
        means = before[0] + F.softplus(step)
        distance = (edges[:, :, None] - means[:, None]) / (F.softplus(width) + NARROWEST)[:, None]  # (B, T, K)
        left = (torch.special.ndtr(distance) * share.softmax(dim=1)[:, None]).sum(dim=2)  # the mass left of each edge
        left = left.masked_fill(at_end, 1.0).masked_fill(before_start, 0.0)
        weights = left - F.pad(left, (1, 0))[:, :-1]
        return weights.clamp(min=0), (means,)  # rounding can make a difference of equal shares negative


def inverse_softplus(value: float) -> float:
    """Return x with softplus(x) = value, for a value above 0."""
    return value + log(-expm1(-value))
