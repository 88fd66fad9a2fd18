"""The dataset `lmdb`: its options, and how LMDB files are read in processes of their own."""

from collections.abc import Iterable

from decoderbench import Dataset, hookimpl

from .dataset import LMDB as LMDB


@hookimpl
def register_datasets() -> Iterable[type[Dataset]]:
    """Register `lmdb`."""
    return [LMDB]
