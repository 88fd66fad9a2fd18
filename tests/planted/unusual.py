"""Unusual but correct decoders, which pass all rules."""

from typing import Any

import torch
from helpers.small_decoders import SmallCTC, SmallLSTM
from torch import nn


class SpectralNorm(SmallCTC):
    """Each forward pass in training mode changes a buffer, independently of the labels."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.hidden = nn.utils.parametrizations.spectral_norm(self.hidden)


class TiedWeights(SmallLSTM):
    """One tensor with two names."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.project = nn.Linear(32, 16)
        self.head = nn.Linear(16, self.vocabulary_size)
        self.embed = nn.Embedding(self.vocabulary_size, 16)
        self.begin = nn.Parameter(torch.randn(16))
        self.head.weight = self.embed.weight

    def step(self, token: Any, state: Any, memory: Any) -> Any:
        known = self.embed(token.clamp(max=self.end))
        read = torch.where((token == self.start)[:, None], self.begin, known)
        hidden, cell = self.cell(torch.cat([read, memory.mean(dim=1)], dim=-1), state)
        return self.head(self.project(hidden)), (hidden, cell)
