"""The dataset `hf`: its options, its splits by name, and how it is loaded."""

from collections.abc import Iterable

from decoderbench import Dataset, hookimpl

from .dataset import HuggingFace as HuggingFace


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `hf`."""
    return [HuggingFace]
