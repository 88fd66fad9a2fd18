"""my_component: each image is brought to one brightness and one contrast, and both can be learned."""

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
        """Options; the text under each is its documentation."""

        contrast: float = Field(default=0.5, gt=0)
        """Standard deviation of the values that go out, to begin with."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image  # what goes out has the shape of what comes in
        self.scale = nn.Parameter(torch.full((image.channels, 1, 1), config.contrast))
        self.shift = nn.Parameter(torch.zeros(image.channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)  # of each image alone
        return (images - mean) / (deviation + 1e-3) * self.scale + self.shift


@hookimpl
def register_rectifiers() -> list[type[MyComponent]]:
    """Offer it to every experiment."""
    return [MyComponent]
