"""CTC without recurrence: one linear layer applied to each frame, trained with CTC.

The prediction stage "CTC" of Baek et al. 2019, "What Is Wrong With Scene Text Recognition Model Comparisons?", in which
the bridge, not the decoder, combines neighboring frames. With the focal loss of PaddleOCR:

    "focal CTC" = { use = "ctc", focal = 2 }
"""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, CTCDecoder, Labels, LabelSpec, Memory, SequenceSpec, focal_loss, hookimpl


@final
class LinearCTC(CTCDecoder):
    """A linear layer that scores the blank and the charset."""

    name = "ctc"
    exports = True

    class Config(ComponentConfig):
        """Options of `ctc`."""

        focal: float = Field(default=0.0, ge=0)
        """Training weighs each text by (1 - p)^focal, p its probability; 0 weighs all alike, PaddleOCR uses 2."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.focal = config.focal
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(memory)
        return logits  # (B, T, V)

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        return focal_loss(self.nll(memory, labels), self.focal)


@hookimpl
def register_decoders() -> list[type[LinearCTC]]:
    """Register the decoder of this file."""
    return [LinearCTC]
