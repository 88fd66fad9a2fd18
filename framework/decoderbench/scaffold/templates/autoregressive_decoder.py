"""my_component: an LSTMCell that reads the previous character and the mean of all frames."""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, LabelSpec, SequenceSpec, hookimpl

State = tuple[Tensor, ...]


@final
class MyComponent(AutoregressiveDecoder):
    """An LSTMCell; the family provides start and end, teacher forcing, nll, greedy and beam search."""

    name = "my_component"

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        hidden_dim: int = Field(default=128, ge=1)
        """Hidden width of the LSTMCell."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.embed = nn.Embedding(self.num_tokens, config.hidden_dim)
        self.cell = nn.LSTMCell(config.hidden_dim + memory.dim, config.hidden_dim)
        self.head = nn.Linear(config.hidden_dim, self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> State:
        zeros = memory.new_zeros(memory.shape[0], self.cell.hidden_size)
        return zeros, zeros, memory.mean(dim=1)  # (B, N), (B, N), (B, D): the batch is first

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        hidden, cell, mean = state
        hidden, cell = self.cell(torch.cat([self.embed(token), mean], dim=-1), (hidden, cell))
        return self.head(hidden), (hidden, cell, mean)  # logits (B, V)


@hookimpl
def register_decoders() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
