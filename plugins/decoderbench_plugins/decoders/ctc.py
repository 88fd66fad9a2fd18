"""CTC without recurrence: one linear layer applied to each frame, trained with CTC.

The prediction stage "CTC" of Baek et al. 2019, "What Is Wrong With Scene Text Recognition Model Comparisons?", in which
the bridge, not the decoder, combines neighboring frames.
"""

from typing import final

from torch import Tensor, nn

from decoderbench import ComponentConfig, CTCDecoder, LabelSpec, SequenceSpec, hookimpl


@final
class LinearCTC(CTCDecoder):
    """A linear layer that scores the blank and the charset."""

    name = "ctc"
    exports = True

    class Config(ComponentConfig):
        """Options of `ctc`: none."""

    def __init__(self, config: Config, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(memory)
        return logits  # (B, T, V)


@hookimpl
def register_decoders() -> list[type[LinearCTC]]:
    """Register the decoder of this file."""
    return [LinearCTC]
