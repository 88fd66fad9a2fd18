"""my_component: words of four digits, drawn when they are asked for. Put the reading of your images in their place."""

import hashlib
import random
from collections.abc import Sequence
from typing import final

from PIL import Image, ImageDraw
from pydantic import Field

from decoderbench import ComponentConfig, Dataset, Sample, hookimpl


def label_of(index: int) -> str:
    """Return what image `index` shows."""
    return f"{random.Random(index).randrange(10_000):04}"


@final
class MyComponent(Dataset):
    """Each image depends on its number alone, so that it is the same in every process and in any order."""

    name = "my_component"

    class Config(ComponentConfig):
        """Options; the text under each is its documentation."""

        count: int = Field(default=2000, ge=20)
        """Images in all: eight tenths to train with, one to validate, one to test."""

    def samples(self) -> Sequence[Sample]:
        labels = [label_of(index) for index in range(self.config.count)]
        splits = self.deal_splits(labels, (0.8, 0.1, 0.1), seed=0)  # a word is in one split only
        rows = enumerate(zip(labels, splits, strict=True))
        return [Sample(key=f"image {index}", label=label, split=split) for index, (label, split) in rows]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (64, 24), 255)
        ImageDraw.Draw(image).text((8, 4), label_of(index), fill=0, font_size=16)
        return image

    def fingerprint(self) -> str:
        decides = f"my_component, version 1, {self.config.count} images"  # change it with the data
        return hashlib.sha256(decides.encode()).hexdigest()


@hookimpl
def register_datasets() -> list[type[MyComponent]]:
    """Offer it to every experiment."""
    return [MyComponent]
