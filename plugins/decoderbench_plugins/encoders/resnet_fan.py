"""The residual network of FAN and TRBA: eleven blocks; later strides do not reduce the width.

Cheng et al. 2017, "Focusing Attention: Towards Accurate Text Recognition in Natural Images"; Baek et al. 2019, "What
Is Wrong With Scene Text Recognition Model Comparisons?", where this encoder is called ResNet.
"""

from typing import cast, final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl


@final
class ResNetFAN(Encoder):
    """Map of H/16 - 1 rows and W/4 + 1 columns: one row for images of height 32."""

    name = "resnet_fan"
    exports = True

    class Config(ComponentConfig):
        """Options of `resnet_fan`. The number of blocks and the strides are those of the paper."""

        output_channels: int = Field(default=512, ge=16, multiple_of=16)
        """Channels of the map. Earlier layers have 1/16, 1/8, 1/4 and 1/2 as many."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        full = config.output_channels
        sixteenth, eighth, quarter, half = full // 16, full // 8, full // 4, full // 2
        image.require_size(height=32, width=4, by="encoder resnet_fan")
        self.features = FeatureMapSpec(channels=full, height=image.height // 16 - 1, width=image.width // 4 + 1)
        self.layers = nn.Sequential(
            *_conv(image.channels, sixteenth),
            *_conv(sixteenth, eighth),
            nn.MaxPool2d(2),  # (B, C/8, H/2, W/2)
            *_blocks(1, eighth, quarter),
            *_conv(quarter, quarter),
            nn.MaxPool2d(2),  # (B, C/4, H/4, W/4)
            *_blocks(2, quarter, half),
            *_conv(half, half),
            nn.MaxPool2d(2, stride=(2, 1), padding=(0, 1)),  # (B, C/2, H/8, W/4 + 1)
            *_blocks(5, half, full),
            *_conv(full, full),
            *_blocks(3, full, full),
            *_conv(full, full, kernel_size=2, stride=(2, 1), padding=(0, 1)),  # (B, C, H/16, W/4 + 2)
            *_conv(full, full, kernel_size=2, padding=(0, 0)),  # (B, C, H/16 - 1, W/4 + 1)
        )
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def _conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _blocks(number: int, in_channels: int, out_channels: int) -> list[nn.Module]:
    return [_BasicBlock(in_channels if index == 0 else out_channels, out_channels) for index in range(number)]


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), projected if the number of channels changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        *second, _ = _conv(out_channels, out_channels)  # the last ReLU follows the sum
        self.residual = nn.Sequential(*_conv(in_channels, out_channels), *second)
        self.shortcut = nn.Sequential()
        if in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, in_channels, H, W) to (B, out_channels, H, W)."""
        residual = cast(Tensor, self.residual(inputs))
        return residual.add_(self.shortcut(inputs)).relu_()  # BatchNorm's gradient does not need its output


def _initialize(module: nn.Module) -> None:
    """Initialize a convolution after He et al. 2015, by fan-out; norms set the scale of the forward pass."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@hookimpl
def register_encoders() -> list[type[ResNetFAN]]:
    """Register `resnet_fan`."""
    return [ResNetFAN]
