"""The VGG trunk of CRNN: seven convolutions whose last two pools leave the width alone.

Shi et al. 2015, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its
Application to Scene Text Recognition", in the variant of Baek et al. 2019, "What Is Wrong With Scene Text
Recognition Model Comparisons?": BatchNorm after the fifth and sixth convolution only.
"""

from collections.abc import Iterable
from typing import final

from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, InfeasibleError, hookimpl

_CHANNELS = 512


@final
class CRNNVGG(Encoder):
    """A column of the map every four pixels, less one; a map of height 1 for images of height 32."""

    name = "crnn_vgg"

    class Config(ComponentConfig):
        """No options: the channels and strides are those of the paper."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.features = FeatureMapSpec(channels=_CHANNELS, height=image.height // 16 - 1, width=image.width // 4 - 1)
        if self.features.height < 1 or self.features.width < 1:
            raise InfeasibleError(
                f"encoder crnn_vgg needs images of at least 32x8 (height x width), given "
                f"{image.height}x{image.width}; raise image.height or image.width"
            )
        self.layers = nn.Sequential(
            *_conv(image.channels, 64),
            nn.MaxPool2d(2),  # (B, 64, H/2, W/2)
            *_conv(64, 128),
            nn.MaxPool2d(2),  # (B, 128, H/4, W/4)
            *_conv(128, 256),
            *_conv(256, 256),
            nn.MaxPool2d((2, 1)),  # (B, 256, H/8, W/4)
            *_conv(256, 512, batch_norm=True),
            *_conv(512, 512, batch_norm=True),
            nn.MaxPool2d((2, 1)),  # (B, 512, H/16, W/4)
            *_conv(512, _CHANNELS, kernel_size=2, padding=0),  # (B, 512, H/16 - 1, W/4 - 1)
        )

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


@hookimpl
def register_encoders() -> Iterable[type[Encoder]]:
    """Offer the trunk."""
    return [CRNNVGG]
