"""my_component: two convolutions along the frames, trained with CTC."""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, CTCDecoder, LabelSpec, SequenceSpec, hookimpl


@final
class MyComponent(CTCDecoder):
    """Scores each frame; the family provides blank, nll, best path and prefix beam search."""

    name = "my_component"
    exports = True

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        hidden_dim: int = Field(default=128, ge=1)
        """Channels between the two convolutions."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.frames = nn.Conv1d(memory.dim, config.hidden_dim, kernel_size=3, padding=1)
        self.head = nn.Conv1d(config.hidden_dim, self.vocabulary_size, kernel_size=3, padding=1)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(self.frames(memory.transpose(1, 2)).relu())  # (B, V, T)
        return logits.transpose(1, 2)


@hookimpl
def register_decoders() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
