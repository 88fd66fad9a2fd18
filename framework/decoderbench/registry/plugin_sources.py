"""Which plugins are asked for: entry points, modules, files, folders, and those to leave out. No torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path

from decoderbench.registry.hookspecs import PROJECT

logger = logging.getLogger("decoderbench")
BLOCK = "no:"
SHIPPED = "bundled"
"""The entry point of what decoderbench ships."""


@dataclass(frozen=True)
class PluginSources:
    """Where plugins come from, in full: another process that loads them has the same set.

    Attributes:
        named: importable modules, paths of `.py` files, and `no:NAME` for a plugin to leave out.
        folders: every `.py` file in them is a plugin.
        installed: whether entry points are loaded.
        shipped: whether the one of decoderbench itself is among them.
    """

    named: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    installed: bool = True
    shipped: bool = True

    @classmethod
    def gather(
        cls, named: Sequence[str], folders: Sequence[str | Path], *, installed: bool, shipped: bool
    ) -> PluginSources:
        """Add those of `DECODERBENCH_PLUGINS`, parted by commas, and make paths hold in any working directory."""
        also = [name.strip() for name in os.environ.get("DECODERBENCH_PLUGINS", "").split(",") if name.strip()]
        full = (str(Path(name).resolve()) if is_file(name) else name for name in (*also, *named))
        resolved = tuple(str(Path(folder).resolve()) for folder in folders)
        return cls(tuple(dict.fromkeys(full)), resolved, installed, shipped)

    @property
    def blocked(self) -> set[str]:
        """The names of plugins to leave out."""
        return {name.removeprefix(BLOCK) for name in self.named if name.startswith(BLOCK)}

    def entry_points(self) -> list[EntryPoint]:
        """Return those of the group that are to be loaded, sorted."""
        points = installed_entry_points(PROJECT) if self.installed else []
        chosen = (point for point in points if self.shipped or point.name != SHIPPED)
        return sorted(chosen, key=lambda point: (point.name, point.value))


def is_file(name: str) -> bool:
    """Whether a name that was given for a plugin is that of a file."""
    return name.endswith(".py") and not name.startswith(BLOCK)


def installed_entry_points(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group; a distribution that lists its own wrongly costs a line, not the others."""
    try:
        return entry_points(group=group)
    except Exception:  # noqa: BLE001 - a text that is no table, or not UTF-8
        found: dict[str, list[EntryPoint]] = {}
        for distribution in distributions():
            try:
                points = list(distribution.entry_points.select(group=group))
                found.setdefault(distribution.name, points)  # the first on the path counts
            except Exception as error:  # noqa: BLE001 - as above
                place = getattr(distribution, "_path", "a distribution")
                logger.warning("%s lists its entry points wrongly, none of them is loaded: %s", place, error)
        return [point for points in found.values() for point in points]
