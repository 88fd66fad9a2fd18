"""The dataset `rendered_words`: its options, the texts, the fonts, and how texts are drawn."""

from collections.abc import Iterable

from decoderbench import Dataset, hookimpl

from .dataset import RenderedWords as RenderedWords


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `rendered_words`."""
    return [RenderedWords]
