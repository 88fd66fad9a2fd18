"""The dataset that reads a path: a folder of labeled images, an LMDB, or a Hugging Face dataset on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoderbench.config.grid import DatasetChoice
from decoderbench.errors import ConfigError

if TYPE_CHECKING:
    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.registry import Registry

TEST_FRACTION = 0.2
"""Share of an LMDB to test on where no other LMDB is given for that."""


def open_dataset(path: Path, registry: Registry, options: object) -> tuple[DatasetChoice, Dataset]:
    """Return the dataset of a path, whose samples are not read yet, and how an experiment would choose it.

    Args:
        path: the folder or file.
        registry: the components.
        options: further options of the dataset, as plain data or as typed; those that say the path are refused.

    Raises:
        ConfigError: the dataset does not know an option.
    """
    fixed = _dataset_at(path, options)
    if not isinstance(options, Mapping) or options.keys() & fixed.keys():
        raise ConfigError(["--set dataset: set options of the dataset one by one; its path is the given folder"])
    given = registry["dataset"].decide_options(fixed["use"], options)
    choice = DatasetChoice.model_validate({**given, **fixed})
    if mistakes := registry["dataset"].mistakes(choice):
        raise ConfigError([f"{'.'.join(map(str, ('dataset', *place)))}: {text}" for place, text in mistakes])
    registered, config = registry["dataset"].configure(choice)
    return choice, registered.component(config, Path())


def _dataset_at(path: Path, options: object) -> dict[str, Any]:
    """Return the dataset that reads a path, with the options that follow from the path."""
    if (path / "data.mdb").is_file() or (path.suffix.lower() == ".mdb" and path.is_file()):
        tested = isinstance(options, Mapping) and options.keys() & {"test", "test_fraction"}
        return {"use": "lmdb", "train": str(path), **({} if tested else {"test_fraction": TEST_FRACTION})}
    saved = [path / name for name in ("dataset_dict.json", "state.json")]  # by the library of Hugging Face
    if any(file.is_file() for file in saved) or (path.suffix.lower() == ".parquet" and path.is_file()):
        return {"use": "hf", "path": str(path)}
    return {"use": "folder", "path": str(path)}
