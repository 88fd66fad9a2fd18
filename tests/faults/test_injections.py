"""Hostile text in names, labels, reasons and paths: shown as text in every format, and never a path or a program."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from helpers.commands import leave_out_figures
from helpers.recording import COMMAND, make_cell, make_record, publish
from markdown_it import MarkdownIt

from decoderbench.cli.terminal import SafeConsole
from decoderbench.config.cell import ResolvedComponent
from decoderbench.execution.work import CellWork
from decoderbench.records.schema import append_line
from decoderbench.registry.executor import CellTask
from decoderbench.report import load_report, markdown_table, write_report

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1))",
    "line\n\n# heading\r\n- item\n\n    code\n---",
    "```\n<b>\n``` `x` **b** __i__ ~~s~~ $x$ $$y$$",
    "\x1b[31m\x1b]0;title\x07\x9b2J\x08\x7f\u2028",
    r"\input{/etc/passwd} \write18{x} % $ & # _ ^ ~ { } \end{tabular} \\[1cm]",
    "1. one",
]
MORE = [
    "' onmouseover='alert(1)",
    "![x](http://example.org/x.png)",
    "<javascript:alert(1)>",
    "http://example.org <http://example.org> www.example.org",
    "</title></head><body>",
    "</style><style>*{display:none}",
    "<!-- --> <!",
    "]]><![CDATA[<x/>",
    "&lt;b&gt; &#60;i&#62; &amp &nbsp;",
    "a\x00b",
    "\u202egnp.exe\u2066",
    "{{7*7}} ${7*7} #{7*7} <%= 7*7 %>",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "x" * 10_000,
    "a|b || c \\| d",
    '=HYPERLINK("http://example.org") +1 -1 @SUM(1) \t=1 ＝1',
    "2) two",
    "[^1] [x]: http://example.org \\ 1. * + > | :--- | <details>",
]


class Markup(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[tuple[str, tuple[Any, ...]]] = Counter()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(sorted(attrs))] += 1

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.elements["comment", (data,)] += 1

    handle_decl = handle_pi = unknown_decl = handle_comment


def write(path: Path, text: str) -> Path:
    """Write the report of three cells, with a text at every place that people and plugins fill; return its folder."""

    def component(label: str) -> ResolvedComponent:
        return ResolvedComponent(label=label, use=text, options={"x": text}, decisive={"x": text}, source=text)

    places = {"experiment": text, "dataset": text, "name": text, "trainers": {text: text}}
    stages = {"encoder": component(text), "decoder": component(text)}
    cells = [make_cell(seed=seed).model_copy(update=places | stages) for seed in range(2)]
    cells.append(make_cell().model_copy(update=places | stages | {"bridge": component("other"), "infeasible": text}))
    environment = {"date": "2026-01-01", "machine": text, "torch": text, "key": text, text: "value"}
    origin: dict[str, Any] = {"environment": environment, "device": text}
    records = [
        make_record(cells[0], **origin, metrics={text: 0.5}),
        make_record(cells[1], **origin, status="crashed", reason=text),
        make_record(cells[2], **origin, status="infeasible", reason=text),
    ]
    texts: dict[str, Any] = {"experiment": text, "command": text, "data_notes": (text,), "data_summary": (text,)}
    publish(path, cells, records, **texts)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        write_report(path, command=f"decoderbench report {text}")
    return path


def render(page: str) -> Markup:
    """Return a Markdown page as a viewer shows it that lets HTML through."""
    return Markup(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(page))


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("harmless"), "Harmless")


@pytest.fixture(
    params=[*PAYLOADS, *(pytest.param(payload, marks=pytest.mark.slow) for payload in MORE)],
    ids=lambda payload: repr(payload)[:20],
    scope="module",
)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A text, and the report with it everywhere."""
    return request.param, write(tmp_path_factory.mktemp("hostile"), request.param)


def test_page_with_hostile_text_has_the_elements_of_a_harmless_one_and_shows_the_text(
    hostile: tuple[str, Path], harmless: Path
) -> None:
    payload, folder = hostile
    page = (folder / "report.md").read_text(encoding="utf-8")
    shown, plain = render(page), render((harmless / "report.md").read_text(encoding="utf-8"))
    assert shown.elements == plain.elements
    visible = "".join(character if character.isprintable() else " " for character in payload).strip()
    assert shown.text.count(visible) >= plain.text.count("Harmless")
    assert all(line.isprintable() for line in page.split("\n"))


