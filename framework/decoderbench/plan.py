"""Experiment x Registry -> cells: shapes, costs and feasibility of the whole grid, found without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tabulate import tabulate
from torch import nn

from decoderbench.audit import Audit, audit
from decoderbench.cell import Cell, ResolvedComponent, ResolvedLabels
from decoderbench.contracts import Bridge, Decoder, Encoder, Rectifier
from decoderbench.cost import count_gmacs, count_parameters
from decoderbench.datasets import Dataset, Sample
from decoderbench.devices import torch_state_kept
from decoderbench.errors import ConfigError, DataError, DecoderBenchError, InfeasibleError
from decoderbench.experiment import AXES, ComponentChoice, Experiment
from decoderbench.images import compute_data_hash
from decoderbench.labels import Charset
from decoderbench.options import ComponentConfig
from decoderbench.recognizer import Recognizer
from decoderbench.registry import Registered, Registry, Shelf
from decoderbench.specs import ImageSpec

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Data:
    """The data of an experiment as the labels alone show it; no image is decoded."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    audit: Audit
    data_hash: str


@dataclass(frozen=True)
class _Part:
    """A variant of one axis: how the plan names it, and how to build it."""

    kind: str
    resolved: ResolvedComponent
    component: type[Any]
    config: ComponentConfig


@dataclass(frozen=True)
class _Size:
    """What the plan finds out about one combination."""

    frames: int | None = None
    param_count: float | None = None
    gmacs: float | None = None
    infeasible: str | None = None


def read_data(experiment: Experiment, registry: Registry, *, base_dir: Path, cache_dir: Path | None) -> Data:
    """Read and audit the labels.

    Raises:
        DataError: if they cannot be used, naming each problem.
    """
    registered, config = registry.datasets.configure(experiment.dataset)
    dataset = registered.component(config, base_dir)
    try:
        samples = tuple(dataset.samples())
        data_hash = compute_data_hash(dataset, experiment.image, cache_dir=cache_dir)
    except (DecoderBenchError, OSError):
        raise
    except Exception as error:
        raise DataError(f"dataset {registered.name!r} cannot be read: {type(error).__name__}: {error}") from error
    charset = Charset(experiment.labels.charset) if experiment.labels.charset is not None else None
    found = audit(
        samples,
        charset=charset,
        max_length=experiment.labels.max_length,
        allow=experiment.allow,
        notes=dataset.notes(),
    )
    return Data(dataset, samples, found, data_hash)


def plan_cells(experiment: Experiment, registry: Registry, data: Data) -> tuple[Cell, ...]:
    """Return every cell of the grid: seeds innermost, decoders next, so that cells of one row are neighbours.

    Raises:
        ConfigError: if a component refuses its options for another reason than the image's size.
    """
    grid = experiment.grid
    rectifiers = {label: _part(registry.rectifiers, label, choice) for label, choice in grid.rectifier.items()}
    encoders = {label: _part(registry.encoders, label, choice) for label, choice in grid.encoder.items()}
    bridges = {label: _part(registry.bridges, label, choice) for label, choice in grid.bridge.items()}
    decoders = {label: _part(registry.decoders, label, choice) for label, choice in grid.decoder.items()}
    image = ImageSpec(channels=experiment.image.channels, height=experiment.image.height, width=experiment.image.width)
    labels = ResolvedLabels(
        charset=data.audit.characters,
        max_length=data.audit.max_length,
        frames_needed=data.audit.frames_needed,
    )
    sizes = _Sizes(image, labels)
    cells = []
    for variant in grid.variants():
        rectifier, encoder = rectifiers[variant["rectifier"]], encoders[variant["encoder"]]
        bridge, decoder = bridges[variant["bridge"]], decoders[variant["decoder"]]
        size = sizes.of(rectifier, encoder, bridge, decoder)
        cells += [
            Cell(
                experiment=experiment.name,
                dataset=experiment.dataset.use,
                rectifier=rectifier.resolved,
                encoder=encoder.resolved,
                bridge=bridge.resolved,
                decoder=decoder.resolved,
                seed=seed,
                image=experiment.image,
                labels=labels,
                augmentation=experiment.augmentation,
                training=experiment.training,
                evaluation=experiment.evaluation,
                data_hash=data.data_hash,
                frames=size.frames,
                param_count=size.param_count,
                gmacs=size.gmacs,
                infeasible=size.infeasible,
            )
            for seed in grid.seeds
        ]
    if sizes.problems:
        raise ConfigError(sizes.problems)
    return tuple(cells)


