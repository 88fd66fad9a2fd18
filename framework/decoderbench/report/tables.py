"""Tables: `cells.csv`, `report.md`, `table.tex`. The one home of number formats and of escaping.

A label is what a person typed: no format may read it as markup. No torch here.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Hashable, Iterable, Mapping

import pandas as pd
from tabulate import tabulate

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


def escape_latex(text: object) -> str:
    """Return LaTeX that shows the text as it is.

    pandas' own escape leaves `[` and `*`, which at the start of a row become arguments of the row break.
    """
    return one_line(str(text)).translate(_LATEX_MARKS)


def rounded(value: float, decimals: int) -> str:
    """Return a number with so many decimals, or `n/a` if it is missing."""
    return MISSING if pd.isna(value) else f"{value:.{decimals}f}"


def significant(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point, or `n/a`."""
    magnitude = 0 if pd.isna(value) or value == 0 else math.floor(math.log10(abs(value)))
    return rounded(value, max(0, 2 - magnitude))


def with_spread(mean: float, spread: float, decimals: int) -> str:
    """Return `mean ± spread`; the mean alone if there is no spread."""
    return rounded(mean, decimals) + ("" if pd.isna(spread) else f" ± {rounded(spread, decimals)}")


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


def markdown_table(results: Results) -> str:
    """Return the table with what a reader of it must know: spread, cells without a result, pending cells."""
    table, notes = _table(results)
    cells = table.map(escape_markdown)
    grid = tabulate(
        cells.values.tolist(),
        headers=list(table.columns),
        tablefmt="github",
        disable_numparse=True,
        colalign=["left"] * 3 + ["right"] * (len(table.columns) - 3),
    )
    return "\n".join([grid, "", *(f"- {escape_markdown(note)}" for note in notes)])


def latex_table(results: Results, *, command: str) -> str:
    r"""Return the table as LaTeX, with the same notes below it. Needs booktabs, and UTF-8 for the `±`."""
    table, notes = _table(results)
    body = (
        table.style.hide(axis="index")
        .format(escape_latex)
        .format_index(escape_latex, axis="columns")
        .to_latex(hrules=True, column_format="lll" + "r" * (len(table.columns) - 3))
    )
    name = results.plan.experiment
    lines = [
        f"% {one_line(command)}",
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(f'{name}: accuracy on the test split, and cost')}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9.-]', '-', name)}}}",
        r"\footnotesize",
        body.rstrip("\n"),
        *(rf"\par {escape_latex(note)}." for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown_report(results: Results, *, command: str, figures: Mapping[str, str]) -> str:
    """Return the whole page. `figures` are file names and what they show."""
    plan = results.plan
    datasets = _listed(cell.dataset for cell in plan.cells)
    sections = [
        f"# {escape_markdown(plan.experiment)}",
        f"Dataset: {escape_markdown(datasets)}.",
        markdown_table(results),
        *(["## Data", _bullets(plan.data_summary)] if plan.data_summary else []),
        *(["## Figures"] if figures else []),
        *(f"![{escape_markdown(shown)}]({name})" for name, shown in figures.items()),
        "## How it was measured",
        _bullets(_method(results)),
        "## Provenance",
        f"Planned, and last run, by\n\n    {one_line(plan.command)}",
        f"This report is made by\n\n    {one_line(command)}",
        _bullets(_environment(results)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows as plain text and the notes below them; both still have to be escaped."""
    summary = summarize(results.cells)
    notes, numbers = _notes_on_failures(results.cells)
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
                "Encoder": row["encoder"],
                "Bridge": row["bridge"],
                "Decoder": row["decoder"],
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
    return pd.DataFrame(rows), [
        *([_spread_note(summary["num_seeds"])] if summary["num_seeds"].any() else []),
        *notes,
        *results.plan.data_notes,
        *([f"pending: {pending} of {len(results.cells)} cells"] if pending else []),
    ]


def _percent(row: Mapping[Hashable, float], metric: str) -> str:
    return with_spread(100 * row[f"{metric}_mean"], 100 * row[f"{metric}_std"], 1)


def _spread_note(num_seeds: pd.Series[int]) -> str:
    counts = sorted(set(num_seeds[num_seeds > 0]))
    if counts[-1] == 1:
        return "one seed a row, so no spread is shown"
    over = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    alone = "; a row with one seed shows none" if counts[0] == 1 else ""
    return f"± is the sample standard deviation over the seeds of a row, here {over} seeds{alone}"


def _notes_on_failures(cells: pd.DataFrame) -> tuple[list[str], dict[tuple[str, ...], list[int]]]:
    """Return one note a reason, and the numbers of its notes for each variant."""
    notes = []
    numbers: dict[tuple[str, ...], list[int]] = {}
    without_result = cells[~cells["status"].isin(["done", "pending"])]
    for number, (_, same) in enumerate(without_result.groupby(["status", "reason"], sort=False), start=1):
        who = []
        for variant, members in same.groupby(VARIANT, sort=False):
            labels = tuple(map(str, variant))
            numbers.setdefault(labels, []).append(number)
            seeds = members["seed"].tolist()
            who.append(f"{' / '.join(labels[1:])}, {_count('seed', seeds)}")
        status, reason = same[["status", "reason"]].iloc[0]
        notes.append(f"note {number}, {status}: {reason or 'no reason was recorded'} ({'; '.join(who)})")
    return notes, numbers


def _method(results: Results) -> list[str]:
    training = [cell.training for cell in results.plan.cells]
    weights = {"best": "best on the validation split (exact match, then nats)", "last": "last"}
    tested = [record.num_test for record in results.records if record.num_test is not None]
    lines = [
        f"Training: {_listed(options.steps for options in training)} steps of "
        f"{_listed(options.batch_size for options in training)} images, the same for every row.",
        f"Weights tested: {_listed(weights[options.keep] for options in training)}.",
        f"Images in the test split: {_listed(tested)}." if tested else "",
        f"Beam size: {_listed(cell.evaluation.beam_size for cell in results.plan.cells)}.",
        "ms/image is the median time to transcribe one image alone; train img/s leaves validation out.",
    ]
    return [line for line in lines if line]


def _environment(results: Results) -> list[str]:
    """Return what the records say about themselves, every value that occurs."""
    found: dict[str, list[str]] = {}
    for record in results.records:
        named = {"device": record.device} if record.device else {}
        for key, value in (record.environment | named).items():
            found.setdefault(key, []).append(value)
    lines = []
    for key, values in found.items():
        first, last = min(values), max(values)
        between = first if first == last else f"{first} to {last}"
        lines.append(f"{key}: {between if key == 'date' else _listed(values)}")
    return lines


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _count(noun: str, values: list[int]) -> str:
    return f"{noun if len(values) == 1 else noun + 's'} {_listed(values)}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
