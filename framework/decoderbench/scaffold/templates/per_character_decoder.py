"""my_component: a learned query for each position of a text attends to the frames, all positions at once."""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, LabelSpec, Memory, PerCharacterDecoder, SequenceSpec, hookimpl


@final
class MyComponent(PerCharacterDecoder):
    """Scores each position; the family provides nll, loss and search."""

    name = "my_component"

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        hidden_dim: int = Field(default=128, ge=1)
        """Width of keys and queries."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.queries = nn.Parameter(torch.randn(self.num_positions, config.hidden_dim) / config.hidden_dim**0.5)
        self.key = nn.Linear(memory.dim, config.hidden_dim)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def log_probs(self, memory: Memory) -> Tensor:
        scores = self.queries @ self.key(memory.frames).transpose(1, 2)  # (B, S, T)
        weights = memory.hide(scores).softmax(dim=2)  # frames of padding weigh nothing
        logits: Tensor = self.head(weights @ memory.frames)
        return logits.float().log_softmax(dim=2)  # (B, S, V)


@hookimpl
def register_decoders() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
