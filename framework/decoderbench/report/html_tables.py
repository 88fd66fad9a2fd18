"""The tables of the page: what stands in each cell, by what it is sorted, how many rows are shown. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from decoderbench.report.metric_texts import in_unit, metric_text
from decoderbench.report.tables import MISSING, Table, format_fixed, format_p, format_significant
from decoderbench.statistics import ALPHA

SHOWN = 50
"""The most rows of a long table on the page; its file has all."""

_NUMBER = re.compile(
    r"(?P<text><?[+-]?[\d,]*\.?\d+)(?: \[(?P<low>\S+), (?P<high>\S+)\])?(?P<rest>(?: of \d+)?(?: \(notes? .*\))?)"
)
Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Value:
    """What stands in a cell of a table.

    Attributes:
        text: what is read.
        sort: the number by which rows are sorted; None: the text decides.
        strong: whether it is bold.
        detail: smaller text below it, such as an interval.
        badges: short remarks.
    """

    text: str
    sort: float | None = None
    strong: bool = False
    detail: str = ""
    badges: Sequence[str] = ()


@dataclass(frozen=True)
class Grid:
    """A table of the page.

    Attributes:
        identity: of the element.
        caption: what it shows.
        headers: of its columns.
        rows: the values of each row.
        num_labels: how many leading columns are texts.
        total: how many rows its file has.
        file: where all rows are; empty: nowhere else.
        notes: sentences below it.
        num_remarks: how many trailing columns are texts.
    """

    identity: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Value]]
    num_labels: int = 1
    total: int = 0
    file: str = ""
    notes: Sequence[str] = ()
    num_remarks: int = 0

    def is_text(self, column: int) -> bool:
        """Return whether a column holds texts, not numbers."""
        return column < self.num_labels or column >= len(self.headers) - self.num_remarks

    @property
    def left_out(self) -> str:
        """Say which rows are shown, if not all are."""
        if self.total <= len(self.rows):
            return ""
        where = f"; all are in {self.file}" if self.file else ""
        return f"first {len(self.rows)} of {self.total:,}{where}"


def grid_of_table(table: Table, *, numbered: bool = False) -> Grid:
    """Return a table of the report as one of the page; `numbered`: with numbers of rows, and remarks set apart."""
    num_columns = len(table.headers)

    def read(row: int, column: int, text: str) -> Value:
        if column < table.num_labels:
            return Value(text)
        if column >= num_columns - table.num_remarks:
            return Value("", badges=text.split("; ") if text else ()) if numbered else Value(text)
        return _read_number(text, strong=(row, column) in table.bold)

    rows = [[read(row, column, text) for column, text in enumerate(line)] for row, line in enumerate(table.rows)]
    numbers = [[Value(str(row), row)] if numbered else [] for row in range(1, len(rows) + 1)]
    return Grid(
        table.name,
        f"{table.caption[:1].upper()}{table.caption[1:]}.",
        [*(["#"] if numbered else []), *table.headers],
        [[*number, *line] for number, line in zip(numbers, rows, strict=True)],
        table.num_labels + numbered,
        len(rows),
        notes=table.notes,
        num_remarks=table.num_remarks,
    )


def _read_number(text: str, *, strong: bool) -> Value:
    found = _NUMBER.fullmatch(text)
    if not found:
        return Value(text)
    number = found["text"].replace(",", "").lstrip("<")
    detail = f"[{found['low']}, {found['high']}]" if found["low"] else ""
    return Value(found["text"] + found["rest"], float(number), strong=strong, detail=detail)


def is_number(value: Any) -> bool:
    """Return whether a value of a frame is there."""
    return value is not None and not bool(pd.isna(value))


def label(name: str) -> Callable[[Row], Value]:
    """Return a reader of a column of texts."""
    return lambda row: Value(str(row[name]) if is_number(row[name]) else "")


def number(name: str, *, decimals: int | None = None, factor: float = 1.0, sign: str = "") -> Callable[[Row], Value]:
    """Return a reader of a column of numbers, with fixed decimals or with three digits."""

    def read(row: Row) -> Value:
        if not is_number(row.get(name)):
            return Value(MISSING)
        value = factor * float(row[name])
        return Value(format_significant(value) if decimals is None else format_fixed(value, decimals, sign=sign), value)

    return read


def position(name: str) -> Callable[[Row], Value]:
    """Return a reader of the number of a row of the main table, from 1, from its position."""
    return lambda row: Value(str(int(row[name]) + 1), int(row[name]) + 1)


def difference(metric: str) -> Callable[[Row], Value]:
    """Return a reader of a difference with its interval."""

    def read(row: Row) -> Value:
        if not is_number(row["difference"]):
            return Value(MISSING)
        ends = [metric_text(metric, row[end], sign="+") for end in ("low", "high")]
        detail = f"[{', '.join(ends)}]" if is_number(row["low"]) else ""
        value = float(row["difference"])
        return Value(metric_text(metric, value, sign="+"), in_unit(metric, value), detail=detail)

    return read


def p_value(name: str, *, bold: bool = False) -> Callable[[Row], Value]:
    """Return a reader of a p value; `bold` if it is small."""

    def read(row: Row) -> Value:
        if not is_number(row[name]):
            return Value(MISSING)
        return Value(format_p(row[name]), float(row[name]), strong=bold and row[name] <= ALPHA)

    return read


def frame_grid(
    identity: str,
    caption: str,
    frame: pd.DataFrame,
    columns: Mapping[str, Callable[[Row], Value]],
    *,
    num_labels: int = 1,
    file: str = "",
    notes: Iterable[str] = (),
    shown: int = SHOWN,
) -> Grid | None:
    """Return a table with one row per row of a frame; None if the frame is empty.

    Args:
        identity: of the element.
        caption: what it shows.
        frame: the rows.
        columns: for each header how its value is made of a row.
        num_labels: how many leading columns are texts.
        file: where all rows are.
        notes: sentences below it.
        shown: the most rows.
    """
    if frame.empty:
        return None
    rows = [[read(row) for read in columns.values()] for row in frame.head(shown).to_dict("records")]
    return Grid(identity, caption, list(columns), rows, num_labels, len(frame), file, tuple(notes))
