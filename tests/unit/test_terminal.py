"""What commands print: safe for a terminal, in any encoding, and alone on standard output."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.running import TINY_PLUGIN, to_toml
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table

from decoderbench import cli
from decoderbench.cli.common import command
from decoderbench.cli.terminal import SafeConsole, SafeFormatter, escape_unsafe
from decoderbench.files.storage import StorageError

ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31m\x00\r\b\x7f\u202e\u2066\u200f\u2028\udcff"
ESCAPED = r"\x1b]0;title\x07\x1b[2J\x9b31m\x00\r\x08\x7f\u202e\u2066\u200f\u2028\udcff"
NOISE = """
import os
import subprocess
print("import")
from decoderbench import ComponentConfig, CTCDecoder, hookimpl
from torch import nn

class Noisy(CTCDecoder):
    name = "noisy"
    Config = ComponentConfig

    def __init__(self, config, memory, labels):
        super().__init__(config, memory, labels)
        print("constructor")
        os.write(1, b"written by C\\n")
        subprocess.run(["echo", "child"])
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory):
        return self.head(memory)

@hookimpl
def register_decoders():
    print("hook")
    return [Noisy]
"""


def test_unsafe_characters_are_shown_as_escapes_and_lines_stay() -> None:
    assert escape_unsafe(f"one\n\ttwo é 漢 \u200c{ATTACK}") == f"one\n\ttwo é 漢 \u200c{ESCAPED}"


@given(st.text())
def test_escaped_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    escaped = escape_unsafe(text)
    assert all(one.isprintable() or one in "\n\t" or ord(one) >= 0xA0 for one in escaped)
    assert escape_unsafe(escaped) == escaped
    escaped.encode()


def printed(renderable: Any, **options: Any) -> str:
    console = SafeConsole(file=io.StringIO(), width=200, **options)
    console.print(renderable, markup=False, highlight=False, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_console_escapes_texts_and_tables() -> None:
    table = Table(ATTACK)
    table.add_row(f"a{ATTACK}")
    assert printed(f"line\n{ATTACK}") == f"line\n{ESCAPED}\n"
    assert not set(ATTACK) - set("]0;title[2J31m") & set(printed(table))


def test_console_keeps_its_own_styles_and_escapes_the_text_of_bars() -> None:
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    with Progress(console=console) as bars:
        bars.add_task(f"\x9b31m\u202e{chr(0x1B)}[2J evil", total=2)
        console.print(ATTACK, style="red", markup=False, highlight=False, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[31m" in text
    assert r"\x9b31m\u20" in text
    assert ESCAPED in text
    assert not {"\x9b", "\u202e", "\x07"} & set(text)


def test_log_lines_are_escaped() -> None:
    record = logging.LogRecord("decoderbench", logging.WARNING, "", 1, "one\n%s", (ATTACK,), None)
    assert SafeFormatter().format(record) == f"one\n{ESCAPED}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x\x1b[31m\x9b2J\u202e.toml"],
        ["run", "--threads", "\x1b[31m\x9b2J\u202e", "x.toml"],
        ["\x1b[31m\x9b2J\u202e"],
        ["run", "x.toml", "--set", "\x1b[31m\x9b2J\u202e"],
        ["compare", "x\x1b[31m\x9b2J\u202e"],
        ["report", "x\x1b[31m\x9b2J\u202e"],
    ],
)
def test_errors_of_commands_and_of_their_arguments_are_escaped(
    capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, out, err = call(capfd, *arguments)
    assert status in (2, 3)
    assert not {"\x1b", "\x9b", "\u202e"} & set(out + err)
    assert "--threads" in arguments or r"\x1b[31m\x9b2J\u202e" in err


def test_keys_of_a_file_are_escaped(capfd: pytest.CaptureFixture[str], tiny: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny | {"nam\x1b[31me": 1}))
    status, _, err = call(capfd, "plan", str(file), "-p", str(TINY_PLUGIN))
    assert (status, "\x1b" in err, r"nam\x1b[31me: unknown key" in err) == (2, False, True)


def test_plan_as_json_is_alone_on_standard_output(
    capfd: pytest.CaptureFixture[str], tiny: dict[str, Any], tmp_path: Path
) -> None:
    tiny["grid"]["decoder"] = {"noisy": "noisy"}
    (tmp_path / "tiny.toml").write_text(to_toml(tiny))
    (tmp_path / "noise.py").write_text(NOISE)
    plugins = ["-p", str(TINY_PLUGIN), "-p", str(tmp_path / "noise.py")]
    status, out, err = call(capfd, "plan", "--json", str(tmp_path / "tiny.toml"), *plugins)
    assert status == 0, err
    assert [cell["decoder"]["use"] for cell in json.loads(out)] == ["noisy"]
    assert {"import", "hook", "constructor", "written by C", "child"} <= set(err.splitlines())

    status, out, err = call(capfd, "plugins", "noisy", *plugins)
    assert (status, out.splitlines()[0].split("  ")[0], "hook" in err) == (0, "decoder noisy", True)
    sys.stdout.write("after a command\n")
    assert capfd.readouterr().out == "after a command\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_output_in_any_encoding_shows_what_it_lacks_as_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["decoderbench", "new", "decoder", "mine", "--into", str(tmp_path / "漢é")])
    cli.main()
    out.seek(0)
    shown = out.read()
    assert f"wrote {tmp_path}/" in shown
    assert ("漢é" in shown) is (encoding == "utf-8")
    assert (r"\u6f22" in shown) is (encoding != "utf-8")


def test_command_is_printable_and_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "run", "a b.toml", os.fsdecode(b"caf\xe9'\\"), "two\nlines"])
    assert command() == r"decoderbench run 'a b.toml' $'caf\xe9\x27\x5c' $'two\x0alines'"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_standard_output_is_named_and_one_under_standard_error_is_ignored() -> None:
    out, err = SafeConsole(), SafeConsole(stderr=True)
    for console in (out, err):
        console.file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - closing it fails
    with pytest.raises(StorageError, match="cannot write to standard output: No space left on device; send it else"):
        out.print("a line")
    err.print("a line")
    for console in (out, err):
        with pytest.raises(OSError, match="No space left"):
            console.file.close()


@pytest.mark.parametrize(("closed", "status"), [(">&-", 2), ("2>&-", 0), ("<&-", 0), ("<&- >&-", 2), ("<&- 2>&-", 0)])
def test_closed_output_is_refused_and_no_file_gets_the_number_of_a_closed_stream(closed: str, status: int) -> None:
    program = """
from decoderbench import cli
cli.app = lambda **options: print(open("/dev/zero").fileno() > 2)
cli.main()
"""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (status, "" if status else "True\n")
    assert ended.stderr == ("standard output is closed; send it to a file, or to /dev/null\n" if status else "")
