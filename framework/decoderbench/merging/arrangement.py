"""The cells of several results folders as one grid, and what stands in the way of one table. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from decoderbench.cell_differences import differences
from decoderbench.conditions import CONDITIONS, conditions_of
from decoderbench.config.cell import Cell
from decoderbench.identity import identity_of
from decoderbench.merging.sources import Source
from decoderbench.records import FAILED, UNVERIFIED_FORMAT, RunRecord

CODES = {
    "other_data": "rows of other images or labels stand side by side",
    "other_settings": "rows of other settings stand side by side",
    "other_code": "results of other source code or versions stand in one table",
    "other_results": "of two results of one cell, that of the folder that is named first is kept",
    "unverified": "results of an earlier format, which states no sha256, are taken as they are",
}
"""What can be allowed, and what that means."""

_CODE = ("sources", "dataset_source", "wrappers", "torch", "timm")
"""The conditions of a result that are code."""

_COMPARED = ("predictions.parquet", "weights.safetensors")
"""The files by which two results of one cell are compared."""

_SHOWN = 12
"""Characters of a digest in a message."""


@dataclass(frozen=True)
class Entry:
    """A cell of the merged grid.

    Attributes:
        cell: the cell; its setting names the folder if the same row differs in an earlier one.
        source: the folder that its result is taken from.
        record: its result; None if no folder has one.
    """

    cell: Cell
    source: Source
    record: RunRecord | None


@dataclass
class Arrangement:
    """The merged grid, in the order in which rows appear, and what was found.

    Attributes:
        cells: the cells by their id.
        tuning: the trials of tuning by their id.
        settings: what each setting changes, by its label.
        problems: code and sentence of what stands in the way of one table, each once.
        twice: the number of cells of which several folders have equal results.
        notes: what was chosen without being a problem.
    """

    cells: dict[str, Entry] = field(default_factory=dict)
    tuning: dict[str, Entry] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    problems: dict[tuple[str, str], None] = field(default_factory=dict)
    twice: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Arrangement:
        """Arrange the cells of folders, the first one first."""
        own = cls()
        for number, source in enumerate(sources):
            own._add_conditions(source, sources[:number])
            labels = own._settings_of(source, sources[:number])
            for entries, cells in ((own.cells, source.plan.cells), (own.tuning, source.plan.tuning)):
                for cell in cells:
                    if cell.purpose == "undecided" and any(e.cell.place == cell.place for e in entries.values()):
                        continue
                    shown = cell.model_copy(update={"setting": labels.get(cell.variant, cell.setting)})
                    own._add(entries, Entry(shown, source, source.records.get(cell.cell_id)))
            own.settings |= {label: text for label, text in source.plan.settings.items() if label not in own.settings}
        return own

    def in_order(self, entries: Mapping[str, Entry]) -> list[Entry]:
        """Return entries by rows as they appear, and in a row by seed and fold."""
        rows = {
            variant: number for number, variant in enumerate(dict.fromkeys(e.cell.variant for e in entries.values()))
        }
        return sorted(entries.values(), key=lambda e: (rows[e.cell.variant], e.cell.seed, e.cell.fold or 0))

    def _settings_of(self, source: Source, earlier: Sequence[Source]) -> dict[tuple[str, ...], str]:
        """Return the labels of the settings of rows that differ in earlier folders, by variant, and note why."""
        rows = {cell.variant: (cell, other) for other in reversed(earlier) for cell in other.plan.cells}
        data = {cell.setting: (_data_of(cell), other) for other in reversed(earlier) for cell in other.plan.cells}
        labels: dict[tuple[str, ...], str] = {}
        for cell in {cell.variant: cell for cell in source.plan.cells}.values():
            found = []
            known, where = data.get(cell.setting, (None, source))
            if known is not None and known != _data_of(cell):
                found.append(
                    ("other_data", f"{_under(cell)}images or labels of {source} are others than those of {where}")
                )
            other, place = rows.get(cell.variant, (None, source))
            if other is not None and other.cell_id != cell.cell_id:
                found += [
                    (f"other_{kind}", f"{cell.variant_title}: {text} between {place} and {source}")
                    for kind, text in differences(other, cell)
                    if kind != "data"
                ]
            if found:
                self.problems |= dict.fromkeys(found)
                label = ", ".join(filter(None, [cell.setting, f"of {source}"]))
                labels[cell.variant] = label
                given = source.plan.settings.get(cell.setting, "")
                self.settings[label] = "; ".join(filter(None, [given, "; ".join(text for _, text in found)]))
        return labels

    def _add(self, entries: dict[str, Entry], entry: Entry) -> None:
        """Add a cell, or decide which of two results of it is kept."""
        known = entries.setdefault(entry.cell.cell_id, entry)
        if known is entry or entry.record is None:
            return
        title = entry.cell.title
        if known.record is None:
            entries[entry.cell.cell_id] = replace(entry, cell=known.cell)
        elif entry.record.status == "done" and known.record.status in FAILED:
            self.notes.append(f"{title}: {known.record.status} in {known.source}; that of {entry.source} is taken")
            entries[entry.cell.cell_id] = replace(entry, cell=known.cell)
        elif known.record.status == "done" and entry.record.status in FAILED:
            self.notes.append(f"{title}: {entry.record.status} in {entry.source}; that of {known.source} is taken")
        elif what := _result_differs(known.record, entry.record):
            both = f"{_origin(known)} and {_origin(entry)}"
            self.problems[("other_results", f"{title}: {what} of {both}")] = None
        else:
            self.twice += 1

    def _add_conditions(self, source: Source, earlier: Sequence[Source]) -> None:
        """Find results of other code than that of earlier folders, and such of a format without sha256."""
        for name in _CODE:
            before, now = (_values(name, folders) for folders in (earlier, [source]))
            if before and (new := [value for value in now if value not in before]):
                text = f"{CONDITIONS[name]} {new[0][:_SHOWN]} in {source}, {next(iter(before))[:_SHOWN]} before"
                self.problems[("other_code", text)] = None
        if count := sum(record.format == UNVERIFIED_FORMAT for record in source.records.values()):
            self.problems[("unverified", f"{count} results of {source} state no sha256")] = None


def _data_of(cell: Cell) -> tuple[str, dict[str, Any]]:
    return cell.dataset_hash or cell.data_hash, identity_of(cell.labels)


def _under(cell: Cell) -> str:
    return f"{cell.setting}: " if cell.setting else ""


def _values(name: str, sources: Sequence[Source]) -> list[str]:
    """Return the values of a condition in the results of folders, each once; those that do not state it count not."""
    found: Iterator[str] = (
        conditions_of(record.environment)[name]
        for source in sources
        for record in source.records.values()
        if record.status == "done"
    )
    return [value for value in dict.fromkeys(found) if value]


def _result_differs(one: RunRecord, other: RunRecord) -> str:
    """Return what differs in two results of a cell; empty if they are equal, whatever they cost."""
    if one.status != other.status:
        return f"statuses {one.status} and {other.status}"
    for name in _COMPARED:
        digests = [record.artifacts[name].sha256 for record in (one, other) if name in record.artifacts]
        if len(set(digests)) > 1:
            return f"{name} differs in the results"
    changed = [name for name in one.metrics.keys() & other.metrics.keys() if one.metrics[name] != other.metrics[name]]
    return f"{', '.join(sorted(changed))} differs in the results" if changed else ""


def _origin(entry: Entry) -> str:
    """Return where a result was made, as in "results/a (AMD EPYC, torch 2.11.0, 2026-11-28)"."""
    assert entry.record is not None
    environment = entry.record.environment
    torch = f"torch {environment['torch']}" if environment.get("torch") else ""
    made = ", ".join(filter(None, [entry.record.device, torch, environment.get("date", "")]))
    return f"{entry.source} ({made})" if made else str(entry.source)
