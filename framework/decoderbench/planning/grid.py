"""Experiment x Registry -> cells: shapes, costs and feasibility of the whole grid, found without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tabulate import tabulate

from decoderbench.config.cell import Cell, ResolvedComponent, ResolvedLabels, shown_axes
from decoderbench.config.experiment import Experiment
from decoderbench.config.grid import ComponentChoice
from decoderbench.config.mistakes import Location
from decoderbench.errors import ConfigError
from decoderbench.identity import identity_of
from decoderbench.kinds import AXES, VARIANT
from decoderbench.planning.inputs import Inputs
from decoderbench.planning.meta_probe import MetaProbe, Part
from decoderbench.planning.starts import Starts
from decoderbench.registry.registry import Registry
from decoderbench.specs import ImageSpec


def plan_cells(
    experiment: Experiment,
    registry: Registry,
    data: Mapping[str, Inputs],
    starts: Mapping[str, Starts] = MappingProxyType({}),
) -> tuple[Cell, ...]:
    """Return every cell of the grid: seeds innermost, then folds, then settings, so the cells of a row are adjacent.

    Args:
        experiment: what was asked for.
        registry: the components.
        data: the data of each setting, by its label.
        starts: the packs that cells start from, by `training.start_from`.

    Raises:
        ConfigError: a component refuses its options for another reason than the size of its inputs, or two settings
            say the same.
        DataError: widths vary, and images have problems that are not allowed.
    """
    grid, settings = experiment.grid, experiment.settings()
    parts = {
        axis: {label: _resolve(registry, axis, label, choice) for label, choice in getattr(grid, axis).items()}
        for axis in AXES
    }
    trainers = registry.plugins.trainers()
    probes = _probes(settings, data)
    cells = []
    for variant in grid.variants():
        chosen = {axis: parts[axis][variant[axis]] for axis in AXES}
        changed, inputs = settings[variant["setting"]], data[variant["setting"]]
        for fold in inputs.folds:
            probe, labels = probes[variant["setting"], fold]
            size = probe.measure(**chosen)
            resolved = {axis: part.resolved for axis, part in chosen.items()}
            given = changed.training.start_from
            start, why_not = (None, None) if given is None else starts[given].choose(resolved)
            cells += [
                Cell(
                    experiment=experiment.name,
                    dataset=changed.dataset.use,
                    **resolved,
                    seed=seed,
                    image=changed.image,
                    labels=labels,
                    augmentation=changed.augmentation,
                    training=changed.training,
                    evaluation=changed.evaluation,
                    data_hash=inputs.data_hash,
                    dataset_hash=inputs.dataset_hash,
                    bucket_widths=tuple(bucket.width for bucket in probe.buckets),
                    trainers=trainers,
                    train_limit=changed.dataset.train_limit,
                    start=start,
                    fold=fold,
                    folds=changed.dataset.folds,
                    setting=variant["setting"],
                    name=grid.name_of(variant),
                    frames=size.frames,
                    num_parameters=size.num_parameters,
                    num_training_only_parameters=size.num_training_only_parameters,
                    frames_per_character=size.frames_per_character,
                    gmacs=size.gmacs,
                    infeasible=size.infeasible or why_not,
                )
                for seed in grid.seeds
            ]
    mistakes = [mistake for probe, _ in probes.values() for mistake in probe.mistakes]
    mistakes += _settings_that_say_the_same(cells)
    if mistakes:
        raise ConfigError([experiment.describe_mistake(*mistake) for mistake in dict.fromkeys(mistakes)])
    return tuple(cells)


def _probes(
    settings: Mapping[str, Experiment], data: Mapping[str, Inputs]
) -> dict[tuple[str, int | None], tuple[MetaProbe, ResolvedLabels]]:
    """Return probe and labels of each setting and fold: one probe for equal sizes of images, labels, batches, beams."""
    probes: dict[object, MetaProbe] = {}
    found = {}
    for label, experiment in settings.items():
        options, batch_size = experiment.image, experiment.training.batch_size
        beam_size = experiment.evaluation.beam_size
        image = ImageSpec(channels=options.channels, height=options.height, width=options.width)
        buckets = data[label].buckets()
        for fold in data[label].folds:
            resolved = data[label].labels_of(fold)
            labels = resolved.spec()
            probe = MetaProbe(image, labels, batch_size=batch_size, beam_size=beam_size, buckets=buckets)
            known = probes.setdefault((image, labels, batch_size, beam_size, buckets), probe)
            found[label, fold] = known, resolved
    return found


def _settings_that_say_the_same(cells: Sequence[Cell]) -> Iterator[tuple[Location, str]]:
    """Yield the place of each setting whose cells are those of one before, and the rule."""
    first: dict[tuple[str, ...], str] = {}
    for cell in cells:
        other = first.setdefault((*cell.variant[: len(AXES)], cell.cell_id), cell.setting)
        if other != cell.setting:
            rule = f"says the same as the setting {other!r}, as far as results go; change or remove one of them"
            yield ("grid", "settings", cell.setting), rule


def plan_table(cells: Sequence[Cell]) -> str:
    """Return the grid as a Markdown table, one row per variant, with the reasons of infeasible ones below."""
    seeds = sorted({cell.seed for cell in cells})
    # Of folds that differ, an infeasible one decides.
    variants = {cell.variant: cell for cell in sorted(cells, key=lambda cell: bool(cell.infeasible))}
    order = dict.fromkeys(cell.variant for cell in cells)
    shown = [variants[variant] for variant in order]
    axes = shown_axes(cells)
    named = any(cell.name for cell in shown)
    rows = [
        {
            **({"name": cell.name} if named else {}),
            **{axis: label for axis, label in zip(VARIANT, cell.variant, strict=True) if axis in axes},
            "T": cell.frames,
            "params (M)": None if cell.num_parameters is None else cell.num_parameters / 1e6,
            "GMACs": cell.gmacs,
            # A component without a size raised while it was planned; running the cell shows why.
            "feasible": "no" if cell.infeasible else "yes" if cell.num_parameters is not None else "not known",
        }
        for cell in shown
    ]
    table = tabulate(
        rows,
        headers="keys",
        tablefmt="github",
        floatfmt=".4g",
        missingval="n/a",
        disable_numparse=list(range(named + len(axes))),  # a label such as 007 is text
    )
    reasons = [f"infeasible: {cell.variant_title}: {cell.infeasible}" for cell in shown if cell.infeasible]
    folds = dict.fromkeys(cell.folds for cell in cells)
    each = f", {' or '.join(str(number or 1) for number in folds)} folds" if any(folds) else ""
    numbers = f"{len(cells)} cell{'s' * (len(cells) != 1)}: {len(rows)} variant{'s' * (len(rows) != 1)}"
    count = f"{numbers}, seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}{each}"
    return "\n".join([table, "", *reasons, *describe_data_of_settings(cells), count])


def describe_data_of_settings(cells: Sequence[Cell]) -> list[str]:
    """Return a line per set of images and labels with the settings that use it; none if all cells share one."""
    settings: dict[str, dict[str, None]] = {}
    for cell in cells:
        settings.setdefault(cell.data_key, {})[cell.setting] = None
    if len(settings) < 2:
        return []
    return [f"images and labels {key}: settings {', '.join(labels)}" for key, labels in settings.items()]


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
