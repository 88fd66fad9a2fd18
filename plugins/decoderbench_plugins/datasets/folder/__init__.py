"""The dataset `folder`: its options, its label tables, its splits, and the files that it reads."""

from collections.abc import Iterable

from decoderbench import Dataset, hookimpl

from .dataset import Folder as Folder


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `folder`."""
    return [Folder]
