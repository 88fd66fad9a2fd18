"""Trained recognizers from a results folder or a pack, and packs from results folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from decoderbench.analysis.kept_images import read_images
from decoderbench.config.cell import Cell
from decoderbench.config.experiment import to_name
from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import ConfigError, DecoderBenchError, UnknownNameError
from decoderbench.inference.choice import Chosen, best_of_each_row, choose_model
from decoderbench.inference.confidence import OF_FOLDS, Confidence
from decoderbench.inference.model_card import model_card
from decoderbench.inference.trained import TrainedRecognizer
from decoderbench.kinds import AXES
from decoderbench.records.pack import Manifest, Pack, PackedComponent, is_pack, read_pack, write_pack
from decoderbench.records.schema import RunRecord, pack_flags, unpack_flags
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.sources import package_digest
from decoderbench.training.devices import choose_device, start_device

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class StoredModel:
    """A trained model as a results folder or a pack has it.

    Attributes:
        cell: the cell that was trained.
        read_weights: returns the bytes of its weights.
        confidence: what validation images say of its log p.
        origin: lines that say which model it is, and why.
        components: of a pack, what it needs and where that came from.
        validated_on: keys and labels of its validation images, which tell that images are those of its training.
        environment: what it was trained with.
    """

    cell: Cell
    read_weights: Callable[[], bytes]
    confidence: Confidence
    origin: tuple[str, ...] = ()
    components: tuple[PackedComponent, ...] = ()
    validated_on: frozenset[tuple[str, str]] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_results(cls, chosen: Chosen) -> StoredModel:
        """Return a model of a results folder."""
        confidence, seen = Confidence.of_predictions(chosen.validation), frozenset[tuple[str, str]]()
        if chosen.validation is not None:
            seen = frozenset(zip(chosen.validation["sample"], chosen.validation["reference"], strict=True))
        record = chosen.record
        return cls(
            record.cell,
            chosen.read_weights,
            confidence,
            chosen.reasons,
            validated_on=seen,
            environment=record.environment,
        )

    @classmethod
    def of_pack(cls, pack: Pack) -> StoredModel:
        """Return the model of a pack."""
        manifest, weights = pack.manifest, pack.weights
        log_prob = manifest.validation_log_prob
        cell = manifest.cell
        right = unpack_flags(manifest.validation_right, len(log_prob)).tolist()
        is_refit = cell.purpose == "refit"
        confidence = Confidence.of(log_prob, right, OF_FOLDS) if is_refit else Confidence.of(log_prob, right)
        of_all = "trained on all images; confidence by the models of the folds, which were not"
        model = of_all if is_refit else cell.model_title
        origin = f"row        {cell.variant_title}", f"model      {model}"
        return cls(cell, lambda: weights, confidence, origin, manifest.components, environment=manifest.environment)

    def build(self, registry: Registry, device: torch.device, precision: str | None = None) -> TrainedRecognizer:
        """Return the recognizer with its weights.

        Raises:
            UnknownNameError: a component is not installed.
            DataError: the weights are missing, damaged, or not those of the components that are installed.
        """
        _refuse_missing(self.cell, registry, self.components)
        weights = self.read_weights()
        return TrainedRecognizer.build(self.cell, weights, self.confidence, registry, device, precision=precision)

    def changed_sources(self, registry: Registry) -> list[str]:
        """Return a sentence on each component, and on decoderbench, whose source code is not that of the training."""
        own = self.environment.get("sources", package_digest())
        framework = ["decoderbench has other source code than when it was trained"] if own != package_digest() else []
        return framework + [
            f"{axis} {component.use!r} has other source code than when it was trained"
            for axis in AXES
            for component in [getattr(self.cell, axis)]
            if registry[axis][component.use].source_digest() != component.source
        ]


def load_recognizer(
    source: str | Path,
    *,
    row: str | None = None,
    cell: str | None = None,
    device: torch.device | str | None = None,
    precision: str | None = None,
    registry: Registry | None = None,
) -> TrainedRecognizer:
    """Return a trained recognizer, which reads images.

    Example: `load_recognizer("reader.zip").transcribe(["a.png", "b.png"])`

    Args:
        source: a pack, or a results folder.
        row: of a results folder, the title or name of a row; by default the row that is best on validation images.
        cell: of a results folder, the id of one cell, or its beginning.
        device: cpu, cuda or cuda:N; by default CUDA if there is a device.
        precision: auto, float32 or bfloat16; by default that of the training.
        registry: the components to build it from; by default all installed ones.

    Raises:
        ConfigError: no such row, cell or device.
        DataError: the pack or the folder cannot be read, or has no such model.
        UnknownNameError: a component is not installed.
    """
    where = choose_device(None if device is None else str(device))
    stored = find_model(source, row=row, cell=cell)
    registry = registry or Registry(build_plugin_manager())
    start_device(where)
    reader = stored.build(registry, where, precision)
    for note in stored.changed_sources(registry):
        logger.warning("%s: %s", source, note)
    return reader


def find_model(source: str | Path, *, row: str | None = None, cell: str | None = None) -> StoredModel:
    """Return the model that `load_recognizer` would load."""
    if not is_pack(Path(source)):
        return StoredModel.of_results(choose_model(source, row=row, cell=cell))
    if row is not None or cell is not None:
        raise ConfigError([f"--row and --cell: choose among results, and {source} is one model; omit them"])
    return StoredModel.of_pack(read_pack(Path(source)))


def pack(
    source: str | Path, file: str | Path, registry: Registry, *, row: str | None = None, cell: str | None = None
) -> tuple[str, ...]:
    """Write a trained model of a results folder as a pack; one that cannot be loaded is not written.

    Args:
        source: the results folder.
        file: the pack to write.
        registry: the components that it needs.
        row: as `load_recognizer` takes it.
        cell: likewise.

    Returns:
        lines that say which model it is and why.
    """
    chosen = choose_model(source, row=row, cell=cell)
    stored = StoredModel.of_results(chosen)
    write_model(file, stored, chosen.record, model_card(chosen), registry)
    return (*chosen.reasons, *(f"note       {note}" for note in stored.changed_sources(registry)))


def write_model(file: str | Path, stored: StoredModel, record: RunRecord, card: str, registry: Registry) -> None:
    """Write a trained model as a pack, if it can be loaded.

    Args:
        file: the pack to write.
        stored: the model.
        record: its record; one of a refit has no metrics that say anything, and the pack has none.
        card: its model card.
        registry: the components that it needs.
    """
    stored.build(registry, torch.device("cpu"))
    components = [(axis, getattr(stored.cell, axis).use) for axis in AXES]
    tested = stored.cell.purpose == "test"
    manifest = Manifest(
        cell=stored.cell,
        components=tuple(
            PackedComponent(kind=kind, use=use, origin=registry[kind][use].origin) for kind, use in components
        ),
        experiment=stored.cell.experiment,
        metrics=record.metrics if tested else {},
        num_test=record.num_test if tested else None,
        validation_log_prob=tuple(stored.confidence.log_prob.tolist()),
        validation_right=pack_flags(stored.confidence.right.tolist()),
        environment=record.environment,
    )
    write_pack(Path(file), Pack(manifest, stored.read_weights(), card))


def pack_every_row(
    source: str | Path, folder: str | Path, registry: Registry
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Write for each row its model that is best on validation images, as a pack named after the row.

    Rows without a finished model that has validation images are left out, with a warning.

    Args:
        source: the results folder.
        folder: where the packs are written; made if it is missing.
        registry: the components that they need.

    Yields:
        each pack, and lines that say which model it is and why.

    Raises:
        ConfigError: two rows have names that give the same file.
    """
    best = best_of_each_row(source)
    titles = best[0].analysis.samples.titles
    rows = {titles[chosen.row]: chosen for chosen in best}
    for title in titles:
        if title not in rows:
            logger.warning("no pack of %s: none of its models is done and has read validation images", title)
    files = {title: Path(folder) / f"{to_name(chosen.record.cell.name or title)}.zip" for title, chosen in rows.items()}
    for title, file in files.items():
        if same := [other for other in files if other != title and files[other] == file]:
            raise ConfigError([f"--every-row: {title} and {same[0]} would both be {file}; name the rows in grid.names"])
    for title, file in files.items():
        yield file, pack(source, file, registry, row=title)


