"""Words of `rendered_words` with a bar over each image, which hides a part of the text.

In a folder of its own, as the fingerprint of `rendered_words` covers the files of its folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, final

from PIL import ImageDraw
from pydantic import Field

from decoderbench import Dataset, hookimpl, source_digest

from ..dataset import RenderedWords
from ..texts import hash_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


@final
class OccludedWords(RenderedWords):  # type: ignore[misc]  # final for users, who could not extend its fingerprint
    """The texts and images of `rendered_words`, each with a vertical bar of one brightness at a random place.

    Place and brightness depend only on the sample, so wider bars cover what narrower ones cover. The labels stay whole:
    what is hidden has to be guessed, from the visible part of a character or from the language.
    """

    name = "occluded_words"

    class Config(RenderedWords.Config):
        """Options of `occluded_words`: those of `rendered_words`, and the bar."""

        occlusion: float = Field(default=0.1, ge=0, le=0.9)
        """Width of the bar, as a share of the width of the image; 0 draws none."""

    config: Config

    def load_image(self, index: int) -> Image:
        image = super().load_image(index)
        numbers = hash_bytes(f"{self.config.seed}/{self.samples()[index].key}/bar", 5)
        middle, brightness = int.from_bytes(numbers[:4]) / 2**32 * image.width, numbers[4]
        half = self.config.occlusion * image.width / 2
        left, right = round(middle - half), round(middle + half)
        if left < right:
            ImageDraw.Draw(image).rectangle((left, 0, right - 1, image.height - 1), fill=brightness)
        return image

    def fingerprint(self) -> str:
        return hash_bytes(f"{super().fingerprint()} {source_digest(Path(__file__))}", 32).hex()


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `occluded_words`."""
    return [OccludedWords]
