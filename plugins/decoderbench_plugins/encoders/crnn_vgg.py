"""The VGG backbone of CRNN: seven convolutions; the last two pools do not reduce the width.

Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its
Application to Scene Text Recognition", in the variant of Baek et al. 2019, "What Is Wrong With Scene Text
Recognition Model Comparisons?": BatchNorm only after the fifth and sixth convolution.
"""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl


@final
class CRNNVGG(Encoder):
    """Map of H/16 - 1 rows and W/4 - 1 columns: one row for images of height 32."""

    name = "crnn_vgg"
    exports = True

    class Config(ComponentConfig):
        """Options of `crnn_vgg`. The strides are those of the paper."""

        output_channels: int = Field(default=512, ge=8, multiple_of=8)
        """Channels of the map. Earlier layers have 1/8, 1/4 and 1/2 as many."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        full = config.output_channels
        eighth, quarter, half = full // 8, full // 4, full // 2
        self.features = FeatureMapSpec(channels=full, height=image.height // 16 - 1, width=image.width // 4 - 1)
        image.require_size(height=32, width=8, by="encoder crnn_vgg")
        self.layers = nn.Sequential(
            *_conv(image.channels, eighth),
            nn.MaxPool2d(2),  # (B, C/8, H/2, W/2)
            *_conv(eighth, quarter),
            nn.MaxPool2d(2),  # (B, C/4, H/4, W/4)
            *_conv(quarter, half),
            *_conv(half, half),
            nn.MaxPool2d((2, 1)),  # (B, C/2, H/8, W/4)
            *_conv(half, full, batch_norm=True),
            *_conv(full, full, batch_norm=True),
            nn.MaxPool2d((2, 1)),  # (B, C, H/16, W/4)
            *_conv(full, full, kernel_size=2, padding=0),  # (B, C, H/16 - 1, W/4 - 1)
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
    padding: int = 1,
    batch_norm: bool = False,
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=not batch_norm)
    return [conv, *([nn.BatchNorm2d(out_channels)] if batch_norm else []), nn.ReLU(inplace=True)]


def _initialize(module: nn.Module) -> None:
    """Initialize a convolution after He et al. 2015, by fan-in, because most layers have no norm."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@hookimpl
def register_encoders() -> list[type[CRNNVGG]]:
    """Register `crnn_vgg`."""
    return [CRNNVGG]
