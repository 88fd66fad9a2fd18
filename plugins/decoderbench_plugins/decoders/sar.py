"""SAR: an LSTM that attends to both dimensions of a feature map, and knows a summary of the whole image.

Li et al. 2019, "Show, Attend and Read: A Simple and Strong Baseline for Irregular Text Recognition".

    [grid.bridge]
    "map" = { use = "feature_map" }
    [grid.decoder]
    "SAR" = { use = "sar", hidden_dim = 512 }

An LSTM reads the columns of the map, pooled over the height; its state at the last column that is no padding is the
summary. The decoder's LSTM reads the summary, then the start and the characters. Attention compares its state with the
map after a 3x3 convolution, in which the padding counts as zeros.

Where the paper leaves it open: dropout is applied to what the last layer reads; the queries have no bias, because the
keys have one.
"""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import (
    AutoregressiveDecoder,
    ComponentConfig,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    additive_scores,
    hookimpl,
)

LAYERS = 2  # of both LSTMs

# Hidden and cell state of the decoder's LSTM (B, layers, N), keys (B, T, N) and summary (B, N).
State = tuple[Tensor, Tensor, Tensor, Tensor]


@final
class SAR(AutoregressiveDecoder):
    """An LSTM of two layers with additive attention over height and width."""

    name = "sar"
    needs_map = True
    takes_memory = True

    class Config(ComponentConfig):
        """Options of `sar`."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of both LSTMs, and width of embeddings, keys and summary; 512 in the paper."""

        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Probability that a value that the last layer reads is dropped in training."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        dim, hidden_dim = memory.dim, config.hidden_dim
        self.over_columns = nn.LSTM(dim, hidden_dim, LAYERS, batch_first=True)
        self.summary = nn.Linear(hidden_dim, hidden_dim)
        self.embed = nn.Embedding(self.num_tokens, hidden_dim)
        self.over_characters = nn.LSTM(hidden_dim, hidden_dim, LAYERS, batch_first=True)
        self.key = nn.Conv2d(dim, hidden_dim, kernel_size=3, padding=1)
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.score = nn.Linear(hidden_dim, 1, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(hidden_dim + dim + hidden_dim, self.vocabulary_size)

    def initial_state(self, memory: Memory) -> State:
        shown = torch.where(memory.valid_map()[:, None], memory.map(), 0.0)  # a convolution reads across the border
        keys = self.key(shown).flatten(2).transpose(1, 2)
        summary = self.summarize(memory)
        _, (hidden, cell) = self.over_characters(summary[:, None])
        return hidden.transpose(0, 1), cell.transpose(0, 1), keys, summary

    def step(self, token: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        logits, _, state = self.read(token[:, None], state, memory)
        return logits.squeeze(1), state  # (B, V)

    def teacher_forced_logits(self, memory: Memory, tokens: Tensor) -> Tensor:
        logits, _, _ = self.read(tokens, self.initial_state(memory), memory)
        return logits

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention weights of each character, (B, S, T), with the characters before it given."""
        memory = Memory.of(memory)
        tokens = self.token_targets(labels).tokens  # one step more than characters, so never none
        _, weights, _ = self.read(tokens, self.initial_state(memory), memory)
        return weights[:, : labels.longest]

    def read(self, tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, Tensor, State]:
        """Read tokens (B, S); return logits (B, S, V), the attention weights (B, S, T) and the next state."""
        hidden, cell, keys, summary = state
        before = hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
        outputs, (hidden, cell) = self.over_characters(self.embed(tokens), before)  # (B, S, N)
        weights = memory.hide(additive_scores(self.query(outputs), keys, self.score)).softmax(dim=2)
        glimpses = weights @ memory.frames  # (B, S, D)
        summaries = summary[:, None].expand(-1, tokens.shape[1], -1)
        logits = self.head(self.dropout(torch.cat([outputs, glimpses, summaries], dim=2)))
        return logits, weights, (hidden.transpose(0, 1), cell.transpose(0, 1), keys, summary)

    def summarize(self, memory: Memory) -> Tensor:
        """Return the summary of each image, (B, N)."""
        valid = memory.valid_map()
        valid_columns = valid.any(dim=1)  # (B, W)
        columns = torch.where(valid[:, None], memory.map(), float("-inf")).amax(dim=2)  # (B, D, W)
        columns = torch.where(valid_columns[:, None], columns, 0.0).transpose(1, 2)
        states, _ = self.over_columns(columns)  # (B, W, N)
        last = torch.where(valid_columns, torch.arange(valid.shape[2], device=memory.device), 0).amax(dim=1)
        at_last = states.gather(1, last[:, None, None].expand(-1, -1, states.shape[2])).squeeze(1)
        summary: Tensor = self.summary(at_last)
        return summary


@hookimpl
def register_decoders() -> list[type[SAR]]:
    """Register the decoder of this file."""
    return [SAR]