def refuse_if_all_infeasible(cells: tuple[Cell, ...]) -> None:
    """Raise `InfeasibleError` with the reasons if no cell can be trained."""
    if all(cell.infeasible for cell in cells):
        reasons = dict.fromkeys(f"  {cell.variant_title}: {cell.infeasible}" for cell in cells)
        raise InfeasibleError("no cell of the grid can be trained:\n" + "\n".join(reasons))


def plan_table(cells: tuple[Cell, ...]) -> str:
    """Return the grid as a Markdown table, one row a variant, with the reasons of infeasible ones below."""
    seeds = sorted({cell.seed for cell in cells})
    variants = {cell.variant: cell for cell in cells}.values()
    axes = AXES[all(cell.rectifier.use == "none" for cell in cells) :]
    rows = [
        {
            **{axis: getattr(cell, axis).label for axis in axes},
            "T": cell.frames,
            "params (M)": cell.param_count,
            "GMACs": cell.gmacs,
            # Without a size a component raised while it was planned; running the cell tells why.
            "feasible": "no" if cell.infeasible else "yes" if cell.param_count is not None else "not known",
        }
        for cell in variants
    ]
    table = tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4g", missingval="n/a")
    reasons = [f"infeasible: {cell.variant_title}: {cell.infeasible}" for cell in variants if cell.infeasible]
    count = f"{len(cells)} cells: {len(rows)} variants, seeds {', '.join(map(str, seeds))}"
    return "\n".join([table, "", *reasons, count])


class _Sizes:
    """Builds each part on the meta device, where weights take no memory and a forward pass no time."""

    def __init__(self, image: ImageSpec, labels: ResolvedLabels) -> None:
        self.image, self.labels = image, labels.spec()
        self.problems: list[str] = []
        self._seeing: dict[tuple[str, str], tuple[Rectifier, Encoder] | str | None] = {}

    def of(self, rectifier: _Part, encoder: _Part, bridge: _Part, decoder: _Part) -> _Size:
        labels = rectifier.resolved.label, encoder.resolved.label
        if labels not in self._seeing:
            self._seeing[labels] = self._see(rectifier, encoder)
        seeing = self._seeing[labels]
        if isinstance(seeing, str):
            return _Size(infeasible=seeing)
        if seeing is None:
            return _Size()
        return self._rest(*seeing, bridge, decoder)

    def _see(self, rectifier: _Part, encoder: _Part) -> tuple[Rectifier, Encoder] | str | None:
        """Return what comes before the bridge, or why it is infeasible, or None where only training will tell."""
        part = rectifier
        try:
            built_rectifier: Rectifier = _on_meta(lambda: rectifier.component(rectifier.config, self.image))
            part = encoder
            built: Encoder = _on_meta(lambda: encoder.component(encoder.config, built_rectifier.image))
        except InfeasibleError as error:
            return str(error)
        except DecoderBenchError as error:
            self.problems.append(f"grid.{part.kind}.{part.resolved.label}: {error}")
            return None
        except Exception:  # noqa: BLE001 - a plugin may raise anything; its cells fail with it and the others run
            return None
        return built_rectifier, built

    def _rest(self, rectifier: Rectifier, encoder: Encoder, bridge: _Part, decoder: _Part) -> _Size:
        try:
            built_bridge: Bridge = _on_meta(lambda: bridge.component(bridge.config, encoder.features))
            memory = built_bridge.memory
            reason = decoder.component.infeasible(decoder.config, memory, self.labels)
            built: Decoder = _on_meta(lambda: decoder.component(decoder.config, memory, self.labels))
        except InfeasibleError as error:
            return _Size(infeasible=str(error))
        except Exception:  # noqa: BLE001 - as above
            return _Size()
        recognizer = Recognizer(rectifier, encoder, built_bridge, built)
        return _Size(
            frames=memory.length,
            param_count=count_parameters(recognizer),
            gmacs=count_gmacs(recognizer, self.image),
            infeasible=reason,
        )


def _part(shelf: Shelf[Any], label: str, choice: ComponentChoice) -> _Part:
    registered: Registered[Any]
    registered, config = shelf.configure(choice)
    resolved = ResolvedComponent(
        label=label,
        use=choice.use,
        options=config.model_dump(mode="json"),
        source=registered.source_digest(),
    )
    return _Part(shelf.kind, resolved, registered.component, config)


def _on_meta(build: Callable[[], Module]) -> Module:
    """Build on the meta device, or, for a constructor that looks at values, on the CPU and move it."""
    try:
        with torch_state_kept(), torch.device("meta"):
            return build()
    except DecoderBenchError:
        raise
    except Exception:  # noqa: BLE001 - whatever meta tensors made it raise
        with torch_state_kept():
            return build().to("meta")
