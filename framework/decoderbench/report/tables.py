"""Tables as text: the main table, number formats, and the one home of escaping.

A label is what a person typed: no format may read it as markup. No torch here.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from decoderbench.config.cell import shown_axes
from decoderbench.report.frame import VARIANT, Results, summarize

MISSING = "n/a"

_MARKDOWN_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#>+-]")
_LATEX_MARKS = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "`": r"\textasciigrave{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "*": "{*}",
    }
)


def one_line(text: str) -> str:
    """Return the text without outer space, line breaks and other unprintable characters as spaces."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def escape_markdown(text: str) -> str:
    """Return Markdown that shows the text as it is, in a table too; `_` within a word needs no escape."""
    marked = _MARKDOWN_MARKS.sub(r"\\\g<0>", one_line(text))
    return re.sub(r"&(?=#?\w+;)", "&amp;", marked).replace("<", "&lt;")


def escape_latex(text: str) -> str:
    """Return LaTeX that shows the text as it is; a `[` or `*` at the start of a row is not the row break's argument."""
    return one_line(text).translate(_LATEX_MARKS)


def bullets(lines: Iterable[str]) -> str:
    """Return texts as a Markdown list."""
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def listed(values: Iterable[object]) -> str:
    """Return each value once, with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))


def rounded(value: float, decimals: int, *, sign: str = "") -> str:
    """Return a number with so many decimals, or `n/a` if it is missing; `sign` is that of a format, as in `+`."""
    return MISSING if pd.isna(value) else f"{value:{sign}z.{decimals}f}"


def significant(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point, or `n/a`."""
    magnitude = 0 if pd.isna(value) or value == 0 else math.floor(math.log10(abs(value)))
    return rounded(value, max(0, 2 - magnitude))


def with_spread(mean: float, spread: float, decimals: int, *, sign: str = "") -> str:
    """Return `mean ± spread`; the mean alone if there is no spread."""
    return rounded(mean, decimals, sign=sign) + ("" if pd.isna(spread) else f" ± {rounded(spread, decimals)}")


def cells_csv(frame: pd.DataFrame) -> str:
    r"""Return a frame as CSV without loss: floats by repr, missing values empty, lines end in `\n`.

    Because nothing is changed, a label such as `=1+1` is a formula to a spreadsheet: import it as text.
    """
    rows = _Rows()
    writer = csv.writer(rows, lineterminator="\r\n")
    writer.writerow(frame.columns)
    writer.writerows(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))
    return "".join(rows)


class _Rows(list[str]):
    r"""A file for the csv module, which quotes a lone `\r` only where rows end in `\r\n`."""

    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


@dataclass(frozen=True)
class Table:
    """A table as plain text, which each format escapes in its own way."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    num_labels: int
    """So many columns, the first ones, are labels and not numbers."""

    notes: Sequence[str]
    """What a reader must know, without a full stop."""

    def markdown(self) -> str:
        """Return the table with its notes as a list below it."""
        aligned = ["left"] * self.num_labels + ["right"] * (len(self.headers) - self.num_labels)
        grid = tabulate(
            [list(map(escape_markdown, row[: self.num_labels])) + list(row[self.num_labels :]) for row in self.rows],
            headers=list(map(escape_markdown, self.headers)),
            tablefmt="github",
            disable_numparse=True,
            colalign=aligned,
        )
        return "\n".join([grid, "", bullets(self.notes)])

    def latex(self, experiment: str, *, part: str = "") -> str:
        r"""Return the table as LaTeX, with its notes below it. Needs booktabs, and UTF-8 for the `±`.

        `experiment` and `part` make the caption and the label that a text refers to.
        """
        columns = "l" * self.num_labels + "r" * (len(self.headers) - self.num_labels)
        lines = [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(f'{experiment}: {self.caption}')}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.-]', '-', experiment + part)}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(self.headers),
            r"\midrule",
            *map(_latex_row, self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par {escape_latex(note)}." for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    return rf"{' & '.join(map(escape_latex, texts))} \\"


def main_table(results: Results) -> Table:
    """Return one row a variant, and below it: what is spread, cells without a result, allowed problems, pending cells.

    Names stand first if any row has one; rectifiers are left out where none does anything.
    """
    summary = summarize(results.cells)
    axes = shown_axes(results.plan.cells)
    labels = [*(["name"] if (summary["name"] != "").any() else []), *axes]
    notes, numbers = _notes_on_failures(results.cells, list(axes))
    rows = []
    for row in summary.to_dict("records"):
        variant = tuple(row[axis] for axis in VARIANT)
        seeds = str(row["num_seeds"])
        if row["num_seeds"] < row["num_cells"]:
            seeds += f" of {row['num_cells']}"
        if marks := numbers.get(variant):
            seeds += f" ({'note' if len(marks) == 1 else 'notes'} {', '.join(map(str, marks))})"
        rows.append(
            {
                **{label.capitalize(): row[label] for label in labels},
                "Exact match (%)": _percent(row, "exact_match"),
                "CER (%)": _percent(row, "cer"),
                "1-NED (%)": _percent(row, "one_minus_ned"),
                "Nats/char": with_spread(row["nats_per_char_mean"], row["nats_per_char_std"], 3),
                "Seeds": seeds,
                "Params (M)": significant(row["param_count"]),
                "GMACs": significant(row["gmacs"]),
                "ms/image": significant(row["latency_ms"]),
                "Train img/s": significant(row["train_samples_per_sec"]),
            }
        )
    pending = int((results.cells["status"] == "pending").sum())
    below = [
        *([_spread_note(summary["num_seeds"])] if summary["num_seeds"].any() else []),
        *notes,
        *results.plan.data_notes,
        *([f"pending: {pending} of {len(results.cells)} cells"] if pending else []),
    ]
    return Table(
        "accuracy on the test split, and cost", list(rows[0]), [list(row.values()) for row in rows], len(labels), below
    )


def _percent(row: Mapping[Hashable, float], metric: str) -> str:
    return with_spread(100 * row[f"{metric}_mean"], 100 * row[f"{metric}_std"], 1)


def _spread_note(num_seeds: pd.Series[int]) -> str:
    counts = sorted(set(num_seeds[num_seeds > 0]))
    if counts[-1] == 1:
        return "one seed a row, so no spread is shown"
    over = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    alone = "; a row with one seed shows none" if counts[0] == 1 else ""
    return f"± is the sample standard deviation over the seeds of a row, here {over} seeds{alone}"


def _notes_on_failures(cells: pd.DataFrame, axes: list[str]) -> tuple[list[str], dict[tuple[str, ...], list[int]]]:
    """Return one note a reason, which names rows by `axes`, and the numbers of its notes for each variant."""
    notes = []
    numbers: dict[tuple[str, ...], list[int]] = {}
    without_result = cells[~cells["status"].isin(["done", "pending"])]
    for number, (_, same) in enumerate(without_result.groupby(["status", "reason"], sort=False), start=1):
        who = []
        for variant, members in same.groupby(VARIANT, sort=False):
            numbers.setdefault(tuple(map(str, variant)), []).append(number)
            seeds = members["seed"].tolist()
            title = " / ".join(members[axes].iloc[0])
            who.append(f"{title}, {'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)}")
        status, reason = same[["status", "reason"]].iloc[0]
        notes.append(f"note {number}, {status}: {reason or 'no reason was recorded'} ({'; '.join(who)})")
    return notes, numbers
