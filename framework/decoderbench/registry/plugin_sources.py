"""Which plugins are requested: entry points, modules, files, folders, and those to disable. No torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path

from decoderbench.errors import PluginError
from decoderbench.registry.hookspecs import PROJECT

logger = logging.getLogger("decoderbench")
BLOCK = "no:"
BUILTIN = "bundled"
"""The name of the entry point of the built-in components."""


@dataclass(frozen=True)
class PluginSources:
    """Where plugins come from, in full, so another process can load the same ones.

    Attributes:
        named: importable modules, paths of `.py` files, and `no:NAME` to disable a plugin.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.
        builtin: whether the built-in components are among them.
    """

    named: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    installed: bool = True
    builtin: bool = True

    @classmethod
    def gather(
        cls, named: Sequence[str], folders: Sequence[str | Path], *, installed: bool, builtin: bool
    ) -> PluginSources:
        """Add the comma-separated plugins of `DECODERBENCH_PLUGINS`, and make all paths absolute."""
        also = [name.strip() for name in os.environ.get("DECODERBENCH_PLUGINS", "").split(",") if name.strip()]
        full = (str(Path(name).resolve()) if is_file(name) else name for name in (*also, *named))
        resolved = tuple(str(Path(folder).resolve()) for folder in folders)
        return cls(tuple(dict.fromkeys(full)), resolved, installed, builtin)

    def moved(self, folder: Path, to: Path) -> PluginSources:
        """Return the sources after all that is below a folder was moved to another one."""

        def move(path: str) -> str:
            inside = Path(path).is_relative_to(folder)
            return str(to / Path(path).relative_to(folder)) if inside else path

        named = tuple(move(name) if is_file(name) else name for name in self.named)
        return replace(self, named=named, folders=tuple(map(move, self.folders)))

    @property
    def blocked(self) -> set[str]:
        """The names of the plugins to disable."""
        return {name.removeprefix(BLOCK) for name in self.named if name.startswith(BLOCK)}

    def entry_points(self) -> list[EntryPoint]:
        """Return the entry points to load, sorted."""
        points = installed_entry_points(PROJECT) if self.installed else []
        chosen = (point for point in points if self.builtin or point.name != BUILTIN)
        return sorted(chosen, key=lambda point: (point.name, point.value))

    def files(self) -> list[Path]:
        """Return the `.py` files of the folders, sorted per folder; raise `PluginError` if a folder does not exist."""
        found: list[Path] = []
        for folder in map(Path, self.folders):
            if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
                raise PluginError(f"plugin folder {folder}: no such folder; give a folder that holds .py files")
            found += sorted(folder.glob("*.py"))
        return found


def is_file(name: str) -> bool:
    """Return whether the name of a plugin is the path of a file."""
    return name.endswith(".py") and not name.startswith(BLOCK)


def installed_entry_points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group; a distribution with corrupt metadata is reported and skipped."""
    try:
        return entry_points(group=group)
    except Exception:  # noqa: BLE001 - entry_points.txt that is no table, or not UTF-8
        found: dict[str, list[EntryPoint]] = {}
        for distribution in distributions():
            try:
                points = list(distribution.entry_points.select(group=group))
                found.setdefault(distribution.name, points)  # the first one on the path counts
            except Exception as error:  # noqa: BLE001 - as above
                place = getattr(distribution, "_path", "a distribution")
                logger.warning("%s has corrupt entry points, none of them is loaded: %s", place, error)
        return [point for points in found.values() for point in points]
