"""my_component: normalizes each image to a learned brightness and contrast."""

from typing import final

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, ImageSpec, Rectifier, hookimpl


@final
class MyComponent(Rectifier):
    """Standardizes each image, then scales and shifts each channel."""

    name = "my_component"
    exports = True

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        contrast: float = Field(default=0.5, gt=0)
        """Initial standard deviation of the output values."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image  # the output has the size of the input
        self.scale = nn.Parameter(torch.full((image.channels, 1, 1), config.contrast))
        self.shift = nn.Parameter(torch.zeros(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)  # of each image
        return (images - mean) / (deviation + 1e-3) * self.scale + self.shift


@hookimpl
def register_rectifiers() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
