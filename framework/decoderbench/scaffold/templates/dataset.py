"""my_component: images of four digits, drawn on request. Replace the drawing by code that reads your images."""

import hashlib
import random
from collections.abc import Sequence
from typing import final

from PIL import Image, ImageDraw
from pydantic import Field

from decoderbench import ComponentConfig, Dataset, Sample, hookimpl


def label_of(index: int) -> str:
    """Return the text that image `index` shows."""
    return f"{random.Random(index).randrange(10_000):04}"


@final
class MyComponent(Dataset):
    """Each image depends on its index only, so it is the same in every process and in any order."""

    name = "my_component"

    class Config(ComponentConfig):
        """Options; the string below a field documents it."""

        count: int = Field(default=2000, ge=20)
        """Number of images: 80 % for training, 10 % for validation, 10 % for test."""

    def samples(self) -> Sequence[Sample]:
        labels = [label_of(index) for index in range(self.config.count)]
        splits = self.deal_splits(labels, (0.8, 0.1, 0.1), seed=0)  # equal labels get the same split
        rows = enumerate(zip(labels, splits, strict=True))
        return [Sample(key=f"image {index}", label=label, split=split) for index, (label, split) in rows]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (64, 24), 255)
        ImageDraw.Draw(image).text((8, 4), label_of(index), fill=0, font_size=16)
        return image

    def fingerprint(self) -> str:
        version = f"my_component, version 1, {self.config.count} images"  # change it whenever the data change
        return hashlib.sha256(version.encode()).hexdigest()


@hookimpl
def register_datasets() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
