"""CellWork: everything that a process needs to run cells of an experiment. It can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from decoderbench.conditions import SOURCE_OF_DATASET
from decoderbench.config.cell import Cell
from decoderbench.deadline import Deadline
from decoderbench.errors import PendingCellsError
from decoderbench.execution.cell_runner import CellRunner, describe_wrappers
from decoderbench.execution.death import Death, outcome_of_death
from decoderbench.execution.jobs import BASE_BYTES
from decoderbench.execution.output import CellOutput
from decoderbench.execution.resident_data import DataSource, ResidentData
from decoderbench.kinds import KINDS
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Status, same_result
from decoderbench.registry.executor import CellOutcome, CellTask
from decoderbench.registry.hook_calls import TRAINER
from decoderbench.registry.hookspecs import PROJECT
from decoderbench.registry.plugin_manager import Plugins
from decoderbench.registry.plugin_sources import PluginSources
from decoderbench.registry.registry import Registry
from decoderbench.sources import package_digest
from decoderbench.training import trainer
from decoderbench.training.devices import start_device
from decoderbench.training.provenance import describe_environment


@dataclass(frozen=True)
class CellWork:
    """What cells need, as `decoderbench.registry.executor.CellWork` documents it.

    The registry and the opened images are those of the process that planned the cells. They are not pickled: another
    process loads the same plugins and maps the same images.

    Attributes:
        results: absolute path of the results folder.
        plugins: where the plugins come from.
        data: images and labels by the `data_key` of cells.
        device: as `cpu` or `cuda:0`.
        threads: threads that train a cell; None for those of the host.
        locking: whether cells are locked, so that several runs may share the folder.
        checkpoint_every: seconds of training between two checkpoints of a cell; None for no checkpoints.
        memory: an estimate of the bytes that a process needs to train any of the cells.
        package: digest of the sources of decoderbench that planned the cells.
        registry: the components of this process; None in another one.
    """

    results: Path
    plugins: PluginSources
    data: Mapping[str, DataSource]
    device: str
    threads: int | None
    locking: bool = True
    checkpoint_every: float | None = None
    memory: int = BASE_BYTES
    package: str = field(default_factory=package_digest)
    registry: Registry | None = None

    def __getstate__(self) -> dict[str, Any]:
        closed = {key: source.closed() for key, source in self.data.items()}
        return vars(self) | {"registry": None, "data": closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def describe(self) -> dict[str, str]:
        """Return machine, versions, sources, threads and the plugins around `run_cell`, as this process sees them."""
        registry, sources = self.loaded(), dict[str, str]()
        for dataset in sorted({source.dataset for source in self.data.values()}):
            sources[f"{SOURCE_OF_DATASET}{dataset}"] = ""
            with suppress(OSError, TypeError):  # of a class that no file defines, as in a notebook
                sources[f"{SOURCE_OF_DATASET}{dataset}"] = registry["dataset"][dataset].source_digest()
        if len(sources) == 1:
            sources = {"dataset_source": next(iter(sources.values()))}
        return describe_environment(torch.device(self.device)) | {
            **sources,
            "wrappers": describe_wrappers(registry),
        }

    def open(self, stopping: Callable[[], str] | None = None) -> CellRunner:
        """Return what runs cells in this process. Starts CUDA if that is the device.

        Raises:
            PendingCellsError: this process has loaded other sources of decoderbench, or the only images are gone.
        """
        if self.package != package_digest():
            raise PendingCellsError("the files of decoderbench have changed since the run started")
        registry = self.loaded()
        registry.plugins.add(trainer, TRAINER)
        device = torch.device(self.device)
        if self.registry is None and self.threads is not None:
            torch.set_num_threads(self.threads)
        start_device(device)  # after the images were decoded by forked processes
        data = ResidentData(self.data, device)
        if len(self.data) == 1:
            data.of(*self.data)
        return CellRunner(
            registry,
            data,
            self.directory(),
            Deadline(stopping=stopping or str),
            checkpoint_every=self.checkpoint_every,
        )

    def loaded(self) -> Registry:
        """Return the components of this process; another one than that of the run loads them."""
        return self.registry or Registry(Plugins.load(self.plugins))

    def on(self, device: str) -> CellWork:
        """Return the same work on another device."""
        return replace(self, device=device)

    def moved(self, *, results: Path, images: Mapping[Path, Path], registry: Registry) -> CellWork:
        """Return the same work on another machine.

        Args:
            results: the results folder there.
            images: where each folder of decoded images is there.
            registry: the components of this process.
        """
        data = {key: replace(source.closed(), images=images[source.images]) for key, source in self.data.items()}
        return replace(self, results=results, data=data, registry=registry, plugins=registry.plugins.sources)

    def directory(self) -> ResultsDirectory:
        """Return the results folder."""
        return ResultsDirectory(self.results, locking=self.locking)

    def output_of(self, cell: Cell) -> CellOutput:
        """Return what keeps the output of a cell's process; that of an attempt before is continued."""
        return CellOutput(self.directory().cell_directory(cell) / "output.txt")

    def publish_failure(self, task: CellTask, status: Status, reason: str, details: str = "") -> CellOutcome:
        """Publish the record of a cell whose process has died, unless it had published one or another took over.

        Where a dead process holds its cell for another minute, the outcome is `held`, and whoever gets the cell
        publishes the record.
        """
        cell, directory, death = task.cell, self.directory(), Death(status, reason, details)
        with directory.lease(cell, timeout=1.0) as leased:
            if not leased:
                death.leave(directory, task)
                return CellOutcome(cell, held=True)
            found = directory.read(cell)
            if found is not None and not same_result(found, task.superseded):
                return CellOutcome(cell, found, new=True)
            return outcome_of_death(directory, task, death)


def objects_of(plugins: Plugins) -> list[str]:
    """Return the plugins that cells may need and that no other process can load: objects that were registered."""
    needed = {"run_cell", *(f"register_{kind}s" for kind in KINDS)}
    names = []
    for name, plugin in plugins.manager.list_name_plugin():
        hooks = {hook.name for hook in plugins.manager.get_hookcallers(plugin) or ()} if plugin is not None else set()
        if hooks & needed and name not in plugins.origins and not name.startswith(f"{PROJECT} "):
            names.append(name)
    return sorted(names)
