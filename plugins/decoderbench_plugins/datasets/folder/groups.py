"""Groups of samples that belong together: of one photograph, page, book, writer or sidecar file."""

import re
from collections import Counter
from collections.abc import Sequence
from posixpath import basename, dirname
from typing import NamedTuple

from decoderbench import DataError

from .labels import Row

KNOWN = """author book camera doc document form group image img manuscript newspaper original originalimage page parent
    parentimage person photo photograph picture scan scene session source sourcefile sourceimage speaker subject user
    video volume writer"""
FEWEST = 3  # fewer groups cannot be dealt to train, val and test
HEADER = re.compile(f"({'|'.join(KNOWN.split())}|line(?=id))s?(id|ids|index|key|name|nr|no|num|number)?")


class Grouping(NamedTuple):
    """The group of each sample."""

    column: str  # empty: groups have one sample each, or one sidecar file
    of: Sequence[str]

    @property
    def name(self) -> str:
        """What samples are kept together by, for people."""
        if self.column:
            return f"group {self.column}"
        return "sample" if len(set(self.of)) == len(self.of) else "sidecar file"

    def divided(self, splits: Sequence[str]) -> list[str]:
        """Return the groups that are in several parts."""
        parts = Counter(group for group, _ in {*zip(self.of, splits, strict=True)})
        return sorted(group for group, count in parts.items() if count > 1)


def chosen_grouping(rows: Sequence[Row], column: str | None) -> Grouping:
    """Return the groups of a column, or of sidecar files if there is none."""
    if column is None:
        return Grouping("", [row.group or row.name for row in rows])
    require_column(rows, column)
    return Grouping(column, [row.columns[column] for row in rows])


def declared_groups(rows: Sequence[Row], column: str | None) -> list[str]:
    """Return the group of each sample, as the column or a common sidecar file says; empty for a group of its own.

    Samples whose column is empty are dealt as one group, but nothing says that they are one.
    """
    if column is not None:
        return [row.columns.get(column, "") for row in rows]
    sizes = Counter(row.group for row in rows)
    return [row.group if sizes[row.group] > 1 else "" for row in rows]


def likely_groupings(rows: Sequence[Row]) -> list[Grouping]:
    """Return the groups of columns that have the name of groups, and values that occur more than once."""
    found = []
    for column in rows[0].columns:
        if not HEADER.fullmatch(re.sub("[^a-z]", "", column.lower())) or any(column not in row.columns for row in rows):
            continue
        groups = [row.columns[column] or row.name for row in rows]
        if FEWEST <= len(set(groups)) < len(groups):
            found.append(Grouping(column, groups))
    return found


def folders_of(rows: Sequence[Row]) -> list[str]:
    """Return the folders that hold the images; none if they are the labels."""
    folders = sorted({dirname(row.name) for row in rows})
    return [] if {basename(folder) for folder in folders} == {row.label for row in rows} else folders


def require_column(rows: Sequence[Row], column: str) -> None:
    """Raise `DataError` if a sample has no such column."""
    if missing := next((row for row in rows if column not in row.columns), None):
        known = ", ".join(missing.columns) or "none"
        raise DataError(f"{missing.place}: must have one column {column!r}; its columns: {known}")
