"""An encoder of one convolution, so that a cell trains in a second."""

from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl


class TinyCNN(Encoder):
    """Stride 4 in both directions, eight channels."""

    name = "tiny_cnn"

    class Config(ComponentConfig):
        """Options of `tiny_cnn`."""

        stride: int = 4
        """Stride of the convolution."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.conv = nn.Conv2d(image.channels, 8, config.stride, config.stride)
        self.features = FeatureMapSpec(
            channels=8, height=image.height // config.stride, width=image.width // config.stride
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu()


@hookimpl
def register_encoders() -> list[type[TinyCNN]]:
    return [TinyCNN]