def test_tex_with_hostile_text_has_the_commands_of_a_harmless_one(hostile: tuple[str, Path], harmless: Path) -> None:
    _, folder = hostile

    def commands(file: Path) -> Counter[str]:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("%")]
        text = "\n".join(lines)
        assert all(line.isprintable() for line in lines)
        found = Counter(re.findall(r"\\(?:[A-Za-z]+|.)|[&%$#_^~]", text))
        return Counter({name: count for name, count in found.items() if name not in SHOWN})

    assert commands(folder / "tables/main.tex") == commands(harmless / "tables/main.tex")


SHOWN = {
    *(rf"\text{name}" for name in ("backslash", "asciitilde", "asciicircum", "asciigrave", "less", "greater", "bar")),
    *(rf"\{mark}" for mark in "&%$#_{}"),
}
"""Commands that show a character."""


def test_csv_with_hostile_text_has_the_fields_of_a_harmless_one_and_the_text_unchanged(
    hostile: tuple[str, Path], harmless: Path
) -> None:
    payload, folder = hostile
    content = (folder / "tables/cells.csv").read_bytes().decode()
    read, plain = (
        list(csv.DictReader(io.StringIO((path / "tables/cells.csv").read_bytes().decode(), newline="")))
        for path in (folder, harmless)
    )
    assert [len(row) for row in read] == [len(row) for row in plain]
    assert [row["decoder"] for row in read] == [payload] * 3
    assert [row["reason"] for row in read] == ["", payload, payload]
    frame = pd.read_csv(io.StringIO(content, newline=""), dtype=str, keep_default_na=False)
    assert frame["encoder"].tolist() == [payload] * 3


def printed(folder: Path) -> str:
    """Return what a command prints of a report."""
    console = SafeConsole(file=io.StringIO(), soft_wrap=True, highlight=False, emoji=False)
    console.print(markdown_table(load_report(folder)), markup=False)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_printed_table_with_hostile_text_has_the_columns_of_a_harmless_one_and_obeys_no_escape(
    hostile: tuple[str, Path], harmless: Path
) -> None:
    _, folder = hostile
    shown, plain = printed(folder), printed(harmless)
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]", shown) is None

    def columns(text: str) -> list[int]:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        return [row.replace(r"\\", "").replace(r"\|", "").count("|") for row in rows]

    assert columns(shown) == columns(plain)


SVG = {
    *(
        "svg",
        "metadata",
        "RDF",
        "Work",
        "creator",
        "format",
        "type",
        "Agent",
        "title",
        "defs",
        "style",
        "g",
        "path",
        "use",
    ),
    *("clipPath", "rect", "text", "tspan"),
}
"""Elements that show something and do nothing."""


@pytest.mark.slow
def test_figures_with_hostile_text_have_no_element_that_acts(tmp_path: Path) -> None:
    cells = [make_cell(payload) for payload in (*PAYLOADS, *MORE)]
    directory = publish(tmp_path, cells, [make_record(cell) for cell in cells])
    for cell in cells:
        for step in (1, 2):
            append_line(directory.cell_directory(cell) / "history.jsonl", {"step": step, "val_exact_match": 0.5})
    write_report(tmp_path, command=COMMAND)
    for file in tmp_path.glob("*.svg"):
        elements = list(ElementTree.parse(file).iter())
        kinds = {element.tag.rpartition("}")[2] for element in elements}
        assert kinds <= SVG
        assert not [name for element in elements for name in element.attrib if name.lower().startswith("on")]
        links = [value for element in elements for name, value in element.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)


def test_text_of_a_process_that_died_is_bounded_and_printable_in_record_and_traceback(tmp_path: Path) -> None:
    nothing: Any = None
    work = CellWork(results=tmp_path, plugins=nothing, data={}, device="cpu", threads=1)
    cell = make_cell()
    output = work.output_of(cell)
    for _ in range(200):
        output.append(b"\xff\xfe\x1b[31m\x00\r" + b"x" * 500_000)  # one line of 100 MB
    output.append(b"\x1b]0;title\x07 \xe2\x80\xae\nlast line \x9b2J")
    output.close()
    task = CellTask(cell=cell, environment={}, superseded=None)
    outcome = work.publish_failure(task, "crashed", "a\x1b[31m\n\x9b" + "y" * 5_000_000, output.tail())
    assert outcome.record is not None
    assert outcome.record.reason.startswith(r"a\x1b[31m \x9byyy")
    assert outcome.record.reason.isprintable()
    assert len(outcome.record.reason) < 1_100
    folder = tmp_path / "cells" / cell.cell_id
    lines = (folder / "traceback.txt").read_text(encoding="utf-8").split("\n")
    assert lines[-1] == r"last line \x9b2J"
    assert all(line.isprintable() for line in lines)
    assert sum(map(len, lines)) < 100_000
    assert (folder / "output.txt").stat().st_size < 10_000_000
