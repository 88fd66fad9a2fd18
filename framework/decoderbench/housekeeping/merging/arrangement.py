"""The cells of several results folders as one grid, and what stands in the way of one table. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from decoderbench.conditions import CONDITIONS, conditions_of
from decoderbench.config.cell import Cell
from decoderbench.exception_text import to_printable_line
from decoderbench.housekeeping.merging.rows import Names, Row, clashes, is_undecided, rows_of
from decoderbench.housekeeping.merging.sources import Source
from decoderbench.records.schema import FAILED, UNVERIFIED_FORMAT, RunRecord

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
        cell: the cell, with the labels that it has there.
        source: the folder that its result is taken from.
        record: its result; None if no folder has one.
    """

    cell: Cell
    source: Source
    record: RunRecord | None


@dataclass
class Arrangement:
    """The merged grid, and what was found.

    Attributes:
        cells: the cells by their id.
        tuning: the trials of tuning by their id.
        settings: what each setting changes, by its label.
        problems: code and sentence of what stands in the way of one table, each once.
        twice: the number of results that several folders have, and that are equal.
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
        own, rows = cls(), list[Row]()
        for number, source in enumerate(sources):
            own._compare_conditions(source, sources[:number])
            names = own._name_rows(source, rows)
            for entries, cells in ((own.cells, source.plan.cells), (own.tuning, source.plan.tuning)):
                for cell in cells:
                    shown = names[cell.variant].of(cell) if cell.variant in names else cell
                    own._add(entries, Entry(shown, source, source.records.get(cell.cell_id)))
            own.settings |= {label: text for label, text in source.plan.settings.items() if label not in own.settings}
        decided = {entry.cell.place for entry in own.cells.values() if not is_undecided(entry.cell)}
        left = {name for name, e in own.cells.items() if is_undecided(e.cell) and e.cell.place in decided}
        own.cells = {name: entry for name, entry in own.cells.items() if name not in left}
        used = {entry.cell.setting for entry in own.cells.values()}
        own.settings = {label: text for label, text in own.settings.items() if label in used}
        return own

    @staticmethod
    def in_order(entries: Mapping[str, Entry]) -> list[Entry]:
        """Return entries by rows as they appear, and in a row by seed and fold."""
        variants = list(dict.fromkeys(entry.cell.variant for entry in entries.values()))
        place = {variant: number for number, variant in enumerate(variants)}
        return sorted(entries.values(), key=lambda e: (place[e.cell.variant], e.cell.seed, e.cell.fold or 0))

    def _name_rows(self, source: Source, rows: list[Row]) -> dict[tuple[str, ...], Names]:
        """Return the labels that the rows of a folder get, by variant, and add the new ones to `rows`.

        A row that is there already keeps the labels that it has there. One that clashes gets a setting of its own.
        """
        names: dict[tuple[str, ...], Names] = {}
        earlier = list(rows)
        for row in rows_of(source):
            variant = row.cell.variant
            if same := next((other for other in earlier if other.key == row.key), None):
                names[variant] = Names.of_row(same.cell, same.cell.setting)
                if same.cell.variant != variant:
                    self.notes.append(f"row {row.cell.variant_title} of {source} is {same.cell.variant_title}")
                self._compare_choices(row, same, source)
                continue
            found = list(dict.fromkeys(clashes(row, earlier)))
            setting = row.cell.setting
            if found:
                title = row.cell.variant_title
                for code, text in found:
                    self.problems[code, f"{title}: {text} in {source}"] = None
                setting = self._free_setting(row, source, rows)
                given = source.plan.settings.get(row.cell.setting, "")
                differing = ", ".join(dict.fromkeys(text for _, text in found))
                self.settings[setting] = "; ".join(filter(None, [given, differing]))
            names[variant] = Names.of_row(row.cell, setting)
            rows.append(replace(row, cell=names[variant].of(row.cell)))
        return names

    def _free_setting(self, row: Row, source: Source, rows: Sequence[Row]) -> str:
        """Return the label of a setting under which no row with the same components stands."""
        taken = {other.cell.variant for other in rows}
        label = ", ".join(filter(None, [row.cell.setting, f"of {to_printable_line(str(source))}"]))
        for number in count(1):
            setting = label if number == 1 else f"{label} ({number})"
            if row.cell.model_copy(update={"setting": setting}).variant not in taken:
                return setting
        raise AssertionError

    def _compare_choices(self, row: Row, same: Row, source: Source) -> None:
        """Find a row whose trials have chosen otherwise in two folders."""
        undecided = is_undecided(row.cell) or is_undecided(same.cell)
        if not undecided and row.cell.tuned != same.cell.tuned:
            chosen = f"trials chose {row.cell.tuned_text} in {source}, {same.cell.tuned_text} before"
            self.problems["other_settings", f"{same.cell.variant_title}: {chosen}"] = None

    def _add(self, entries: dict[str, Entry], entry: Entry) -> None:
        """Add a cell, or decide which of two results of it is kept."""
        known = entries.setdefault(entry.cell.cell_id, entry)
        if known is entry or entry.record is None:
            return
        title, failed = entry.cell.title, [found.record and found.record.status in FAILED for found in (known, entry)]
        if known.record is None:
            entries[entry.cell.cell_id] = replace(entry, cell=known.cell)
        elif failed == [True, False]:
            self.notes.append(f"{title}: {known.record.status} in {known.source}; that of {entry.source} is taken")
            entries[entry.cell.cell_id] = replace(entry, cell=known.cell)
        elif failed == [False, True]:
            self.notes.append(f"{title}: {entry.record.status} in {entry.source}; that of {known.source} is taken")
        elif failed == [False, False] and (what := _result_differs(known.record, entry.record)):
            both = f"{_origin(known)} and {_origin(entry)}"
            self.problems["other_results", f"{title}: {what} of {both}"] = None
        elif failed == [False, False]:
            self.twice += 1

    def _compare_conditions(self, source: Source, earlier: Sequence[Source]) -> None:
        """Find results of other code than that of earlier folders, and such of a format without sha256."""
        for name in _CODE:
            before, now = (_values(name, folders) for folders in (earlier, [source]))
            if before and (new := [value for value in now if value not in before]):
                text = f"{CONDITIONS[name]} {new[0][:_SHOWN]} in {source}, {before[0][:_SHOWN]} before"
                self.problems["other_code", text] = None
        if number := sum(record.format == UNVERIFIED_FORMAT for record in source.records.values()):
            self.problems["unverified", f"{number} results of {source} state no sha256"] = None
        if others := source.directory.count_other_results([*source.plan.cells, *source.plan.tuning]):
            self.notes.append(f"{source} has {others} results of earlier settings, which its plan does not list")


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
    """Return what differs in two results of a cell; empty if they are equal, whatever they cost.

    Metrics may have been computed anew from equal transcriptions.
    """
    if one.status != other.status:
        return f"statuses {one.status} and {other.status}"
    for name in _COMPARED:
        digests = [record.artifacts[name].sha256 for record in (one, other) if name in record.artifacts]
        if len(set(digests)) > 1:
            return f"{name} differs in the results"
    if len({record.predictions_digest for record in (one, other) if record.predictions_digest}) > 1:
        return "predictions.parquet differs in the results"
    if _COMPARED[0] in one.artifacts and _COMPARED[0] in other.artifacts:
        return ""
    changed = [name for name in one.metrics.keys() & other.metrics.keys() if one.metrics[name] != other.metrics[name]]
    return f"{', '.join(sorted(changed))} differs in the results" if changed else ""


def _origin(entry: Entry) -> str:
    """Return where a result was made, as in "results/a (AMD EPYC, torch 2.11.0, 2026-11-28)"."""
    assert entry.record is not None
    environment = entry.record.environment
    torch = f"torch {environment['torch']}" if environment.get("torch") else ""
    made = ", ".join(filter(None, [entry.record.device, torch, environment.get("date", "")]))
    return f"{entry.source} ({made})" if made else str(entry.source)
