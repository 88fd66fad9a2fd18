"""Monotonic attention: each step scans the frames from where the last one stopped, and stops with a probability.

Raffel et al. 2017, "Online and Linear-Time Attention by Enforcing Monotonic Alignments". The probability to stop at a
frame is p_t = sigmoid(g v/|v| . tanh(K m_t + Q h) + r). A step may stop where the last one did. In training, standard
normal noise is added before the sigmoid, so that probabilities become 0 or 1.

The weights are the probabilities to stop at each frame, over all ways to get there: w_t = p_t q_t with the probability
to reach a frame q_t = w'_t + (1 - p_{t-1}) q_{t-1}, where w' are the weights of the step before. The paper's form
divides by the cumulative product of 1 - p and loses all weights where that underflows, which on a line of text it does;
`linear_recurrence` is exact. In eval mode `nll` and `transcribe` read these weights too, unless `hard` is set: then
each step reads the first frame with p above a half. So the two always agree.

g begins at 1. In the paper it begins at N^-.5 for keys N wide: with N = 128, energies differ by less than a tenth of
the noise, and in a thousand steps the decoder learned little (results/LOG.md, 2026-11-29).

r begins with the value for which a step moves h frames on average where all energies are equal, r = -ln h: the mean of
a geometric distribution, (1 - p) / p = exp(-r). h is the median frames per character of the training labels. In the
paper a scan that finds no frame reads zeros. Here it stops at the last valid frame, so that the weights sum to 1.
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoderbench import Memory, linear_recurrence

from .additive import AdditiveAttention
from .mechanism import Tensors


class MonotonicAttention(AdditiveAttention):
    """By content, from left to right."""

    def __init__(self, memory_dim: int, hidden_dim: int, *, bias_of: str, frames_per_step: float, hard: bool) -> None:
        super().__init__(memory_dim, hidden_dim, bias_of=bias_of)
        self.hard = hard
        self.gain = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.full((), -log(frames_per_step)))

    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        edges = memory.valid.cumsum(dim=1)  # (B, T)
        first, last = memory.valid & (edges == 1), memory.valid & (edges == edges[:, -1:])
        return (self.key(values), last), (first.to(values.dtype),)

    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        keys, last = fixed
        direction = self.gain * F.normalize(self.score.weight, dim=1)
        energy = F.linear((keys + self.query(hidden)[:, None]).tanh_(), direction).squeeze(2) + self.offset
        if self.training:
            energy = energy + torch.randn_like(energy)
        elif self.hard:
            weights = first_above_zero(memory.hide(energy).masked_fill(last, 1.0), before[0])
            return weights, (weights,)
        stop = memory.hide(energy).sigmoid().masked_fill(last, 1.0)  # (B, T)
        reached = linear_recurrence(F.pad(1 - stop[:, :-1], (1, 0)), before[0])
        weights = stop * reached
        return weights, (weights,)


def first_above_zero(energy: Tensor, before: Tensor) -> Tensor:
    """Return 1 at the first frame with an energy above 0 from that with the weight 1 before, both (B, T)."""
    stops = (energy > 0) & ((before > 0).cumsum(dim=1) > 0)
    return (stops & (stops.cumsum(dim=1) == 1)).to(before.dtype)
