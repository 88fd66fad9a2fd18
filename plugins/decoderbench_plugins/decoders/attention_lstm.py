"""Attention LSTM: one additive-attention glimpse of the memory per character.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate".
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, LabelSpec, SequenceSpec, hookimpl

State = tuple[Tensor, Tensor, Tensor]


@final
class AttentionLSTM(AutoregressiveDecoder):
    """An LSTMCell that reads the previous character and a glimpse of the memory."""

    name = "attention_lstm"

    class Config(ComponentConfig):
        """Options of `attention_lstm`."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding of the previous character."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the LSTMCell, and width of keys and queries."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.embed = nn.Embedding(self.num_tokens, config.embed_dim)
        self.key = nn.Linear(memory.dim, config.hidden_dim)
        self.query = nn.Linear(config.hidden_dim, config.hidden_dim, bias=False)
        self.score = nn.Linear(config.hidden_dim, 1, bias=False)
        self.cell = nn.LSTMCell(config.embed_dim + memory.dim, config.hidden_dim)
        self.head = nn.Linear(config.hidden_dim, self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> State:
        zeros = memory.new_zeros(memory.shape[0], self.cell.hidden_size)
        return zeros, zeros, self.key(memory)  # hidden (B, N), cell (B, N), keys (B, T, N)

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        hidden, cell, keys = state
        energy = self.score(torch.tanh(keys + self.query(hidden)[:, None]))  # (B, T, 1)
        glimpse = (energy.softmax(dim=1) * memory).sum(dim=1)  # (B, D)
        hidden, cell = self.cell(torch.cat([self.embed(token), glimpse], dim=-1), (hidden, cell))
        return self.head(hidden), (hidden, cell, keys)  # (B, V)


@hookimpl
def register_decoders() -> list[type[AttentionLSTM]]:
    """Offer the decoder of this file."""
    return [AttentionLSTM]
