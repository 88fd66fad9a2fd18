"""Bidirectional LSTMs over the columns, each followed by a linear layer.

Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition" (CRNN), after Graves.
Sizes and initial weights (He et al. 2015) are those of Baek et al. 2019, "What Is Wrong With Scene Text Recognition
Model Comparisons?".
"""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import Bridge, ComponentConfig, FeatureMapSpec, SequenceSpec, hookimpl


@final
class BiLSTM(Bridge):
    """T = W. The mean over the height, then layers of a bidirectional LSTM and a linear map."""

    name = "bilstm"
    exports = True

    class Config(ComponentConfig):
        """Options of `bilstm`."""

        num_layers: int = Field(default=2, ge=1)
        """Number of bidirectional LSTMs, each followed by a linear layer."""

        hidden_dim: int = Field(default=256, ge=1)
        """Hidden size per direction."""

        output_dim: int = Field(default=256, ge=1)
        """Output size of each linear layer; equals D if last_projection is set."""

        last_projection: bool = True
        """Whether a linear layer also follows the last LSTM. Without it, D is twice `hidden_dim`, and the head of the
        decoder takes its role, as in the CRNN of Shi et al."""

    def __init__(self, config: Config, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        widths = [features.channels] + [config.output_dim] * (config.num_layers - 1)
        both = 2 * config.hidden_dim
        self.lstms = nn.ModuleList(
            nn.LSTM(width, config.hidden_dim, batch_first=True, bidirectional=True) for width in widths
        )
        self.projections = nn.ModuleList(nn.Linear(both, config.output_dim) for _ in widths)
        if not config.last_projection:
            self.projections[-1] = nn.Identity()
        dim = config.output_dim if config.last_projection else both
        self.memory = SequenceSpec(length=features.width, dim=dim, left_to_right=True)
        for name, parameter in self.named_parameters():
            # As in Baek et al. With torch's defaults, only 1 % of the variation between images passes two layers.
            if "weight" in name:
                nn.init.kaiming_normal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        memory = features.mean(dim=2).transpose(1, 2)  # (B, W, C)
        for lstm, projection in zip(self.lstms, self.projections, strict=True):
            both, _ = lstm(memory)  # (B, W, 2 * hidden_dim)
            memory = projection(both)
        return memory


@hookimpl
def register_bridges() -> list[type[BiLSTM]]:
    """Register `bilstm`."""
    return [BiLSTM]
