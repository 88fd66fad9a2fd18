"""The table of figures, for people. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figure_file import VERDICTS, text_of
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 140


def print_table(lines: Sequence[dict[str, Any]], parts: Sequence[str], path: Path) -> None:
    """Print the latest line of each figure, how each part ended, and a summary; write the same to a file.

    Args:
        lines: all figures, oldest first.
        parts: names of all parts in the order to show them.
        path: the text file.
    """
    latest = {(line["part"], line["name"]): line for line in lines}
    figures = [line for (_, name), line in latest.items() if name != "part"]
    figures.sort(key=lambda line: parts.index(line["part"]) if line["part"] in parts else len(parts))
    ends = [latest[part, "part"] for part in parts if (part, "part") in latest]
    shown = [_figures(figures), _ends(ends), *_summary(figures, ends)]
    with path.open("w", encoding="utf-8") as file:
        for console in (Console(width=WIDTH, highlight=False), Console(file=file, width=WIDTH)):
            for item in shown:
                console.print(item, markup=False, emoji=False)


def _figures(lines: Sequence[dict[str, Any]]) -> Table:
    table = Table("part", "figure", title="Figures")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("spread", justify="right")
    table.add_column("verdict")
    for line in lines:
        cells = (line["part"], line["name"], text_of(line["value"]), line["unit"], text_of(line["spread"]))
        table.add_row(*map(Text, cells), VERDICTS[line["ok"]])
    return table


def _ends(lines: Sequence[dict[str, Any]]) -> Table:
    table = Table("part", "end", title="Parts")
    table.add_column("seconds", justify="right")
    table.add_column("verdict")
    for line in lines:
        table.add_row(line["part"], Text(line["value"]), text_of(line["seconds"]), VERDICTS[line["ok"]])
    return table


def _summary(figures: Sequence[dict[str, Any]], ends: Sequence[dict[str, Any]]) -> list[str]:
    failed = [f"FAIL {line['part']}: {line['name']}" for line in figures if line["ok"] is False]
    count = {verdict: sum(line["ok"] is verdict for line in ends) for verdict in (True, False)}
    not_started = sum(line["value"].startswith("not started") for line in ends)
    others = len(ends) - not_started - sum(count.values())
    devices = ", ".join(dict.fromkeys(line["device"] for line in figures if line["device"]))
    return [
        f"measured on {devices or 'no device'}",
        *failed,
        f"{count[True]} parts done, {count[False]} failed, {others} to be continued, {not_started} not started",
    ]
