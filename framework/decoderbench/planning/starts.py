"""The packs that cells start from: read while cells are planned, so nothing is trained from one that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from decoderbench.config.cell import Cell, ResolvedComponent, StartPoint, stages_alike
from decoderbench.config.experiment import Experiment
from decoderbench.errors import ConfigError, DataError
from decoderbench.kinds import AXES
from decoderbench.records.pack import read_pack


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


@dataclass(frozen=True)
class Starts:
    """What `training.start_from` names: a pack for all rows, or a folder of packs, from which each row takes its own.

    Attributes:
        path: the file or folder.
        packs: one, or those of the folder.
        is_folder: whether it is a folder.
    """

    path: Path
    packs: tuple[Start, ...]
    is_folder: bool = False

    @classmethod
    def read(cls, path: Path) -> Starts:
        """Read a pack or all `.zip` files of a folder; raise `DataError` if one cannot be read, or there is none."""
        if not path.is_dir():
            return cls(path, (Start.read(path),))
        files = sorted(path.glob("*.zip"))
        if not files:
            raise DataError(f"{path}: a folder without packs; decoderbench pack RESULTS {path} --every-row writes them")
        return cls(path, tuple(map(Start.read, files)), is_folder=True)

    def choose(self, components: Mapping[str, ResolvedComponent]) -> tuple[StartPoint, str | None]:
        """Return the pack that a recognizer of these components starts from, and why it cannot; None if it can.

        Of a folder, it is the one that has all stages alike.
        """
        if not self.is_folder:
            (start,) = self.packs
            return start.point, start.why_not(components)
        alike = [start for start in self.packs if len(stages_alike(components, start.cell)) == len(AXES)]
        if len(alike) == 1:
            return alike[0].point, None
        found = f"several have: {', '.join(start.path.name for start in alike)}" if alike else "none has"
        rule = f"of the packs in {self.path.name} it starts from the one that has all its stages with their options"
        digests = " ".join(start.point.digest for start in self.packs)
        nothing = StartPoint(digest=sha256(digests.encode()).hexdigest()[:16], title=f"no pack in {self.path.name}")
        return nothing, f"{rule}; {found}"


def read_starts(settings: Mapping[str, Experiment], base_dir: Path) -> dict[str, Starts]:
    """Return the packs of each `training.start_from` of an experiment's settings.

    Raises:
        ConfigError: one cannot be read.
    """
    found: dict[str, Starts] = {}
    for experiment in settings.values():
        given = experiment.training.start_from
        if given is None or given in found:
            continue
        try:
            found[given] = Starts.read(base_dir / given)
        except DataError as error:
            raise ConfigError([experiment.describe_mistake(("training", "start_from"), str(error))]) from None
    return found
