"""prepare: from an experiment to everything that is known before training. The first half of every command."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decoderbench.config.cell import Cell
from decoderbench.config.experiment import Experiment, load_experiment
from decoderbench.config.learning_notes import learning_notes, name_settings
from decoderbench.data.dataset import Dataset, Split
from decoderbench.data.train_limit import limited_sizes, merge_sizes
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.errors import ConfigError, DataError, InfeasibleError
from decoderbench.metrics import Definition
from decoderbench.planning.grid import plan_cells
from decoderbench.planning.inputs import Inputs, read_data
from decoderbench.planning.starts import Start, Starts, read_starts
from decoderbench.planning.tuning import ReadRecord, Tuning, plan_tuning
from decoderbench.registry.metric_definitions import definitions_with
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry

logger = logging.getLogger("decoderbench")


@dataclass(frozen=True)
class Prepared:
    """An experiment that is checked, its data that are audited, and its cells that are planned.

    Attributes:
        experiment: what was asked for.
        registry: the components to build it from.
        metrics: the built-in metrics and those of plugins, with the digests of their sources as they were loaded.
        data: samples and audit by the `data_key` of cells, in the order of the settings; images are opened when they
            are first needed.
        cells: every cell of the grid, in the order of the table; with tuning, undecided ones.
        tuning: what each row may choose; None without tuning.
        starts: the packs that cells start from.
        base_dir: where relative paths of the experiment start.
    """

    experiment: Experiment
    registry: Registry
    metrics: Mapping[str, Definition]
    data: Mapping[str, Inputs]
    cells: tuple[Cell, ...]
    tuning: Tuning | None = None
    starts: tuple[Start, ...] = ()
    base_dir: Path = Path()

    @property
    def trials(self) -> tuple[Cell, ...]:
        """The trials by which rows choose; none without tuning."""
        return self.tuning.trials if self.tuning else ()

    def decide(self, read: ReadRecord) -> tuple[Cell, ...]:
        """Return the cells of the grid with the values that rows have chosen by the records that `read` returns."""
        return self.tuning.decide(read) if self.tuning else self.cells

    @property
    def inputs(self) -> Inputs:
        """The data of an experiment whose cells share them; raises `ValueError` if settings have others."""
        (inputs,) = self.data.values()
        return inputs

    @property
    def deadline(self) -> Deadline:
        """When a run of these cells ends."""
        return next(iter(self.data.values())).deadline

    def settings_of(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the labels of the settings with these data; none if all cells share them."""
        if len(self.data) == 1:
            return ()
        return tuple(dict.fromkeys(cell.setting for cell in self.cells if self.data[cell.data_key] is inputs))

    def data_summary(self) -> list[str]:
        """Return what the audit found, as lines; for each of the data if settings have others."""
        return [
            line
            for inputs in self.data.values()
            for line in (
                *inputs.audit.summary(self.settings_of(inputs)),
                *(f"note     {note}" for note in inputs.audit.notes),
            )
        ]

    def data_notes(self) -> list[str]:
        """Return the footnotes on problems that were allowed, with the settings whose data have them."""
        return [
            f"{note} (setting {', '.join(settings)})" if (settings := self.settings_of(inputs)) else note
            for inputs in self.data.values()
            for note in inputs.audit.footnotes()
        ]

    def refuse_if_infeasible(self) -> None:
        """Raise `InfeasibleError` with the reasons if no cell can be trained."""
        if all(cell.infeasible for cell in self.cells):
            reasons = dict.fromkeys(f"  {cell.variant_title}: {cell.infeasible}" for cell in self.cells)
            raise InfeasibleError("no cell of the grid can be trained:\n" + "\n".join(reasons))


