"""GRCNN: gated recurrent convolutions, which read their own output several times.

Wang and Hu 2017, "Gated Recurrent Convolution Neural Network for OCR", with the widths of Baek et al. 2019, "What Is
Wrong With Scene Text Recognition Model Comparisons?", where this encoder is called RCNN.
"""

from typing import cast, final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl

_ITERATIONS = 5


@final
class GRCNN(Encoder):
    """Map of H/16 - 1 rows and W/4 + 1 columns: one row for images of height 32."""

    name = "grcnn"
    exports = True

    class Config(ComponentConfig):
        """Options of `grcnn`. The strides and the five iterations per recurrent layer are those of the paper."""

        output_channels: int = Field(default=512, ge=8, multiple_of=8)
        """Channels of the map. Earlier layers have 1/8, 1/4 and 1/2 as many."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        full = config.output_channels
        eighth, quarter, half = full // 8, full // 4, full // 2
        image.require_size(height=32, width=4, by="encoder grcnn")
        self.features = FeatureMapSpec(channels=full, height=image.height // 16 - 1, width=image.width // 4 + 1)
        self.layers = nn.Sequential(
            nn.Conv2d(image.channels, eighth, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # (B, C/8, H/2, W/2)
            _GatedRecurrentConv(eighth, eighth),
            nn.MaxPool2d(2),  # (B, C/8, H/4, W/4)
            _GatedRecurrentConv(eighth, quarter),
            nn.MaxPool2d(2, stride=(2, 1), padding=(0, 1)),  # (B, C/4, H/8, W/4 + 1)
            _GatedRecurrentConv(quarter, half),
            nn.MaxPool2d(2, stride=(2, 1), padding=(0, 1)),  # (B, C/2, H/16, W/4 + 2)
            nn.Conv2d(half, full, 2, bias=False),  # (B, C, H/16 - 1, W/4 + 1)
            nn.BatchNorm2d(full),
            nn.ReLU(inplace=True),
        )
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


class _GatedRecurrentConv(nn.Module):
    """x(0) = relu(n(F u)); x(t+1) = relu(n(F u) + n(n(R x(t)) * g(t))), g(t) = sigmoid(n(G u) + n(H x(t))).

    u is the input. n is a BatchNorm, a separate one for each term and iteration. F and R are 3x3 convolutions, G and H
    1x1; all iterations share them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)  # F
        self.recurrent_conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)  # R
        self.input_gate = nn.Conv2d(in_channels, out_channels, 1, bias=False)  # G
        self.recurrent_gate = nn.Conv2d(out_channels, out_channels, 1, bias=False)  # H
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.iterations = nn.ModuleList(_GatedSum(out_channels) for _ in range(_ITERATIONS))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, in_channels, H, W) to (B, out_channels, H, W)."""
        of_input, gate_of_input = self.input_conv(inputs), self.input_gate(inputs)
        state: Tensor = self.first_norm(of_input).relu_()
        for gated_sum in self.iterations:
            state = gated_sum(of_input, self.recurrent_conv(state), gate_of_input, self.recurrent_gate(state))
        return state


class _GatedSum(nn.Module):
    """The BatchNorms of one iteration, and the sum of their outputs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(channels)
        self.recurrent_norm = nn.BatchNorm2d(channels)
        self.input_gate_norm = nn.BatchNorm2d(channels)
        self.recurrent_gate_norm = nn.BatchNorm2d(channels)
        self.gated_norm = nn.BatchNorm2d(channels)

    def forward(self, of_input: Tensor, recurrent: Tensor, gate_of_input: Tensor, recurrent_gate: Tensor) -> Tensor:
        """Return the next state from convolutions of input and state; all are (B, C, H, W)."""
        gate = (self.input_gate_norm(gate_of_input) + self.recurrent_gate_norm(recurrent_gate)).sigmoid()
        gated = self.gated_norm(self.recurrent_norm(recurrent) * gate)
        return cast(Tensor, self.input_norm(of_input) + gated).relu()


def _initialize(module: nn.Module) -> None:
    """Initialize a convolution after He et al. 2015, by fan-out; norms set the scale of the forward pass."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@hookimpl
def register_encoders() -> list[type[GRCNN]]:
    """Register `grcnn`."""
    return [GRCNN]
