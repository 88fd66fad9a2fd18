"""A complete recognizer as an encoder: its logits become a feature map of height 1.

[grid.encoder]
"ViTSTR" = { use = "vitstr", characters = "0123456789", max_length = 2 }
[grid.bridge]
"columns" = "mean_height"
[grid.decoder]
"its own" = { use = "per_position", vocabulary = "0123456789", first = 2, end = 1 }
"""

from pydantic import Field
from torch import Tensor

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, InfeasibleError, hookimpl
from decoderbench_transformer.vitstr import ViTSTR

HEIGHT, WIDTH = 32, 128


class ViTSTREncoder(Encoder):
    """Column s of the feature map holds the logits of character s, one channel per class."""

    name = "vitstr"

    class Config(ComponentConfig):
        """Options of `vitstr`."""

        characters: str = "0123456789abcdefghijklmnopqrstuvwxyz"
        """Characters, in the order of the classes."""

        max_length: int = Field(default=25, ge=1, le=31)
        """Largest number of characters of a text."""

        width: int = Field(default=128, ge=4)
        """Width of the ViT; a multiple of four."""

        depth: int = Field(default=2, ge=1)
        """Number of layers of the ViT."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        if (image.height, image.width) != (HEIGHT, WIDTH):
            raise InfeasibleError(
                f"encoder vitstr reads images of {HEIGHT}x{WIDTH} (height x width) only, given "
                f"{image.height}x{image.width}; set image.height and image.width"
            )
        self.recognizer = ViTSTR(config.characters, config.max_length, image.channels, config.width, config.depth)
        self.features = FeatureMapSpec(channels=2 + len(config.characters), height=1, width=config.max_length + 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.recognizer(images)  # (B, S, V)
        return logits.transpose(1, 2)[:, :, None]  # (B, V, 1, S)


@hookimpl
def register_encoders() -> list[type[ViTSTREncoder]]:
    return [ViTSTREncoder]
