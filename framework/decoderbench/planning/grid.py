"""Experiment x Registry -> cells: shapes, costs and feasibility of the whole grid, found without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from decoderbench.config.cell import Cell, ResolvedComponent, ResolvedLabels, shown_axes
from decoderbench.config.experiment import ComponentChoice, Experiment
from decoderbench.data.audit import Audit, audit
from decoderbench.data.dataset import Dataset, Sample
from decoderbench.data.image_store import ImageStore, compute_data_hash, open_store
from decoderbench.errors import ConfigError, DataError, DecoderBenchError, InfeasibleError
from decoderbench.identity import identity_of
from decoderbench.labels import Charset
from decoderbench.planning.meta_probe import Bucket, Part, Sizes
from decoderbench.registry.registry import Registered, Registry, Shelf
from decoderbench.specs import ImageSpec


@dataclass(frozen=True)
class Data:
    """The data of an experiment as the labels alone show it; no image is decoded."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    audit: Audit
    data_hash: str


def read_data(experiment: Experiment, registry: Registry, *, base_dir: Path, cache_dir: Path | None) -> Data:
    """Read and audit the labels.

    Raises:
        DataError: if they cannot be used, naming each problem.
    """
    registered, config = registry.datasets.configure(experiment.dataset)
    try:
        dataset = registered.component(config, base_dir)
        samples = tuple(dataset.samples())
        data_hash = compute_data_hash(dataset, experiment.image, cache_dir=cache_dir)
    except (DecoderBenchError, OSError):
        raise
    except Exception as error:
        raise DataError(f"dataset {registered.name!r} cannot be read: {type(error).__name__}: {error}") from error
    for sample in samples:
        if not (isinstance(sample, Sample) and isinstance(sample.key, str) and isinstance(sample.label, str)):
            raise DataError(
                f"dataset {registered.name!r} lists {sample!r:.80}; list Sample(key, label, split), key and label as "
                f"str; decoderbench check finds what else is wrong"
            )
    charset = Charset(experiment.labels.charset) if experiment.labels.charset is not None else None
    found = audit(
        samples,
        charset=charset,
        max_length=experiment.labels.max_length,
        normalize=experiment.labels.normalize,
        allow=experiment.allow,
        notes=dataset.notes(),
    )
    return Data(dataset, samples, found, data_hash)


def read_buckets(
    experiment: Experiment,
    data: Data,
    *,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Bucket, ...]:
    """Return the images by width where widths vary, else nothing. To know the widths, images are decoded and cached.

    Raises:
        DataError: images cannot be decoded, or show problems that are not allowed.
    """
    if experiment.image.resize != "keep":
        return ()
    store = open_images(experiment, data, cache_dir=cache_dir, progress=progress)
    found = data.audit.with_images(store)
    needed = found.frames_needed_of(store)
    return tuple(
        Bucket(width, int(needed[store.bucket_of == bucket].max(initial=0)))
        for bucket, width in enumerate(store.bucket_widths)
    )


def open_images(
    experiment: Experiment,
    data: Data,
    *,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageStore:
    """Open the cache of an experiment's images, building it first if need be; raise `DataError` if it cannot be."""
    return open_store(
        data.dataset,
        data.samples,
        experiment.image,
        cache_dir=cache_dir,
        allow_unreadable="unreadable_image" in experiment.allow,
        progress=progress,
    )


def plan_cells(
    experiment: Experiment, registry: Registry, data: Data, buckets: Sequence[Bucket] = ()
) -> tuple[Cell, ...]:
    """Return every cell of the grid: seeds innermost, decoders next, so that cells of one row are neighbors.

    Where widths vary, `buckets` is what `read_buckets` returned.

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
        normalize=experiment.labels.normalize,
        digest=data.audit.digest,
    )
    sizes = Sizes(image, labels.spec(), buckets)
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
                name=grid.name_of(variant),
                frames=size.frames,
                param_count=size.param_count,
                gmacs=size.gmacs,
                infeasible=size.infeasible,
            )
            for seed in grid.seeds
        ]
    if sizes.problems:
        raise ConfigError(list(dict.fromkeys(sizes.problems)))
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
    axes = shown_axes(cells)
    named = any(cell.name for cell in variants)
    rows = [
        {
            **({"name": cell.name} if named else {}),
            **{axis: getattr(cell, axis).label for axis in axes},
            "T": cell.frames,
            "params (M)": cell.param_count,
            "GMACs": cell.gmacs,
            # Without a size a component raised while it was planned; running the cell tells why.
            "feasible": "no" if cell.infeasible else "yes" if cell.param_count is not None else "not known",
        }
        for cell in variants
    ]
    table = tabulate(
        rows,
        headers="keys",
        tablefmt="github",
        floatfmt=".4g",
        missingval="n/a",
        disable_numparse=list(range(named + len(axes))),  # a label such as 007 is a text
    )
    reasons = [f"infeasible: {cell.variant_title}: {cell.infeasible}" for cell in variants if cell.infeasible]
    count = f"{len(cells)} cells: {len(rows)} variants, seeds {', '.join(map(str, seeds))}"
    return "\n".join([table, "", *reasons, count])


def _part(shelf: Shelf[Any], label: str, choice: ComponentChoice) -> Part:
    registered: Registered[Any]
    registered, config = shelf.configure(choice)
    resolved = ResolvedComponent(
        label=label,
        use=choice.use,
        options=config.model_dump(mode="json"),
        decisive=identity_of(config),
        source=registered.source_digest(),
    )
    return Part(shelf.kind, resolved, registered.component, config)
