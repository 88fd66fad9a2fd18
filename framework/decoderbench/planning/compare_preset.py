"""The experiment of `decoderbench compare FOLDER`: a preset, and a recipe that follows from images of any form."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from decoderbench.config.experiment import to_name
from decoderbench.config.grid import DatasetChoice
from decoderbench.config.merging import merge
from decoderbench.config.typed_values import decide, plain, value_of
from decoderbench.data.dataset import SPLITS, ReportProblem, Sample, Split, refuse
from decoderbench.data.image_decoding import to_gray_or_rgb
from decoderbench.data.image_reading import collected_warnings, read_image
from decoderbench.data.train_limit import limited_sizes
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import DataError
from decoderbench.options import AugmentationOptions, ImageOptions, Options, TrainingOptions
from decoderbench.planning.dataset_path import open_dataset
from decoderbench.planning.reading import reading
from decoderbench.planning.recipe import Sighting, choose_recipe, describe_recipe
from decoderbench.specs import ctc_frames_needed

if TYPE_CHECKING:
    from PIL.Image import Image

    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.registry import Registry

MAX_SAMPLED = 200
"""The most images that are looked at to choose the recipe."""
LOOKED_AT = 64
"""The height in pixels to which an image is reduced to see whether it has colors."""
COLORFUL = 32
"""How many of 255 steps channels must differ by, at one of a hundred pixels, for an image to have colors."""
TABLES: Mapping[str, type[Options]] = {
    "image": ImageOptions,
    "augmentation": AugmentationOptions,
    "training": TrainingOptions,
}


def fit_preset(
    folder: Path,
    registry: Registry,
    *,
    changes: Mapping[str, Any] = MappingProxyType({}),
    deadline: Deadline = NO_DEADLINE,
    report_problem: ReportProblem = refuse,
) -> tuple[dict[str, Any], Dataset, list[str]]:
    """Return an experiment that compares three decoders on the images of a folder, its dataset, and how it was chosen.

    Components are those of `compare.toml`; other settings follow from the data as `choose_recipe` says, and each has a
    line with its reason. Observers get the progress of looking at images.

    Args:
        folder: the images.
        registry: the components.
        changes: keys that the caller will set, as plain data or as typed: options of the dataset are used here, and
            what is chosen goes with the others.
        deadline: when to stop.
        report_problem: that of the dataset.

    Raises:
        ConfigError: the dataset does not know an option.
        DataError: the folder is missing or holds no labeled image.
        PendingCellsError: the deadline passed.
    """
    choice, dataset = open_dataset(folder, registry, value_of(changes.get("dataset", {})))
    dataset.report_problem = report_problem
    preset = tomllib.loads(files(__package__).joinpath("compare.toml").read_text(encoding="utf-8"))
    with reading(dataset, registry.plugins, deadline):
        seen = look_at(dataset, choice)
    by_hand = {"grid": plain(changes.get("grid", {})), **{table: valid_options(changes, table) for table in TABLES}}
    recipe = choose_recipe(seen, by_hand) if seen is not None else []
    named = {"name": name_after(folder), "dataset": choice.model_dump(mode="python", exclude_unset=True)}
    experiment = merge(preset, named)
    for chosen in recipe:
        experiment = merge(experiment, chosen.as_changes())
    return experiment, dataset, describe_recipe(recipe)


def name_after(folder: Path, before: str = "") -> str:
    """Return the name of an experiment on the images of a folder, and what may stand before it."""
    return to_name(f"{before}{folder.resolve().name}") or "comparison"


def look_at(dataset: Dataset, choice: DatasetChoice) -> Sighting | None:
    """Return what the data show: some images, evenly taken from all that are not tested, and all labels.

    With folds, each image is tested by a fold. None if no image can be read, which the data audit tells.
    """
    samples = dataset.samples()
    untested = [row for row, sample in enumerate(samples) if sample.split != "test" or choice.folds]
    looked_at = untested[:: max(1, math.ceil(len(untested) / MAX_SAMPLED))]
    sizes, labels, colored = [], [], 0
    for done, row in enumerate(looked_at):
        dataset.report_progress(done, len(looked_at))
        try:
            with collected_warnings():  # the data audit repeats them
                image = to_gray_or_rgb(read_image(dataset, row))
        except DataError:
            continue  # the data audit names it
        sizes.append(image.size)
        labels.append(samples[row].label)
        colored += _has_colors(image)
    if not sizes:
        return None
    needed = max(ctc_frames_needed(sample.label) for sample in samples)
    return Sighting(_count_training(samples, choice), needed, tuple(sizes), tuple(labels), colored / len(sizes))


def _count_training(samples: Sequence[Sample], choice: DatasetChoice) -> int:
    """Return how many images train, with folds about how many."""
    sizes: dict[Split, int] = {split: sum(sample.split == split for sample in samples) for split in SPLITS}
    if choice.folds is not None:  # the ratio of train and val stays, of all images but those of a fold
        rest = len(samples) * (choice.folds - 1) // choice.folds
        train = rest * sizes["train"] // max(1, sizes["train"] + sizes["val"])
        sizes = {**sizes, "train": train, "val": rest - train}
    try:
        return limited_sizes(sizes, choice.train_limit)["train"]
    except DataError:
        return sizes["train"]  # the data audit tells that there are fewer


def _has_colors(image: Image) -> bool:
    if image.mode == "L":
        return False
    image.thumbnail((image.width, LOOKED_AT))
    pixels = np.asarray(image).astype(np.int16)
    return float(np.percentile(pixels.max(axis=2) - pixels.min(axis=2), 99)) >= COLORFUL


def valid_options(changes: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Return the options of a table that are set, without mistakes, which are reported later."""
    found: dict[str, Any] = {}
    given = value_of(changes.get(table, {}))
    for option, value in given.items() if isinstance(given, Mapping) else ():
        with suppress(ValidationError):
            options = TABLES[table].model_validate(decide({option: value}, TABLES[table]))
            found |= options.model_dump(exclude_unset=True)
    return found
