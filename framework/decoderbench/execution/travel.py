"""Travel: cells of a run go to another machine, which may have none of the run's files, and their files come back.

The machine needs decoderbench and the installed plugins in the same versions. Plugins that are files, decoded images
and packs to start from are sent where they are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import cast
from uuid import uuid4

from decoderbench.errors import PluginError
from decoderbench.execution.cell_runner import describe_wrappers, noting
from decoderbench.execution.work import CellWork
from decoderbench.files.storage import delete, write_atomically
from decoderbench.kinds import KINDS
from decoderbench.records.cell_progress import ProgressFile
from decoderbench.records.leases import LostLeaseError
from decoderbench.records.record_files import RESULT, delete_checkpoints
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import same_result
from decoderbench.registry.executor import CellOutcome, CellTask, Report
from decoderbench.registry.executor import CellWork as Work
from decoderbench.registry.hookspecs import PROJECT
from decoderbench.registry.plugin_sources import BLOCK, PluginSources, is_file
from decoderbench.registry.registry import Registry
from decoderbench.sources import package_digest, plugin_files

OF_THE_PROCESS = {"lock", "holder", ".death.json", "progress.json"}
"""Files of a cell's folder that are of no use on another machine."""

CHUNK_BYTES = 64 * 2**20
"""The largest piece of a file that is sent at a time."""


@dataclass(frozen=True)
class PluginFiles:
    """The files of a plugin that is not installed on the machine of the run.

    Attributes:
        base: the folder that they lie in.
        contents: the content of each by its path in that folder: the plugin's file, and what it imports from there.
        module: the name by which it is imported; empty if the user has named a file or its folder.
    """

    base: Path
    contents: Mapping[str, bytes]
    module: str = ""


@dataclass(frozen=True)
class TravelingWork:
    """What another machine needs to run cells of a run. It can be pickled.

    Attributes:
        work: the work, with paths as on the machine of the run.
        mark: a file in the results folder that has this name on no other machine unless that sees the same folder.
        plugins: plugins that are not installed.
        sizes: the size in bytes of each file of the decoded images and of the packs to start from.
        sources: what the run has loaded: versions and digests by name.
    """

    work: CellWork
    mark: Path
    plugins: tuple[PluginFiles, ...]
    sizes: Mapping[Path, int]
    sources: Mapping[str, str]

    @classmethod
    def of(cls, given: Work, *, mark: Path | None = None) -> TravelingWork:
        """Collect what is needed of the work that an executor was given; `close` removes the mark again.

        Args:
            given: the work.
            mark: a new file in the results folder; default: one that is hidden.

        Raises:
            PluginError: the files of a plugin cannot be found.
            StorageError: the results folder cannot be written.
        """
        work = cast("CellWork", given)
        mark = mark or work.results / f".mark-{uuid4().hex}"
        write_atomically(mark, b"")
        folders = [*(source.images for source in work.data.values()), work.results / "starts"]
        files = [file for folder in folders for file in sorted(folder.glob("*")) if file.is_file()]
        sizes = {file: file.stat().st_size for file in files if file.name != "contact_sheet.png"}
        return cls(work, mark, tuple(_files_of(work.plugins)), sizes, sources_of(work.loaded()))

    def close(self) -> None:
        """Remove the mark."""
        delete(self.mark)

    @staticmethod
    def read(file: Path) -> Iterator[bytes]:
        """Yield the content of a file in pieces of 64 MiB, at least one."""
        with file.open("rb") as opened:
            yield opened.read(CHUNK_BYTES)
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk


class Reserved:
    """A cell that the run holds while a machine that does not see the results folder trains it."""

    def __init__(self, directory: ResultsDirectory, task: CellTask, stack: ExitStack) -> None:
        self._directory, self._task, self._stack = directory, task, stack
        self._folder = directory.cell_directory(task.cell)

    @property
    def files(self) -> dict[str, bytes]:
        """What an earlier attempt has left, such as checkpoints: the content of each file by its path in the folder."""
        return read_files(self._folder)

    @classmethod
    def take(cls, work: Work, task: CellTask) -> Reserved | CellOutcome:
        """Hold a cell and delete a result that is not valid; return the outcome if it has one or another holds it."""
        directory = cast("CellWork", work).directory()
        with ExitStack() as stack:
            if not stack.enter_context(directory.lease(task.cell)):
                return CellOutcome(task.cell, held=True)
            found = directory.read(task.cell)
            if found is not None and not same_result(found, task.superseded):
                return CellOutcome(task.cell, found)
            directory.delete_result(task.cell)
            return cls(directory, task, stack.pop_all())

    def noting(self, host: str, report: Report) -> Report:
        """Return a report of the events of the cell that also keeps the file by which `status` shows them.

        Args:
            host: the machine that trains the cell.
            report: what to call with each event.
        """
        progress = ProgressFile(self._folder, self._task.cell.training.steps, host)
        return noting(self._stack.enter_context(progress), report)

    def publish(self, files: Mapping[str, bytes]) -> CellOutcome:
        """Write the files that a machine has made, the result last, and release the cell.

        Args:
            files: the content of each by its path in the folder of the cell.
        """
        cell = self._task.cell
        with self._stack:
            try:
                self.keep(files)
            except LostLeaseError:
                return CellOutcome(cell, held=True)
            delete_checkpoints(self._folder)
            return CellOutcome(cell, self._directory.check(cell), new=True)

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Write what a machine has made of a cell that it had to stop, such as checkpoints; a result comes last.

        Raises:
            LostLeaseError: another process has taken the cell over.
        """
        for name in sorted(files, key=lambda name: name == RESULT):
            self._directory.check_lease(self._task.cell, thoroughly=True)
            write_atomically(self._folder / name, files[name])

    def release(self) -> None:
        """Release the cell without a result."""
        self._stack.close()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of a cell's folder that another machine can use, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".tmp"))
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if name not in OF_THE_PROCESS}


def sources_of(registry: Registry) -> dict[str, str]:
    """Return what decides results: the version of decoderbench, and digests of sources and components, by name."""
    found = {"decoderbench": version("decoderbench"), "the source of decoderbench": package_digest()}
    for kind in KINDS:
        for name, registered in registry[kind].items():
            with suppress(OSError, TypeError):  # of a class that no file defines, which no cell can use elsewhere
                found[f"the source of {kind} {name!r}"] = registered.source_digest()
    trainers = registry.plugins.trainers()
    found |= {f"the source of run_cell of plugin {name}": digest for name, digest in trainers.items()}
    return found | {"the list of plugins around run_cell": describe_wrappers(registry)}


def _files_of(plugins: PluginSources) -> Iterator[PluginFiles]:
    """Yield the files of each plugin that is no installed package; files of one folder together."""
    by_folder: dict[Path, dict[str, bytes]] = {}
    for name in (*map(str, plugins.files()), *plugins.named):
        file = None if name.startswith(BLOCK) else Path(name) if is_file(name) else _file_of_module(name)
        if file is None or (found := plugin_files(file)) is None:
            continue
        base, paths = found
        contents = {one.relative_to(base).as_posix(): one.read_bytes() for one in paths}
        if is_file(name):
            by_folder.setdefault(base, {}).update(contents)
        else:
            yield PluginFiles(base, contents, name)
    for base, contents in by_folder.items():
        yield PluginFiles(base, contents)


def _file_of_module(name: str) -> Path | None:
    """Return the file of a plugin that is a module; None for one of decoderbench, and for an entry point."""
    if name.partition(".")[0].startswith(PROJECT):
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError) as error:
        raise PluginError(f"plugin {name}: its file cannot be found: {error}") from error
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None