def prepare(
    experiment: Experiment | str | Path,
    *,
    registry: Registry | None = None,
    base_dir: str | Path | None = None,
    cache_dir: Path | None = None,
    dataset: Dataset | None = None,
    deadline: Deadline = NO_DEADLINE,
    audit_images: bool = False,
) -> Prepared:
    """Check an experiment, read and audit its labels, and plan its cells. Trains and writes nothing.

    Images are decoded if they are audited, or where the plan depends on their widths (`image.resize = "keep"`).

    Args:
        experiment: an experiment, or the path of its TOML file.
        registry: the components to choose from; default: all installed ones.
        base_dir: where relative paths of the experiment start; default: the file's folder, or the working directory.
        cache_dir: where decoded images are kept; default: `$DECODERBENCH_CACHE`, else `~/.cache/decoderbench`.
        dataset: the dataset of the experiment if its labels have been read already, so they are not read twice.
        deadline: when the reading of data, and a run of these cells, ends early; default: never.
        audit_images: decode and audit the images before anything is planned, as a run does, so that data which a run
            would refuse are refused at once.

    Raises:
        ConfigError: the experiment has mistakes; all of them are listed.
        PluginError: a plugin cannot be loaded.
        DataError: the data cannot be used; each problem is named.
        PendingCellsError: the deadline passed while data were read or images decoded.
    """
    if not isinstance(experiment, Experiment):
        base_dir = base_dir if base_dir is not None else Path(experiment).parent
        experiment = load_experiment(experiment)
    registry = registry or Registry(build_plugin_manager())
    if mistakes := registry.mistakes(experiment.as_given()):
        raise ConfigError([experiment.describe_mistake(*mistake) for mistake in mistakes])
    metrics = definitions_with(registry["metric"])  # now: a file may be edited while data are read
    settings = experiment.settings()
    base_dir = Path(base_dir or ".")
    starts = read_starts(settings, base_dir)
    data = read_data(
        settings,
        registry,
        base_dir=base_dir,
        cache_dir=cache_dir,
        datasets=() if dataset is None else (dataset,),
        deadline=deadline,
    )
    by_key: dict[str, Inputs] = {}
    data = {label: by_key.setdefault(inputs.key, inputs) for label, inputs in data.items()}

    def count() -> dict[str, Mapping[Split, int]]:
        limits = {label: changed.dataset.train_limit for label, changed in settings.items()}
        return {label: _sizes_of(experiment, label, limits[label], data[label]) for label in data}

    sizes = count()  # refuses limits above the data before images are decoded, which takes long
    if audit_images:
        for inputs in by_key.values():
            inputs.audit  # noqa: B018 - the first access decodes and audits them
        sizes = count()
    tuning = None
    if experiment.tuning is not None:
        tuning = plan_tuning(experiment, experiment.tuning, lambda changed: plan_cells(changed, registry, data, starts))
    cells = tuning.decide(lambda trial: None) if tuning else plan_cells(experiment, registry, data, starts)
    prepared = Prepared(experiment, registry, metrics, by_key, cells, tuning, _packs_of(starts, cells), base_dir)
    if not registry.plugins.trainers():
        for note in _notes_on_learning(prepared, sizes):
            logger.warning("note     %s", note)
    return prepared


def _packs_of(starts: Mapping[str, Starts], cells: Sequence[Cell]) -> tuple[Start, ...]:
    """Return the packs that cells start from, each once."""
    used = {cell.start.digest for cell in cells if cell.start is not None}
    packs = (start for given in starts.values() for start in given.packs)
    return tuple({start.point.digest: start for start in packs if start.point.digest in used}.values())


def _notes_on_learning(prepared: Prepared, sizes: Mapping[str, Mapping[Split, int]]) -> Iterator[str]:
    """Yield each note on the training of cells once, and on that of trials if no cell has it."""
    candidates = [candidate for row in prepared.tuning.rows for candidate in row] if prepared.tuning else []
    tested = [cell for candidate in candidates for cell in candidate.cells] or prepared.cells
    told: set[str] = set()
    for cells, whose in ((tested, ""), (prepared.trials, "tuning: ")):
        own = dict.fromkeys((cell.setting, cell.training) for cell in cells)
        found = [(setting, learning_notes(training, sizes[setting])) for setting, training in own]
        notes = [(setting, [note for note in notes if note not in told]) for setting, notes in found]
        yield from (f"{whose}{note}" for note in name_settings(notes, sizes.keys()))
        told.update(note for _, of_setting in notes for note in of_setting)


def _sizes_of(experiment: Experiment, label: str, limit: int | None, inputs: Inputs) -> Mapping[Split, int]:
    """Return the number of samples per split of a setting; with folds, the least of train and val, and all of test.

    Raises:
        DataError: its limit is above what there is.
    """
    audit = inputs.audit_so_far
    try:
        sizes = [limited_sizes(part.counts, limit) for part in audit.parts()]
        return merge_sizes(sizes)
    except DataError as error:
        setting = experiment.grid.settings.get(label)
        own = setting is not None and isinstance(setting.dataset, dict) and "train_limit" in setting.dataset
        place = ("grid", "settings", label, "dataset") if own else ("dataset",)
        raise DataError(experiment.describe_mistake((*place, "train_limit"), str(error))) from None
