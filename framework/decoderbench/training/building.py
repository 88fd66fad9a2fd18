"""Building the recognizer of a cell: each stage with first weights of its own seed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from decoderbench.component_options import without_first_weights
from decoderbench.config.cell import Cell
from decoderbench.config.grid import ComponentChoice
from decoderbench.identity import not_decisive, sort_keys
from decoderbench.model.recognizer import Recognizer
from decoderbench.registry.registry import Registry
from decoderbench.seeds import derive_seed
from decoderbench.training.devices import autocast_dtype


def build_recognizer(
    cell: Cell,
    registry: Registry,
    device: torch.device,
    *,
    precision: str | None = None,
    loaded: Collection[str] = (),
) -> Recognizer:
    """Build the recognizer of a cell, each stage initialized from a seed of its own.

    One encoder starts from the same weights under every decoder of the same seed.

    Args:
        cell: says what it consists of.
        registry: the components to build it from.
        device: where its weights are.
        precision: as `TrainingOptions.precision`; by default that of the cell.
        loaded: stages into which trained weights are loaded, so that published ones are not.
    """

    def build(kind: str, *specs: object) -> Any:
        component = getattr(cell, kind)
        registered, config = registry[kind].configure(ComponentChoice(use=component.use, **component.options))
        config = without_first_weights(config) if kind in loaded else config
        ignored = not_decisive(registered.config_class)
        decisive = sorted((name, sort_keys(value)) for name, value in component.options.items() if name not in ignored)
        torch.manual_seed(derive_seed(cell.training_seed, kind, component.use, repr(decisive)))
        return registered.component(config, *specs)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        rectifier = build("rectifier", cell.image_spec())
        encoder = build("encoder", rectifier.image)
        bridge = build("bridge", encoder.features)
        decoder = build("decoder", bridge.memory, cell.labels.spec())
    dtype = autocast_dtype(device, precision or cell.training.precision)
    return Recognizer(rectifier, encoder, bridge, decoder, dtype=dtype).to(device)
