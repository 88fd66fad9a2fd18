"""Small correct decoders, for tests to break in one place.

This imports no plugin: fresh processes of the conformance kit import it for every check.
"""

import torch
from torch import Tensor, nn

from decoderbench import AutoregressiveDecoder, ComponentConfig, CTCDecoder, LabelSpec, SequenceSpec


class SmallCTC(CTCDecoder):
    """A hidden layer and a head on each frame."""

    name = "small_ctc"
    Config = ComponentConfig
    exports = True

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.hidden = nn.Linear(memory.dim, 32)
        self.head = nn.Linear(32, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(memory).tanh())
        return logits


class SmallLSTM(AutoregressiveDecoder):
    """An LSTMCell that reads the previous character and the mean of the memory."""

    name = "small_lstm"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.embed = nn.Embedding(self.num_tokens, 16)
        self.cell = nn.LSTMCell(16 + memory.dim, 32)
        self.head = nn.Linear(32, self.vocabulary_size)

    def initial_state(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        zeros = memory.new_zeros(memory.shape[0], 32)
        return zeros, zeros

    def step(self, token: Tensor, state: tuple[Tensor, Tensor], memory: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = self.cell(torch.cat([self.embed(token), memory.mean(dim=1)], dim=-1), state)
        return self.head(hidden), (hidden, cell)
