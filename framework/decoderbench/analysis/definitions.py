"""Whether the numbers of a column are of one definition: a metric may have changed after some were computed.

No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decoderbench.analysis.models import cells_text
from decoderbench.config.cell import Cell
from decoderbench.metrics import BUILT_IN
from decoderbench.records.schema import RunRecord


@dataclass(frozen=True)
class MixedMetric:
    """A metric whose numbers are not all of one definition, or not of the one that is loaded."""

    name: str
    sources: Mapping[str, str]
    """Digest of the definition of each number, by cell id; empty where it was not recorded."""

    note: str


def find_mixed_metrics(
    cells: Sequence[Cell], records: Sequence[RunRecord | None], loaded: Mapping[str, str]
) -> list[MixedMetric]:
    """Return the metrics whose numbers must not be compared within their column.

    `loaded` gives the digest of each metric that this process could compute. Numbers without a recorded definition,
    of an older version or of a trainer of its own, count as one definition.
    """
    done = [(cell, record) for cell, record in zip(cells, records, strict=True) if record and record.status == "done"]
    names = dict.fromkeys(name for _, record in done for name in sorted(record.metrics))
    found = []
    for name in names:
        rows: dict[str, list[Cell]] = {}
        for cell, record in done:
            if name in record.metrics:
                rows.setdefault(record.metric_sources.get(name, ""), []).append(cell)
        outdated = set(rows) - {"", loaded.get(name) or next(iter(rows))}
        if len(rows) > 1 or outdated:
            sources = {cell.cell_id: source for source, same in rows.items() for cell in same}
            found.append(MixedMetric(name, sources, _note(name, rows, loaded.get(name, ""))))
    return found


def notes_on_missing(cells: Sequence[Cell], records: Sequence[RunRecord | None]) -> list[str]:
    """Return a note for each metric of a plugin that some done cells have and others lack."""
    done = [(cell, record) for cell, record in zip(cells, records, strict=True) if record and record.status == "done"]
    names = sorted({name for _, record in done for name in record.metrics}.difference(BUILT_IN))
    lacking = {name: [cell for cell, record in done if name not in record.metrics] for name in names}
    return [f"{name}: not computed for ({cells_text(missing)})" for name, missing in lacking.items() if missing]


def _note(name: str, rows: Mapping[str, Sequence[Cell]], loaded: str) -> str:
    """Return a footnote that names the rows of each definition but the loaded one, or else the one of most rows."""
    if len(rows) == 1:
        return f"{name}: outdated, all numbers are of another definition than the one that is loaded"
    rest = loaded if loaded in rows else max(rows, key=lambda source: len(rows[source]))
    parts = [f"({cells_text(cells)}) of {_kind(source, loaded)}" for source, cells in rows.items() if source != rest]
    others = len(rows[rest])
    parts.append(f"the other {f'{others} ' if others > 1 else ''}of {_kind(rest, loaded)}")
    return f"{name}: numbers of different definitions, do not compare them: {'; '.join(parts)}"


def _kind(source: str, loaded: str) -> str:
    if not source:
        return "a definition that was not recorded"
    return "the loaded definition" if source == loaded else f"definition {source[:8]}"
