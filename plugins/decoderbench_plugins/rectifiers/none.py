"""No rectifier: the encoder sees the image as it is."""

from typing import final

from torch import Tensor

from decoderbench import ComponentConfig, ImageSpec, Rectifier, hookimpl


@final
class NoRectifier(Rectifier):
    """Images out are images in."""

    name = "none"
    exports = True

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image

    def forward(self, images: Tensor) -> Tensor:
        return images


@hookimpl
def register_rectifiers() -> list[type[NoRectifier]]:
    """Offer the rectifier of this file."""
    return [NoRectifier]
