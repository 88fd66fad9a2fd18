"""The packs that cells start from: read while cells are planned, so nothing is trained from one that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from decoderbench.config.cell import Cell, ResolvedComponent, StartPoint, stages_alike
from decoderbench.config.experiment import Experiment
from decoderbench.errors import ConfigError, DataError
from decoderbench.kinds import AXES
from decoderbench.pack import read_pack


@dataclass(frozen=True)
class Start:
    """A pack that cells start from.

    Attributes:
        path: the file.
        point: what cells state of it.
        cell: the cell that was trained.
    """

    path: Path
    point: StartPoint
    cell: Cell

    @classmethod
    def read(cls, path: Path) -> Start:
        """Read a pack; raise `DataError` if it cannot be read."""
        manifest = read_pack(path).manifest
        cell = manifest.cell
        title = f"{cell.name or cell.variant_title} of {manifest.experiment}, {cell.model_title}"
        return cls(path, StartPoint(digest=manifest.digest, title=title), cell)

    def why_not(self, components: Mapping[str, ResolvedComponent]) -> str | None:
        """Return why a recognizer of these components cannot start from the pack; None if it can."""
        if any(axis != "rectifier" for axis in stages_alike(components, self.cell)):
            return None
        stages = ", ".join(f"{axis} {getattr(self.cell, axis).use}" for axis in AXES if axis != "rectifier")
        return f"it cannot start from {self.path.name}, as no stage of it has the options of the pack's ({stages})"


def read_starts(settings: Mapping[str, Experiment], base_dir: Path) -> dict[str, Start]:
    """Return the pack of each `training.start_from` of an experiment's settings.

    Raises:
        ConfigError: one cannot be read.
    """
    found: dict[str, Start] = {}
    for experiment in settings.values():
        given = experiment.training.start_from
        if given is None or given in found:
            continue
        try:
            found[given] = Start.read(base_dir / given)
        except DataError as error:
            raise ConfigError([experiment.describe_mistake(("training", "start_from"), str(error))]) from None
    return found
