"""Tables as Markdown, LaTeX and CSV: the main table, number formats, and all escaping.

Labels and reasons are arbitrary text, and no format may interpret them as markup. `framework/decisions/0010` explains
why the escaping is our own. No torch here.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from decoderbench.analysis.frame import VARIANT, Results, summarize
from decoderbench.config.cell import shown_axes
from decoderbench.report.footnotes import footnotes_of
from decoderbench.report.settings import notes_on_learning

MISSING = "n/a"

_MARKDOWN_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#>+-]")
_MARKDOWN_NUMBER = re.compile(r"^([0-9]+)([.)])(?=\s|$)")  # begins a list
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


def to_single_line(text: str) -> str:
    """Return the text with unprintable characters (line breaks too) replaced by spaces, and stripped."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def escape_markdown(text: str) -> str:
    """Return Markdown that displays the text literally, also in a table. `_` within a word needs no escape."""
    marked = _MARKDOWN_NUMBER.sub(r"\1\\\2", _MARKDOWN_MARKS.sub(r"\\\g<0>", to_single_line(text)))
    return re.sub(r"&(?=#?\w+;)", "&amp;", marked).replace("<", "&lt;")


def escape_latex(text: str) -> str:
    r"""Return LaTeX that displays the text literally.

    `[` and `*` are put in braces: at the start of a row, they would be an argument of the preceding `\\`.
    """
    return to_single_line(text).translate(_LATEX_MARKS)


def bullet_list(lines: Iterable[str]) -> str:
    """Return texts as a Markdown list."""
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def join_distinct(values: Iterable[object]) -> str:
    """Return the distinct values in order of appearance, separated by commas."""
    return ", ".join(dict.fromkeys(map(str, values)))


def format_fixed(value: float, decimals: int, *, sign: str = "") -> str:
    """Return a number with fixed decimals, or `n/a` if it is missing. `sign` is that of a format spec, such as `+`."""
    # Rounded twice, so that 97.45 is the same number in every table, whatever the order of the sum behind it.
    return MISSING if pd.isna(value) else f"{round(value, 9):{sign}z.{decimals}f}"


def format_significant(value: float) -> str:
    """Return a number with three significant digits (integer digits are never dropped), or `n/a` if it is missing."""
    magnitude = 0 if pd.isna(value) or value == 0 else math.floor(math.log10(abs(value)))
    return format_fixed(value, max(0, 2 - magnitude))


def format_mean_std(mean: float, std: float, decimals: int, *, sign: str = "") -> str:
    """Return `mean ± std`, or only the mean if `std` is missing."""
    return format_fixed(mean, decimals, sign=sign) + ("" if pd.isna(std) else f" ± {format_fixed(std, decimals)}")


def cells_csv(frame: pd.DataFrame) -> str:
    r"""Return a frame as lossless CSV: floats by repr, missing values empty, lines end in `\n`.

    Labels are not altered, so a spreadsheet treats a label such as `=1+1` as a formula: import the columns as text.
    """
    rows = _Rows()
    writer = csv.writer(rows, lineterminator="\r\n")
    writer.writerow(frame.columns)
    writer.writerows(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))
    return "".join(rows)


class _Rows(list[str]):
    r"""A file for the csv module, with rows ending in `\n`.

    The module quotes a field with a lone `\r` only if its line terminator is `\r\n`, so rows arrive with that.
    """

    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


@dataclass(frozen=True)
class Table:
    """A table of plain text; each format escapes it in its own way."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    num_labels: int
    """The number of leading columns that hold labels; the others hold numbers."""

    notes: Sequence[str]
    """Footnotes, without a full stop."""

    def markdown(self) -> str:
        """Return the table with its notes as a list below."""
        aligned = ["left"] * self.num_labels + ["right"] * (len(self.headers) - self.num_labels)
        grid = tabulate(
            [list(map(escape_markdown, row[: self.num_labels])) + list(row[self.num_labels :]) for row in self.rows],
            headers=list(map(escape_markdown, self.headers)),
            tablefmt="github",
            disable_numparse=True,
            colalign=aligned,
        )
        return "\n".join([grid, "", bullet_list(self.notes)])

    def latex(self, experiment: str, *, part: str = "") -> str:
        r"""Return the table as LaTeX, with its notes below. It needs the package booktabs, and UTF-8 for the `±`.

        The caption begins with `experiment`. The label for `\ref` is `experiment` followed by `part`.
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
    """Return one row per variant, with notes on the spread, on cells without a result or made otherwise, and on data.

    A column of names comes first if any row has a name. The rectifier column is omitted if every rectifier is `none`.
    """
    summary = summarize(results.cells)
    axes = shown_axes(results.plan.cells)
    labels = [*(["name"] if (summary["name"] != "").any() else []), *axes]
    marks = footnotes_of(results.cells, axes)
    rows = []
    for row in summary.to_dict("records"):
        variant = tuple(row[axis] for axis in VARIANT)
        seeds = str(row["num_seeds"])
        if row["num_seeds"] < row["num_cells"]:
            seeds += f" of {row['num_cells']}"
        rows.append(
            {
                **{label.capitalize(): row[label] for label in labels},
                "Exact match (%)": _percent(row, "exact_match"),
                "CER (%)": _percent(row, "cer"),
                "1-NED (%)": _percent(row, "one_minus_ned"),
                "Nats/char": format_mean_std(row["nats_per_char_mean"], row["nats_per_char_std"], 3),
                "Seeds": seeds + marks.mark_row(variant),
                "Params (M)": format_significant(row["param_count"]),
                "GMACs": format_significant(row["gmacs"]),
                "ms/image": format_significant(row["latency_ms"]) + marks.mark_cost(variant, "latency_ms"),
                "Train img/s": format_significant(row["train_samples_per_sec"])
                + marks.mark_cost(variant, "train_samples_per_sec"),
            }
        )
    pending = int((results.cells["status"] == "pending").sum())
    footnotes = [
        *([_spread_note(summary["num_seeds"])] if summary["num_seeds"].any() else []),
        *marks.notes,
        *results.metric_notes,
        *results.file_notes,
        *results.plan.data_notes,
        *notes_on_learning(results.plan),
        *([f"pending: {pending} of {len(results.cells)} cells"] if pending else []),
    ]
    return Table(
        caption="accuracy on the test split, and cost",
        headers=list(rows[0]),
        rows=[list(row.values()) for row in rows],
        num_labels=len(labels),
        notes=footnotes,
    )


def _percent(row: Mapping[Hashable, float], metric: str) -> str:
    return format_mean_std(100 * row[f"{metric}_mean"], 100 * row[f"{metric}_std"], 1)


def _spread_note(num_seeds: pd.Series[int]) -> str:
    counts = sorted(set(num_seeds[num_seeds > 0]))
    if counts[-1] == 1:
        return "one seed per row, so no spread is shown; do not rank rows by this table"
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    exception = "; rows with one seed show none" if counts[0] == 1 else ""
    return f"± is the sample standard deviation over the seeds of a row, here {seeds} seeds{exception}"
