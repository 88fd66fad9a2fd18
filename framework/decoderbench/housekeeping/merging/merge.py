"""Merge: the results of several folders of one experiment, written into one folder. No torch here."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoderbench.analysis.kept_images import merge_images
from decoderbench.errors import ConfigError, DataError, PendingCellsError
from decoderbench.files.integrity import read_bytes
from decoderbench.files.storage import find_leftovers, write_atomically
from decoderbench.housekeeping.merging.arrangement import CODES, Arrangement, Entry
from decoderbench.housekeeping.merging.sources import Source
from decoderbench.records.record_files import PLAN, RESULT, files_of_result
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, RunRecord, same_result

_OUTPUT = "output.txt"


@dataclass(frozen=True)
class Merged:
    """What came out.

    Attributes:
        cells: the number of cells.
        results: how many of them have a result.
        copied: how many results were copied, by folder.
        twice: the number of cells of which several folders have equal results.
        notes: what was chosen.
    """

    cells: int
    results: int
    copied: Counter[str]
    twice: int
    notes: tuple[str, ...]


def merge(sources: Sequence[Path], into: Path, *, allow: Collection[str] = (), command: str = "merge(...)") -> Merged:
    """Write the results of several folders of one experiment into one folder.

    The folders are only read. An interrupted merge goes on when it is called again.

    Args:
        sources: results folders.
        into: another folder. If it has a plan already, its results stay and come first.
        allow: codes of `CODES`.
        command: the command line, which the plan states.

    Raises:
        ConfigError: a code is unknown, a folder is given twice, or the folders belong to different experiments.
        DataError: something is damaged or missing, or stands in the way of one table and is not allowed.
        PendingCellsError: a run is working on a cell in `into`.
    """
    if unknown := sorted(set(allow) - CODES.keys()):
        raise ConfigError([f"--allow {unknown[0]}: must be one of {', '.join(CODES)}"])
    target = ResultsDirectory(into)
    target.refuse_unsafe_leases()
    _refuse_paths(sources, target)
    first = [target] if os.path.lexists(into / PLAN) else []
    found = [Source.read(directory) for directory in (*first, *map(ResultsDirectory, sources))]
    if others := [source for source in found if source.plan.experiment != found[0].plan.experiment]:
        names = f"{found[0].plan.experiment!r} and that of {others[0]} {others[0].plan.experiment!r}"
        raise ConfigError([f"the experiment of {found[0]} is called {names}; merge results of one experiment"])
    arranged = Arrangement.of(found)
    allowed = _refuse_problems(arranged, allow)
    target.begin()
    target.write_plan(_plan_of(found, arranged, allowed, target, command))
    entries = [*arranged.in_order(arranged.cells), *arranged.in_order(arranged.tuning)]
    copied: Counter[str] = Counter()
    for entry in entries:
        if entry.record is not None and entry.source.directory is not target:
            _copy(entry, found[0].records.get(entry.cell.cell_id) if first else None, target)
            copied[str(entry.source)] += 1
    merge_images(target.path, [source.directory.path for source in found])
    with_result = sum(entry.record is not None for entry in arranged.cells.values())
    return Merged(len(arranged.cells), with_result, copied, arranged.twice, (*arranged.notes, *allowed))


def _refuse_paths(sources: Sequence[Path], target: ResultsDirectory) -> None:
    """Raise `ConfigError` if a folder is given twice, or the target holds something else than results."""
    seen: set[Path] = {target.path.resolve()}
    for source in sources:
        if source.resolve() in seen:
            raise ConfigError([f"{source}: given twice; give each folder once, and --into another one"])
        seen.add(source.resolve())
    if os.path.lexists(target.path) and not target.path.is_dir():
        raise ConfigError([f"--into {target.path}: is not a folder; give another"])
    if not target.path.is_dir() or (target.path / PLAN).exists():
        return
    if set(target.path.iterdir()) - set(find_leftovers(target.path)):
        raise ConfigError([f"--into {target.path}: holds something else than results; give a new folder"])


def _refuse_problems(arranged: Arrangement, allow: Collection[str]) -> list[str]:
    """Return what is allowed, as notes; raise `DataError` if something else stands in the way."""
    refused = [(code, text) for code, text in arranged.problems if code not in allow]
    if refused:
        codes = list(dict.fromkeys(code for code, _ in refused))
        moves = "; ".join(f"--allow {code}: {CODES[code]}" for code in codes)
        listed = "\n  ".join(f"{code}: {text}" for code, text in refused)
        raise DataError(f"these results do not belong into one table:\n  {listed}\nnothing was written; {moves}")
    return [f"{code}: allowed: {text}" for code, text in arranged.problems]


def _refuse_new_result(entry: Entry, known: RunRecord | None, target: ResultsDirectory) -> None:
    """Raise `PendingCellsError` if a cell of the target has another result than when the target was read."""
    if (now := target.read(entry.cell)) is not None and not same_result(now, known):
        reason = f"{target.path}: a run has given {entry.cell.title} a result meanwhile"
        raise PendingCellsError(f"{reason}; merge once it has ended")


def _copy(entry: Entry, known: RunRecord | None, target: ResultsDirectory) -> None:
    """Copy the files of a result, the result last, so that a cell is done only once it has all of them.

    Args:
        entry: the cell.
        known: its result in the target when that was read.
        target: the folder to write.
    """
    assert entry.record is not None
    cell, origin = entry.cell, entry.source.directory
    folder = origin.cell_directory(cell)
    with target.lease(cell, timeout=1.0) as held:
        if not held:
            raise PendingCellsError(f"{target.path}: a run is working on {cell.title}; merge once it has ended")
        _refuse_new_result(entry, known, target)
        target.delete_result(cell)
        for name in files_of_result(folder, entry.record):
            write_atomically(target.cell_directory(cell) / name, read_bytes(folder / name))
        if (folder / _OUTPUT).is_file():
            write_atomically(target.cell_directory(cell) / _OUTPUT, read_bytes(folder / _OUTPUT))
        if cell.start is not None and not target.start_file(cell.start.digest).exists():
            pack = origin.start_file(cell.start.digest)
            if pack.exists():
                write_atomically(target.start_file(cell.start.digest), read_bytes(pack))
        write_atomically(target.cell_directory(cell) / RESULT, read_bytes(folder / RESULT))


def _plan_of(
    sources: Sequence[Source], arranged: Arrangement, allowed: Sequence[str], target: ResultsDirectory, command: str
) -> Plan:
    plans = [source.plan for source in sources]
    origins = {plan.origin for plan in plans}
    return Plan(
        experiment=plans[0].experiment,
        question=next((plan.question for plan in plans if plan.question), ""),
        command="; ".join(dict.fromkeys([*(part for plan in plans for part in plan.command.split("; ")), command])),
        cells=tuple(entry.cell for entry in arranged.in_order(arranged.cells)),
        tuning=tuple(entry.cell for entry in arranged.in_order(arranged.tuning)),
        settings=arranged.settings,
        data_summary=tuple(dict.fromkeys(line for plan in plans for line in plan.data_summary)),
        data_notes=(*dict.fromkeys(line for plan in plans for line in plan.data_notes), *allowed),
        definition=_definition_of(sources, target),
        origin=origins.pop() if len(origins) == 1 else "",
        recipe=tuple(dict.fromkeys(line for plan in plans for line in plan.recipe)),
        split_sizes=plans[0].split_sizes,
        sizes={key: sizes for plan in reversed(plans) for key, sizes in plan.sizes.items()},
    )


def _definition_of(sources: Sequence[Source], target: ResultsDirectory) -> str:
    """Return the experiment of the first folder that states one, with the seeds and variants of those that agree on
    all else."""
    stated = [(source, json.loads(source.plan.definition)) for source in sources if source.plan.definition]
    if not stated:
        return ""
    source, first = stated[0]
    experiment: dict[str, Any] = dict(first["experiment"])
    grids = [
        other["experiment"].get("grid", {})
        for _, other in stated
        if _without_grid(other["experiment"]) == _without_grid(experiment)
    ]
    if any(grids):
        experiment["grid"] = _union(grids)
    base_dir = (source.directory.path / first["base_dir"]).resolve()
    return json.dumps({"experiment": experiment, "base_dir": os.path.relpath(base_dir, target.path.resolve())})


def _without_grid(experiment: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in experiment.items() if key != "grid"}


def _union(grids: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a grid with the seeds and variants of all; what only some exclude is in it."""
    union: dict[str, Any] = {}
    for grid in grids:
        for key, value in grid.items():
            if isinstance(value, dict):
                union[key] = value | union.get(key, {})
    if seeds := {seed for grid in grids for seed in grid.get("seeds", [])}:
        union["seeds"] = sorted(seeds)
    if excluded := [rule for rule in grids[0].get("exclude", []) if all(rule in g.get("exclude", []) for g in grids)]:
        union["exclude"] = excluded
    others = {key: value for key, value in grids[0].items() if key not in union and key != "exclude"}
    return {**others, **union}
