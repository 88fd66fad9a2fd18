"""Tables as Markdown, LaTeX and CSV: number formats, and all escaping.

Labels and reasons are arbitrary text, and no format may interpret them as markup. `framework/decisions/0010` explains
why the escaping is our own. No torch here.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

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


def format_interval(value: float, ends: tuple[float, float], decimals: int, *, sign: str = "") -> str:
    """Return `value [low, high]`, or only the value if the interval is missing."""
    text, *around = (format_fixed(number, decimals, sign=sign) for number in (value, *ends))
    return text if MISSING in around else f"{text} [{', '.join(around)}]"


def format_p(p: float) -> str:
    """Return a p value with three decimals, or `n/a` if it is missing."""
    return "<0.001" if p < 0.001 else format_fixed(p, 3)


def to_csv(frame: pd.DataFrame) -> str:
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

    name: str
    """Names its file, and its label in LaTeX."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    num_labels: int
    """The number of leading columns that hold labels."""

    notes: Sequence[str]
    """Footnotes, without a full stop."""

    bold: frozenset[tuple[int, int]] = frozenset()
    """Rows and columns of the numbers that are bold."""

    num_remarks: int = 0
    """The number of trailing columns that hold text; those between labels and remarks hold numbers."""

    def markdown(self) -> str:
        """Return the table with its notes as a list below."""
        grid = tabulate(
            self._written(escape_markdown, str, "**{}**"),
            headers=list(map(escape_markdown, self.headers)),
            tablefmt="github",
            disable_numparse=True,
            colalign=["left" if text else "right" for text in self._are_texts],
        )
        return "\n".join([grid, "", bullet_list(self.notes)])

    def latex(self, experiment: str) -> str:
        r"""Return the table as LaTeX, with its notes below. It needs the package booktabs.

        A comment says so if it has characters that pdfTeX lacks.
        The caption begins with `experiment`. The label for `\ref` is that of the experiment and the table's name.
        """
        columns = "".join("l" if text else "r" for text in self._are_texts)
        lines = [
            r"% \usepackage{booktabs}",
            *(
                []
                if self._is_latin
                else ["% has characters of other scripts: use XeLaTeX or LuaLaTeX, with a font for them"]
            ),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(f'{experiment}: {self.caption}')}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.-]', '-', f'{experiment}-{self.name}')}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(map(escape_latex, self.headers)),
            r"\midrule",
            *map(_latex_row, self._written(escape_latex, escape_latex, r"\textbf{{{}}}")),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par {escape_latex(note)}." for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _is_latin(self) -> bool:
        texts = (self.caption, *self.headers, *self.notes, *(text for row in self.rows for text in row))
        return all(ord(character) < 0x180 for text in texts for character in text)

    @property
    def _are_texts(self) -> list[bool]:
        between = len(self.headers) - self.num_labels - self.num_remarks
        return [True] * self.num_labels + [False] * between + [True] * self.num_remarks

    def _written(self, text: Callable[[str], str], number: Callable[[str], str], bold: str) -> list[list[str]]:
        """Return the rows with texts and numbers written by these functions, and bold numbers put into `bold`."""
        writers = [text if is_text else number for is_text in self._are_texts]
        written = [[write(cell) for write, cell in zip(writers, row, strict=True)] for row in self.rows]
        for row, column in self.bold:
            written[row][column] = bold.format(written[row][column])
        return written


def _latex_row(texts: Iterable[str]) -> str:
    return rf"{' & '.join(texts)} \\"
