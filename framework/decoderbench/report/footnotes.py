"""Footnotes on rows: cells without a result, and cells that were made under other conditions than the rest.

No torch here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pandas as pd

from decoderbench.analysis.frame import VARIANT
from decoderbench.analysis.models import models_text
from decoderbench.conditions import ALONE, CONDITIONS, COSTLY, differing

STATED_BY_ALL = ("device", "threads", "torch", "timm", "sources")
"""Conditions that every record states, except those of earlier versions; the others depend on the device."""

Variant = tuple[str, ...]


@dataclass
class Footnotes:
    """Footnotes of a table with one row per variant, and which rows they are about.

    Attributes:
        notes: the texts.
        rows: the numbers of the notes on each variant.
        unlike: whether any cell was made under other conditions than the rest.
        costs: for each measured cost, the numbers of the notes on variants whose cost cannot be compared with others.
    """

    notes: list[str] = field(default_factory=list)
    rows: dict[Variant, list[int]] = field(default_factory=dict)
    costs: dict[str, dict[Variant, list[int]]] = field(default_factory=dict)
    unlike: bool = False

    def mark_row(self, variant: Variant) -> str:
        """Return the mark behind the seeds of a row, as in " (notes 1, 3)"; empty if there is no note."""
        return _mark(self.rows.get(variant, []))

    def mark_cost(self, variant: Variant, cost: str) -> str:
        """Return the mark behind a measured cost of a row; empty if it was measured like the rest."""
        return _mark(self.costs.get(cost, {}).get(variant, []))


def footnotes_of(cells: pd.DataFrame, axes: Sequence[str]) -> Footnotes:
    """Return the footnotes on a frame of cells; rows are named by their labels on `axes`.

    The conditions of most cells are those of the rest, and of two that are equally frequent, those of the first cell.
    """
    found = Footnotes()
    without_result = cells[(cells["status"] != "done") & ((cells["status"] != "pending") | (cells["reason"] != ""))]
    for (status, reason), same in without_result.groupby(["status", "reason"], sort=False):
        _add_note(found, f"{status}: {reason or 'no reason was recorded'}", same, axes)
    done = cells[cells["status"] == "done"]
    usual = {name: _most_common(done[name]) for name in CONDITIONS}
    conditions = done[list(CONDITIONS)].itertuples(index=False, name=None)
    compared = CONDITIONS.keys() - {"measured"}
    # A setting may have another dataset, which has a source of its own.
    expected = {
        dataset: usual | {"dataset_source": _most_common(of_it["dataset_source"])}
        for dataset, of_it in done.groupby("dataset", sort=False)
    }
    unusual = [
        tuple(differing(dict(zip(CONDITIONS, row, strict=True)), expected[dataset], compared))
        for row, dataset in zip(conditions, done["dataset"], strict=True)
    ]
    for names in dict.fromkeys(filter(None, unusual)):
        of_these = done[[other == names for other in unusual]]
        for values, same in of_these.groupby([*names, *(["dataset"] * ("dataset_source" in names))], sort=False):
            rest = expected[same["dataset"].iloc[0]]
            texts = (
                f"{CONDITIONS[name]} {value}, not {rest[name]}" for name, value in zip(names, values, strict=False)
            )
            _add_note(found, f"made under other conditions: {'; '.join(texts)}", same, axes)
            found.unlike = True
            _mark_costs(found, same, names)
    for how, same in done[~done["measured"].isin(["", ALONE])].groupby("measured", sort=False):
        _add_note(found, f"latency and throughput were measured {how}", same, axes)
        _mark_costs(found, same, ["measured"])
    if found.costs:
        found.notes.append(
            "times with a note were not measured like the rest and cannot be compared with them; n/a with a note: the "
            "seeds of the row were not measured alike, so they have no mean"
        )
    if (jobs := usual["jobs"]) not in ("", "1"):
        exception = ", except where a note says otherwise" if done["jobs"].nunique() > 1 else ""
        found.notes.append(f"train img/s were measured with {jobs} cells trained side by side{exception}")
    found.notes += _notes_on_missing(done, axes)
    return found


def _mark(numbers: Sequence[int]) -> str:
    return f" ({'note' if len(numbers) == 1 else 'notes'} {', '.join(map(str, numbers))})" if numbers else ""


def _add_note(found: Footnotes, text: str, cells: pd.DataFrame, axes: Sequence[str]) -> None:
    number = len(found.notes) + 1
    for variant in _variants(cells):
        found.rows.setdefault(variant, []).append(number)
    found.notes.append(f"note {number}, {text} ({_name_cells(cells, axes)})")


def _most_common(values: pd.Series[str]) -> str:
    known = [value for value in values if value]
    return max(dict.fromkeys(known), key=known.count, default="")  # of equals the first


def _mark_costs(found: Footnotes, cells: pd.DataFrame, names: Collection[str]) -> None:
    """Add the last note to the costs that conditions of these names matter for."""
    for cost in (cost for cost, conditions in COSTLY.items() if conditions.intersection(names)):
        for variant in _variants(cells):
            found.costs.setdefault(cost, {}).setdefault(variant, []).append(len(found.notes))


def _notes_on_missing(done: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return a note on conditions that only some of the cells state."""
    missing = [name for name in STATED_BY_ALL if 0 < (done[name] == "").sum() < len(done)]
    if not missing:
        return []
    cells = done[(done[missing] == "").any(axis="columns")]
    words = ", ".join(CONDITIONS[name] for name in missing)
    return [f"not compared, because an earlier version did not record it: {words} ({_name_cells(cells, axes)})"]


def _variants(cells: pd.DataFrame) -> list[Variant]:
    return list(dict.fromkeys(cells[VARIANT].itertuples(index=False, name=None)))


def _name_cells(cells: pd.DataFrame, axes: Sequence[str]) -> str:
    """Return the rows and models of cells, as in "ResNet / columns / CTC, seeds 0, 1"."""
    rows = []
    for _, cells_of_row in cells.groupby(VARIANT, sort=False):
        folds = [None if pd.isna(fold) else int(fold) for fold in cells_of_row["fold"]]
        title = " / ".join(cells_of_row[list(axes)].iloc[0])
        rows.append(f"{title}, {models_text(zip(cells_of_row['seed'].tolist(), folds, strict=True))}")
    return "; ".join(rows)
