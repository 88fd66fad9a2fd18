"""Experiment x Registry -> cells: shapes, costs and feasibility of the whole grid, found without training."""

from __future__ import annotations

from tabulate import tabulate

from decoderbench.config.cell import Cell, ResolvedComponent, ResolvedLabels, shown_axes
from decoderbench.config.experiment import ComponentChoice, Experiment
from decoderbench.errors import ConfigError
from decoderbench.identity import identity_of
from decoderbench.kinds import AXES
from decoderbench.planning.inputs import Inputs
from decoderbench.planning.meta_probe import MetaProbe, Part
from decoderbench.registry.registry import Registry
from decoderbench.specs import ImageSpec


def plan_cells(experiment: Experiment, registry: Registry, inputs: Inputs) -> tuple[Cell, ...]:
    """Return every cell of the grid: seeds innermost, decoders next, so the cells of one row are adjacent.

    Raises:
        ConfigError: a component refuses its options for another reason than the size of its inputs.
        DataError: widths vary, and images have problems that are not allowed.
    """
    grid = experiment.grid
    parts = {
        axis: {label: _resolve(registry, axis, label, choice) for label, choice in getattr(grid, axis).items()}
        for axis in AXES
    }
    image = ImageSpec(channels=experiment.image.channels, height=experiment.image.height, width=experiment.image.width)
    found = inputs.label_audit
    labels = ResolvedLabels(
        charset=found.characters,
        max_length=found.max_length,
        frames_needed=found.frames_needed,
        normalize=experiment.labels.normalize,
        digest=found.digest,
    )
    trainers = registry.plugins.trainers()
    probe = MetaProbe(image, labels.spec(), batch_size=experiment.training.batch_size, buckets=inputs.buckets())
    cells = []
    for variant in grid.variants():
        chosen = {axis: parts[axis][variant[axis]] for axis in AXES}
        size = probe.measure(**chosen)
        cells += [
            Cell(
                experiment=experiment.name,
                dataset=experiment.dataset.use,
                **{axis: part.resolved for axis, part in chosen.items()},
                seed=seed,
                image=experiment.image,
                labels=labels,
                augmentation=experiment.augmentation,
                training=experiment.training,
                evaluation=experiment.evaluation,
                data_hash=inputs.data_hash,
                trainers=trainers,
                name=grid.name_of(variant),
                frames=size.frames,
                num_parameters=size.num_parameters,
                gmacs=size.gmacs,
                infeasible=size.infeasible,
            )
            for seed in grid.seeds
        ]
    if probe.mistakes:
        raise ConfigError([experiment.describe_mistake(*mistake) for mistake in dict.fromkeys(probe.mistakes)])
    return tuple(cells)


def plan_table(cells: tuple[Cell, ...]) -> str:
    """Return the grid as a Markdown table, one row per variant, with the reasons of infeasible ones below."""
    seeds = sorted({cell.seed for cell in cells})
    variants = {cell.variant: cell for cell in cells}.values()
    axes = shown_axes(cells)
    named = any(cell.name for cell in variants)
    rows = [
        {
            **({"name": cell.name} if named else {}),
            **{axis: getattr(cell, axis).label for axis in axes},
            "T": cell.frames,
            "params (M)": None if cell.num_parameters is None else cell.num_parameters / 1e6,
            "GMACs": cell.gmacs,
            # A component without a size raised while it was planned; running the cell shows why.
            "feasible": "no" if cell.infeasible else "yes" if cell.num_parameters is not None else "not known",
        }
        for cell in variants
    ]
    table = tabulate(
        rows,
        headers="keys",
        tablefmt="github",
        floatfmt=".4g",
        missingval="n/a",
        disable_numparse=list(range(named + len(axes))),  # a label such as 007 is text
    )
    reasons = [f"infeasible: {cell.variant_title}: {cell.infeasible}" for cell in variants if cell.infeasible]
    count = f"{len(cells)} cells: {len(rows)} variants, seeds {', '.join(map(str, seeds))}"
    return "\n".join([table, "", *reasons, count])


def _resolve(registry: Registry, kind: str, label: str, choice: ComponentChoice) -> Part:
    registered, config = registry[kind].configure(choice)
    resolved = ResolvedComponent(
        label=label,
        use=choice.use,
        options=config.model_dump(mode="json"),
        decisive=identity_of(config),
        source=registered.source_digest(),
    )
    return Part(kind, resolved, registered.component, config)
