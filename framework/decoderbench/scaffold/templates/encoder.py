"""my_component: a small CNN that halves the height four times and the width twice."""

from typing import final

from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, ImageSpec, hookimpl, probe_features

STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))  # height, width: keeps enough columns for CTC


@final
class MyComponent(Encoder):
    """Convolution, BatchNorm and ReLU, four times."""

    name = "my_component"
    exports = True

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        channels: int = Field(default=64, ge=1)
        """Channels of the feature map."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        image.require_size(height=16, width=4, by="encoder my_component")
        layers: list[nn.Module] = []
        channels = image.channels
        for stride in STRIDES:
            layers.append(nn.Conv2d(channels, config.channels, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(config.channels), nn.ReLU()]
            channels = config.channels
        self.layers = nn.Sequential(*layers)
        self.features = probe_features(self.layers, image)  # the output of forward: channels, height, width

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


@hookimpl
def register_encoders() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