def kept_images(source: str | Path, cell: Cell) -> list[Image.Image]:
    """Return the test images that a results folder keeps for its page, if it was trained with those of the cell."""
    if is_pack(Path(source)):
        return []
    kept = read_images(Path(source))
    pictures = (image for (data_hash, _), image in kept.items() if data_hash == cell.data_hash)
    return [Image.open(BytesIO(picture.png)) for picture in pictures]


def _refuse_missing(cell: Cell, registry: Registry, packed: tuple[PackedComponent, ...]) -> None:
    """Raise if a component that a cell needs is not registered, or does not know its options."""
    origins = {(component.kind, component.use): component.origin for component in packed}
    for axis in AXES:
        component = getattr(cell, axis)
        origin = origins.get((axis, component.use))
        packed_with = f"; it came from {origin}: install that, or load its file with -p" if origin else ""
        if component.use not in registry[axis]:
            raise UnknownNameError(f"{registry[axis].explain_unknown(component.use)}{packed_with}")
        _, mistakes = registry[axis].try_to_configure(ComponentChoice(use=component.use, **component.options))
        if mistakes:
            texts = "; ".join(f"{'.'.join(map(str, place))} {text}" for place, text in mistakes)
            raise DecoderBenchError(f"{cell.title}: {texts}{packed_with}")
