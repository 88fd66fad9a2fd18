"""The one component that belongs to the core: the rectifier `none`, which every grid has unless it names others."""

from typing import final

from torch import Tensor

from decoderbench.model.stages import Rectifier
from decoderbench.options import ComponentConfig
from decoderbench.registry.hookspecs import hookimpl
from decoderbench.specs import ImageSpec


@final
class NoRectifier(Rectifier):
    """Returns the images as they are."""

    name = "none"
    exports = True
    keeps_columns = True

    class Config(ComponentConfig):
        """No options."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.image = image

    def forward(self, images: Tensor) -> Tensor:
        return images


@hookimpl
def register_rectifiers() -> list[type[NoRectifier]]:
    """Register the rectifier of this file."""
    return [NoRectifier]
