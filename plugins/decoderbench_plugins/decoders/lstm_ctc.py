"""LSTM + CTC: a bidirectional nn.LSTM over the frames and one linear layer, trained with CTC.

Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition" (CRNN).
"""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, CTCDecoder, LabelSpec, SequenceSpec, hookimpl


@final
class LSTMCTC(CTCDecoder):
    """nn.LSTM over the memory, and a linear layer that scores the blank and the charset."""

    name = "lstm_ctc"
    exports = True

    class Config(ComponentConfig):
        """Options of `lstm_ctc`."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden width per direction."""

        num_layers: int = Field(default=1, ge=1)
        """Number of stacked LSTM layers."""

        bidirectional: bool = True
        """Whether another LSTM reads from right to left."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.lstm = nn.LSTM(
            memory.dim,
            config.hidden_dim,
            config.num_layers,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.head = nn.Linear(config.hidden_dim * (1 + config.bidirectional), self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        hidden, _ = self.lstm(memory)  # (B, T, N)
        logits: Tensor = self.head(hidden)
        return logits  # (B, T, V)


@hookimpl
def register_decoders() -> list[type[LSTMCTC]]:
    """Register the decoder of this file."""
    return [LSTMCTC]
