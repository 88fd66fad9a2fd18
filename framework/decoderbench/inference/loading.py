"""Trained recognizers from a results folder or a pack, and packs from results folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from decoderbench.config.cell import Cell
from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import ConfigError, DecoderBenchError, UnknownNameError
from decoderbench.inference.choice import choose_model
from decoderbench.inference.confidence import Confidence
from decoderbench.inference.model_card import model_card
from decoderbench.inference.pack import Manifest, Pack, PackedComponent, is_pack, read_pack, write_pack
from decoderbench.inference.trained import TrainedRecognizer
from decoderbench.kinds import AXES
from decoderbench.records import pack_flags, unpack_flags
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training.devices import choose_device, start_device


@dataclass(frozen=True)
class Loaded:
    """A trained recognizer, and what is to be said of it.

    Attributes:
        recognizer: reads images.
        origin: lines that say which model it is and why, and in which arithmetic it reads.
    """

    recognizer: TrainedRecognizer
    origin: tuple[str, ...]


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
    registry = registry or Registry(build_plugin_manager())
    return load(source, registry, row=row, cell=cell, device=device, precision=precision).recognizer


def load(
    source: str | Path,
    registry: Registry,
    *,
    row: str | None = None,
    cell: str | None = None,
    device: torch.device | str | None = None,
    precision: str | None = None,
) -> Loaded:
    """Return a trained recognizer as `load_recognizer` does, and what is to be said of it."""
    where = choose_device(None if device is None else str(device))
    if is_pack(Path(source)):
        if row is not None or cell is not None:
            raise ConfigError([f"--row and --cell: choose among results, and {source} is one model; omit them"])
        pack = read_pack(Path(source))
        trained, weights, needed = pack.manifest.cell, pack.weights, pack.manifest.components
        log_prob = pack.manifest.validation_log_prob
        confidence = Confidence.of(log_prob, unpack_flags(pack.manifest.validation_right, len(log_prob)).tolist())
        reasons = [f"row        {trained.variant_title}", f"model      {trained.model_title}"]
    else:
        chosen = choose_model(source, row=row, cell=cell)
        trained, weights, needed = chosen.record.cell, chosen.read_weights(), ()
        confidence = Confidence.of_predictions(chosen.validation)
        reasons = [*chosen.reasons]
    _refuse_missing(trained, registry, needed)
    start_device(where)
    recognizer = TrainedRecognizer.build(trained, weights, confidence, registry, where, precision=precision)
    how = [f"reads      in {recognizer.arithmetic}", f"confidence {confidence.describe()}"]
    return Loaded(recognizer, (*reasons, *how, *_other_sources(trained, registry)))


def pack(
    source: str | Path, file: str | Path, registry: Registry, *, row: str | None = None, cell: str | None = None
) -> tuple[str, ...]:
    """Write a trained model of a results folder as a pack, which is read once before it is kept.

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
    trained = chosen.record.cell
    weights = chosen.read_weights()
    confidence = Confidence.of_predictions(chosen.validation)
    # What cannot be loaded is not packed.
    TrainedRecognizer.build(trained, weights, confidence, registry, torch.device("cpu"))
    components = [(axis, getattr(trained, axis).use) for axis in AXES]
    manifest = Manifest(
        cell=trained,
        components=tuple(
            PackedComponent(kind=kind, use=use, origin=registry[kind][use].origin) for kind, use in components
        ),
        experiment=trained.experiment,
        metrics=chosen.record.metrics,
        num_test=chosen.record.num_test,
        validation_log_prob=tuple(confidence.log_prob.tolist()),
        validation_right=pack_flags(confidence.right.tolist()),
        environment=chosen.record.environment,
    )
    write_pack(Path(file), Pack(manifest, weights, model_card(chosen)))
    return chosen.reasons


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


def _other_sources(cell: Cell, registry: Registry) -> Iterator[str]:
    """Yield a note on each component whose source code is not that of the training."""
    for axis in AXES:
        component = getattr(cell, axis)
        if registry[axis][component.use].source_digest() != component.source:
            yield f"note       {axis} {component.use!r} has other source code than when it was trained"
