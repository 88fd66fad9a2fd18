"""The experiment of `decoderbench compare FOLDER`: a preset, fitted to the images of a data set of any form."""

from __future__ import annotations

import re
import statistics
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from decoderbench.config.grid import DatasetChoice
from decoderbench.config.merging import merge
from decoderbench.data.dataset import ReportProblem, refuse
from decoderbench.data.image_reading import collected_warnings, read_image
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import ConfigError, DataError
from decoderbench.planning.reading import reading

if TYPE_CHECKING:
    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.registry import Registry

MAX_SAMPLED = 200
"""The most images whose shape is read to choose the width."""
WIDTH_STEP = 8
MAX_WIDTH = 1024
TEST_FRACTION = 0.2
"""Share of an LMDB to test on where no other LMDB is given for that."""


def fit_preset(
    folder: Path,
    registry: Registry,
    *,
    steps: int = 2000,
    options: Mapping[str, Any] = MappingProxyType({}),
    deadline: Deadline = NO_DEADLINE,
    report_problem: ReportProblem = refuse,
) -> tuple[dict[str, Any], Dataset]:
    """Return an experiment that compares three decoders on the images of a folder, as plain data, and its dataset.

    Components and augmentation are those of `compare.toml`. Images get its height and the width that keeps the median
    aspect ratio, a multiple of 8. `options` are further options of its dataset. Observers get its progress.
    `report_problem` becomes that of the dataset.

    Raises:
        ConfigError: the dataset does not know an option.
        DataError: the folder is missing or holds no labeled image.
        PendingCellsError: the deadline passed.
    """
    fixed = _dataset_at(folder, options)
    if not isinstance(options, Mapping) or options.keys() & fixed.keys():
        raise ConfigError(["--set dataset: set options of the dataset one by one; its path is the given folder"])
    preset = tomllib.loads(files(__package__).joinpath("compare.toml").read_text(encoding="utf-8"))
    given = registry["dataset"].decide_options(fixed["use"], options)
    choice = DatasetChoice.model_validate({**given, **fixed})
    if mistakes := registry["dataset"].mistakes(choice):
        raise ConfigError([f"{'.'.join(map(str, ('dataset', *place)))}: {text}" for place, text in mistakes])
    registered, config = registry["dataset"].configure(choice)
    dataset: Dataset = registered.component(config, Path())
    dataset.report_problem = report_problem
    with reading(dataset, registry.plugins, deadline):
        width = _fitting_width(dataset, preset["image"]["height"])
    name = re.sub(r"[^a-z0-9_.-]+", "-", folder.resolve().name.lower()).strip("-._")[:64]
    experiment = merge(
        preset,
        {
            "name": name or "comparison",
            "dataset": choice.model_dump(mode="python", exclude_unset=True),
            "image": {"width": width},
            "training": {"steps": steps},
        },
    )
    return experiment, dataset


def _dataset_at(path: Path, options: object) -> dict[str, Any]:
    """Return the dataset that reads a path, with the options that follow from the path."""
    if (path / "data.mdb").is_file() or (path.suffix.lower() == ".mdb" and path.is_file()):
        tested = isinstance(options, Mapping) and options.keys() & {"test", "test_fraction"}
        return {"use": "lmdb", "train": str(path), **({} if tested else {"test_fraction": TEST_FRACTION})}
    saved = [path / name for name in ("dataset_dict.json", "state.json")]  # by the library of Hugging Face
    if any(file.is_file() for file in saved) or (path.suffix.lower() == ".parquet" and path.is_file()):
        return {"use": "hf", "path": str(path)}
    return {"use": "folder", "path": str(path)}


def _fitting_width(dataset: Dataset, height: int) -> int:
    count = len(dataset.samples())
    aspect_ratios = []
    indices = range(0, count, max(1, count // MAX_SAMPLED))
    for done, index in enumerate(indices):
        dataset.report_progress(done, len(indices))
        try:
            with collected_warnings():  # the data audit repeats them
                image = read_image(dataset, index)
        except DataError:
            continue  # the data audit names it
        aspect_ratios.append(image.width / image.height)
    width = WIDTH_STEP * round(height * statistics.median(aspect_ratios or [1.0]) / WIDTH_STEP)
    return min(max(width, height), MAX_WIDTH)
