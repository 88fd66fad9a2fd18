"""Node: a machine that runs cells of a run on another one, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from decoderbench.conditions import environment_of
from decoderbench.config.cell import Cell
from decoderbench.data.cache_folders import lock_of
from decoderbench.data.image_cache import default_cache_dir
from decoderbench.data.image_store import read_store
from decoderbench.errors import DataError, PendingCellsError, PluginError
from decoderbench.execution.travel import TravelingWork, read_files, sources_of
from decoderbench.files.storage import make_folder, rename, write_atomically
from decoderbench.registry.executor import CellOutcome, CellTask, Executor, Report
from decoderbench.registry.plugin_manager import Plugins
from decoderbench.registry.plugin_sources import PluginSources
from decoderbench.registry.registry import Registry


class Node:
    """Runs cells on this machine for a run on another one. A context manager.

    Attributes:
        sees_results: whether the results folder of the run is here too, and results can be written there. If not, they
            are made in a temporary folder, and `take_files` hands them over.
        missing: the files of the run, by their paths there, that have to be sent here before `open`.
    """

    def __init__(self, traveling: TravelingWork) -> None:
        """Find what is missing; wait while another process of this machine receives the same images."""
        self._traveling, self._work = traveling, traveling.work
        self.sees_results = traveling.mark.exists() and self._can_write()
        self._stack, self._locks = ExitStack(), ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="decoderbench-node-")))
        self._results = self._work.results if self.sees_results else self._folder / "results"
        self._images: dict[Path, Path] = {}
        self._arriving: dict[Path, Path] = {}
        for folder in sorted({source.images for source in self._work.data.values()}):  # in one order everywhere: locks
            self._images[folder] = self._find_images(folder)
        self._places = {file: place for file in traveling.sizes if (place := self._place_of(file)) is not None}
        self.missing = tuple(self._places)
        self._executor: Executor | None = None
        self._environment: Mapping[str, str] = {}

    def put(self, file: Path, content: bytes, *, last: bool) -> None:
        """Add a piece to a file that is missing here; `last` completes it.

        Raises:
            PendingCellsError: the file has another size than when the run began.
        """
        place = self._places[file]
        make_folder(place.parent)
        with place.open("ab") as opened:
            opened.write(content)
            if last:
                opened.flush()
                os.fsync(opened.fileno())
                if opened.tell() != self._traveling.sizes[file]:
                    raise PendingCellsError(f"{file} has changed while it was sent")

    def open(
        self, report: Report, *, cell_timeout: float | None = None, stopping: Callable[[], str] = str
    ) -> dict[str, str]:
        """Load plugins and images, start what runs cells, and return the conditions that it runs them under.

        Args:
            report: receives the events of cells.
            cell_timeout: seconds after which a cell is ended.
            stopping: returns why cells are to stop; an empty string until then.

        Raises:
            PluginError: a plugin cannot be loaded here, or is another one than that of the run.
            PendingCellsError: nothing can be run here.
        """
        for arriving, folder in self._arriving.items():
            rename(arriving, folder)
        self._arriving.clear()
        self._locks.close()
        registry = Registry(Plugins.load(self._unpack_plugins()))
        self._refuse_differences(sources_of(registry))
        if self._work.threads is not None:
            torch.set_num_threads(self._work.threads)
        here = self._work.moved(results=self._results, images=self._images, registry=registry)
        local = registry["executor"]["local"]
        executor = local.component(local.config_class(), here, report, cell_timeout=cell_timeout, stopping=stopping)
        self._executor = self._stack.enter_context(executor)
        self._environment = self._executor.describe()
        return dict(self._environment)

    def run(self, task: CellTask) -> CellOutcome:
        """Run a cell; its record states the conditions of this machine."""
        assert self._executor is not None
        here = environment_of(task.cell.dataset, self._environment)
        task = replace(task, environment={**task.environment, **here})
        outcomes = list(self._executor.submit([task]))
        return outcomes[0] if outcomes else CellOutcome(task.cell, ended=PendingCellsError("stopped before it began"))

    def put_files(self, cell: Cell, files: Mapping[str, bytes]) -> None:
        """Write what an earlier attempt at a cell has left, as `Reserved.files` has it, for the next one."""
        for name, content in files.items():
            write_atomically(self._results / "cells" / cell.cell_id / name, content)

    def take_files(self, cell: Cell) -> dict[str, bytes]:
        """Return the content of each file of a cell's folder, by its path in it, and delete the folder."""
        folder = self._results / "cells" / cell.cell_id
        contents = read_files(folder)
        shutil.rmtree(folder)
        return contents

    def close(self) -> None:
        """End what is running, and delete what was only for this run."""
        self._stack.close()
        self._locks.close()

    def _can_write(self) -> bool:
        return os.access(self._work.results, os.W_OK) and (
            not self._work.locking or self._work.directory().leases.can_hold()
        )

    def _find_images(self, folder: Path) -> Path:
        """Return where the images of a folder are here, or will be once they were sent."""
        own = default_cache_dir() / "images" / folder.name
        for place in (folder, own):
            if _holds_images(place):
                return place
        make_folder(own.parent)
        self._locks.enter_context(lock_of(own))
        if not _holds_images(own):  # another process may have received them meanwhile
            shutil.rmtree(own, ignore_errors=True)
            arriving = own.with_suffix(".arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            self._arriving[arriving] = own
        return own

    def _place_of(self, file: Path) -> Path | None:
        """Return where a file that is missing here has to be written; None if it is not missing."""
        if file.parent in self._images:
            arriving = self._images[file.parent].with_suffix(".arriving")
            return arriving / file.name if arriving in self._arriving else None
        return None if self.sees_results else self._results / file.relative_to(self._work.results)

    def _unpack_plugins(self) -> PluginSources:
        """Write the plugins that this machine does not have as the run has them, and return where all are."""
        sources = self._work.plugins
        for number, plugin in enumerate(self._traveling.plugins):
            contents, here = plugin.contents, plugin.base
            if plugin.module and _can_import(plugin.module):  # whether it is the same is compared behind this
                continue
            if any(_content_of(here / name) != content for name, content in contents.items()):
                here = self._folder / f"plugins-{number}"
                for name, content in contents.items():
                    make_folder((here / name).parent)
                    (here / name).write_bytes(content)
                sources = sources.moved(plugin.base, here)
            if plugin.module or len(contents) > 1:
                sys.path.insert(0, str(here))
        return sources

    def _refuse_differences(self, here: Mapping[str, str]) -> None:
        for name, planned in self._traveling.sources.items():
            if (found := here.get(name, "missing")) != planned:
                reason = f"{name} is {found} on this machine, but {planned} where the run started"
                raise PluginError(
                    f"{reason}; install the same versions of decoderbench and its plugins on all machines"
                )


def _holds_images(folder: Path) -> bool:
    try:
        read_store(folder)
    except DataError:
        return False
    return True


def _can_import(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _content_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
