"""Attention LSTM: one additive-attention glimpse of the memory per character.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate". The wiring "baek2019"
is the prediction stage "Attn" of Baek et al. 2019, "What Is Wrong With Scene Text Recognition Model Comparisons?",
except for the initial weights, which are torch's defaults:

    "Attn" = { use = "attention_lstm", wiring = "baek2019", hidden_dim = 256 }
"""

from typing import Literal, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, Labels, LabelSpec, Memory, SequenceSpec, hookimpl

State = tuple[Tensor, Tensor, Tensor]


@final
class AttentionLSTM(AutoregressiveDecoder):
    """An LSTMCell that reads the previous character and a glimpse of the memory."""

    name = "attention_lstm"

    class Config(ComponentConfig):
        """Options of `attention_lstm`."""

        wiring: Literal["default", "baek2019"] = "default"
        """default: the cell reads an embedding of the previous character; keys have a bias, queries none. baek2019:
        the cell reads the previous character as one-hot; queries have a bias, keys none."""

        embed_dim: int = Field(default=64, ge=1)
        """Width of the embedding of the previous character; ignored if wiring is baek2019."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the LSTMCell, and width of keys and queries."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        of_paper = config.wiring == "baek2019"
        token_dim = self.num_tokens if of_paper else config.embed_dim
        self.embed = None if of_paper else nn.Embedding(self.num_tokens, token_dim)
        self.key = nn.Linear(memory.dim, config.hidden_dim, bias=not of_paper)
        self.query = nn.Linear(config.hidden_dim, config.hidden_dim, bias=of_paper)
        self.score = nn.Linear(config.hidden_dim, 1, bias=False)
        self.cell = nn.LSTMCell(token_dim + memory.dim, config.hidden_dim)
        # The paper also scores the start token, which is never a target. Its row, the last one, exists only to match
        # the published number of parameters; `step` cuts it off.
        self.head = nn.Linear(config.hidden_dim, self.num_tokens if of_paper else self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> State:
        zeros = memory.new_zeros(memory.shape[0], self.cell.hidden_size)
        return zeros, zeros, self.key(memory)  # hidden (B, N), cell (B, N), keys (B, T, N)

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        hidden, cell, keys = state
        glimpse = (self.attend(hidden, keys) * memory).sum(dim=1)  # (B, D)
        if self.embed is None:
            read = [glimpse, F.one_hot(token, self.num_tokens).to(glimpse.dtype)]
        else:
            read = [self.embed(token), glimpse]
        hidden, cell = self.cell(torch.cat(read, dim=-1), (hidden, cell))
        return self.head(hidden)[:, : self.vocabulary_size], (hidden, cell, keys)  # (B, V)

    def attend(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Return the weight of each frame for the next character, (B, T, 1)."""
        energy: Tensor = self.score(torch.tanh(keys + self.query(hidden)[:, None]))  # (B, T, 1)
        return energy.softmax(dim=1)

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        """Return the attention weights of each character, (B, S, T), with the characters before it given."""
        memory = Memory.of(memory).frames
        state = self.initial_state(memory)
        weights = [memory.new_zeros(len(memory), 0, memory.shape[1])]
        tokens = F.pad(labels.ids, (1, 0), value=self.start)[:, : labels.longest]
        for token in tokens.unbind(dim=1):
            hidden, _, keys = state
            weights.append(self.attend(hidden, keys).transpose(1, 2))
            _, state = self.step(token, state, memory)
        return torch.cat(weights, dim=1)


@hookimpl
def register_decoders() -> list[type[AttentionLSTM]]:
    """Register the decoder of this file."""
    return [AttentionLSTM]
