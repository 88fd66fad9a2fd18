"""LSTMCell loop: the whole image in one vector, unrolled by hand, its own logits fed back.

The recogniser of a question asked in public: a linear layer takes the image's vector to the vocabulary's width,
an LSTMCell starts from zeros, reads that vector at the first step and its own logits afterwards. What is
fed back are logits and not characters, so teacher forcing has nothing to force.
"""

from typing import Literal, final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, LabelSpec, SequenceSpec, hookimpl

State = tuple[Tensor, Tensor, Tensor]


@final
class LSTMCellLoop(AutoregressiveDecoder):
    """fc_in, an LSTMCell that reads its own logits, fc_out."""

    name = "lstm_cell"

    class Config(ComponentConfig):
        """Options of `lstm_cell`."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width of the LSTMCell."""

        pool: Literal["mean", "flatten"] = "mean"
        """How frames become the one vector: their mean, or all of them side by side."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.pool = config.pool
        vector_dim = memory.dim * (memory.length if config.pool == "flatten" else 1)
        self.fc_in = nn.Linear(vector_dim, self.vocabulary_size)
        self.cell = nn.LSTMCell(self.vocabulary_size, config.hidden_dim)
        self.fc_out = nn.Linear(config.hidden_dim, self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> State:
        vector = memory.mean(dim=1) if self.pool == "mean" else memory.flatten(1)
        zeros = memory.new_zeros(memory.shape[0], self.cell.hidden_size)
        return zeros, zeros, self.fc_in(vector)  # hidden (B, N), cell (B, N), next input (B, V)

    def step(self, token: Tensor, state: State, memory: Tensor) -> tuple[Tensor, State]:
        hidden, cell, read = state
        hidden, cell = self.cell(read, (hidden, cell))
        logits = self.fc_out(hidden)  # (B, V)
        return logits, (hidden, cell, logits)


@hookimpl
def register_decoders() -> list[type[LSTMCellLoop]]:
    """Offer the decoder of this file."""
    return [LSTMCellLoop]
