"""The experiment of `decoderbench finetune PACK FOLDER`: the recognizer of a pack, trained on with other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from decoderbench.config.cell import Cell
from decoderbench.config.merging import merge
from decoderbench.config.typed_values import value_of
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.kinds import AXES
from decoderbench.labels import Charset
from decoderbench.planning.compare_preset import look_at, name_after, valid_options
from decoderbench.planning.dataset_path import open_dataset
from decoderbench.planning.reading import reading
from decoderbench.planning.recipe import Choice, choose_recipe, describe_recipe
from decoderbench.records.pack import read_pack

if TYPE_CHECKING:
    from decoderbench.data.dataset import Dataset
    from decoderbench.registry.registry import Registry

CharsetPolicy = Literal["new", "union", "keep"]
POLICIES: tuple[CharsetPolicy, ...] = get_args(CharsetPolicy)
"""new: the characters of the new labels; union: those and the pack's; keep: the pack's alone."""

LEARNING_RATE = 5e-4
"""A quarter of that of a training from the beginning, so that what is known is changed and not lost."""


def fit_finetuning(
    file: Path,
    folder: Path,
    registry: Registry,
    *,
    charset: CharsetPolicy = "new",
    freeze: Sequence[str] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
    deadline: Deadline = NO_DEADLINE,
) -> tuple[dict[str, Any], Dataset, list[str]]:
    """Return an experiment that trains the recognizer of a pack on, its dataset, and how settings were chosen.

    Components, images and the normalization of labels are those of the pack; augmentation, batch size and steps follow
    from the images as those of `compare` do.

    Args:
        file: the pack.
        folder: the images.
        registry: the components.
        charset: which characters the recognizer knows.
        freeze: stages that are not trained.
        changes: keys that the caller will set, as plain data or as typed; options of the dataset are used here.
        deadline: when to stop.

    Raises:
        ConfigError: the dataset does not know an option.
        DataError: the pack, or the folder, cannot be read.
        PendingCellsError: the deadline passed.
    """
    cell = read_pack(file).manifest.cell
    choice, dataset = open_dataset(folder, registry, value_of(changes.get("dataset", {})))
    with reading(dataset, registry.plugins, deadline):
        samples = dataset.samples()
        seen = look_at(dataset, choice)
    by_hand = {table: valid_options(changes, table) for table in ("augmentation", "training")}
    by_hand["image"] = cell.image.model_dump(mode="json")
    recipe = [] if seen is None else choose_recipe(seen, by_hand)
    recipe = [chosen for chosen in recipe if chosen.option[0] in ("augmentation", "training")]
    if "learning_rate" not in by_hand["training"]:
        recipe.append(Choice(("training", "learning_rate"), LEARNING_RATE, "a quarter of that without trained weights"))
    read = [cell.labels.normalize(sample.label) for sample in samples]
    experiment: dict[str, Any] = {
        "name": name_after(folder, "finetuned-"),
        "question": f"How well does {cell.name or cell.variant_title} read these images, trained on with them?",
        "dataset": choice.model_dump(mode="python", exclude_unset=True),
        "image": cell.image.model_dump(mode="json"),
        "labels": {
            "normalize": cell.labels.normalize.model_dump(mode="json"),
            # The positions of some decoders are as many: with fewer, their weights would not fit.
            "max_length": max(cell.labels.max_length, *map(len, read), *(len(sample.label) for sample in samples)),
            **_charset(cell, charset, [sample.label for sample in samples]),
        },
        "training": {"start_from": str(file.resolve()), "freeze": list(freeze)},
        "grid": {
            "seeds": [0],
            **{axis: {part.label: {"use": part.use, **part.options}} for axis, part in _parts(cell).items()},
        },
    }
    for chosen in recipe:
        experiment = merge(experiment, chosen.as_changes())
    lines = [*describe_recipe(recipe), _describe_charset(cell, charset, read)]
    return experiment, dataset, lines


def _parts(cell: Cell) -> dict[str, Any]:
    return {axis: getattr(cell, axis) for axis in AXES}


def _charset(cell: Cell, policy: CharsetPolicy, labels: Sequence[str]) -> dict[str, str]:
    """Return the keys that give a recognizer its characters; a charset lists those of labels before normalizing."""
    known = cell.labels.charset
    if policy == "union":
        return {"extra_characters": known}
    if policy == "new":
        return {}
    normalize = cell.labels.normalize
    raw = sorted(set().union(*map(normalize.read, labels)) - set(known))
    return {"charset": known + "".join(each for each in raw if set(normalize.convert(each)) <= set(known))}


def _describe_charset(cell: Cell, policy: CharsetPolicy, texts: Sequence[str]) -> str:
    """Return which characters the recognizer knows, and how many of them it knew."""
    known, given = set(cell.labels.charset), set(Charset.of(texts).characters)
    number = {"new": len(given), "union": len(given | known), "keep": len(known)}[policy]
    return (
        f"[labels] --charset {policy}: {number:,} characters; the labels have {len(given):,}, of which the pack knows "
        f"{len(given & known):,}"
    )
