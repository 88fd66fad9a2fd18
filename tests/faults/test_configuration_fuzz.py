"""Random edits of valid experiment files and command lines: each is accepted, or refused with the key, no traceback.

An edit depends on its number alone; a failure prints the number, the file and the command line.
"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
import typer
from helpers.commands import call
from helpers.experiments import EXPERIMENTS, TINY_TOML
from helpers.running import TINY_PLUGIN

from decoderbench.cli import common
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry

VALUES = [
    *("-1", "0", "1", "7", str(2**31), str(2**63), str(2**70), "9" * 5000, "0.5", "-0.0", "1e308", "1e-320", "nan"),
    *("-inf", "true", "false", "2026-11-27", "12:30:00", '""', '" "', '"x"', '"../x"', '"/"', '"\\u0000"', '"\\u202e"'),
    *(
        '"\\u001b[31m"',
        '"=1+1"',
        '"<b>|`"',
        f'"{"x" * 5000}"',
        '"None"',
        '"none"',
        '"ctc"',
        "[]",
        "[[]]",
        "[0, 0]",
        "{}",
    ),
    *('[1, "a", {}]', "{ use = 1 }", '{ use = "none" }', '{ use = "lstm_ctc", x = 1 }', "[" * 3000, "'''", "# ", "x y"),
]
KEYS = [
    *("name", "use", "seeds", "steps", "exclude", "names", "charset", "hidden_dim", "Steps", "learing_rate", "x", '""'),
    *(
        '"a b"',
        '"\\u0000"',
        "a.b.c",
        "dataset.use",
        "grid.decoder",
        "image",
        "[grid]",
        "[[grid.exclude]]",
        "[a.b]",
        "é",
    ),
]
CHARACTERS = "\"'[]{}=.,#\\\n\t \0\x1b\x7f\u200b\u202eé9_-"
OPTIONS = {
    "--set": [
        "training.steps",
        "labels.charset",
        "grid.seeds",
        "grid.decoder.ctc.hidden_dim",
        "name",
        "x.y",
        "dataset",
    ],
    "--add": ["decoder.more", "encoder.more", "rectifier.none", "decoder.ctc", "x", "decoder"],
}
WORDS = [
    *(
        "",
        " ",
        "0",
        "-1",
        "1,2",
        "1,,2",
        "1_0",
        "٣",
        "9" * 5000,
        "1h",
        "1e3s",
        "5 m",
        "-5m",
        "nan",
        "inf",
        "ctc",
        "not",
    ),
    *(
        "not not",
        "or",
        "a and",
        '"',
        "'",
        "(",
        "\\",
        "\x1b[31m",
        "\n",
        "cuda:99",
        "cpu:0",
        "cuda:",
        "inline",
        "too_long",
    ),
]
WORD_OPTIONS = [
    *("-k", "--seeds", "--stop-after", "--allow", "--jobs", "--cell-timeout", "--executor", "--checkpoint-every"),
    *("--device", "--threads", "-p", "--plugins-dir"),
]
PLACE = re.compile(r"(:\d+)?: \S.*")
LISTS = "no cell of the grid can be trained:", "-k "
"""Other messages: a list of cells with their reasons, and a selection."""


def edit_file(chance: Random, text: str) -> str:
    """Change a line of a file, a value, a key or a character."""
    lines = text.splitlines()
    at = chance.choice([number for number, line in enumerate(lines) if line and not line.startswith("#")])
    key, equals, value = lines[at].partition("=")
    match chance.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, chance.choice(lines))
        case 2 | 3 if equals:
            lines[at] = f"{key}= {chance.choice(VALUES)}"
        case 4 if equals:
            lines[at] = f"{chance.choice(KEYS)} = {value}"
        case 5:
            position = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:position] + chance.choice(CHARACTERS) + lines[at][position + 1 :]
        case _:
            position = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:position] + lines[at][position + 1 :]
    return "\n".join(lines) + "\n"


def draw_options(chance: Random) -> list[str]:
    """Draw an option of the command line."""
    option = chance.choice([*OPTIONS, *OPTIONS, *WORD_OPTIONS])
    if option not in OPTIONS:
        return [option, chance.choice(WORDS)]
    value = chance.choice([*VALUES, *WORDS])
    return [option, chance.choice(["{}={}", "{} = {}", "{}{}"]).format(chance.choice(OPTIONS[option]), value)]


@pytest.fixture
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load plugins once, unless others are named, and end a command with status 0 where training would begin."""
    registry, load = Registry(build_plugin_manager([str(TINY_PLUGIN)])), common.load_registry

    def load_once(names: list[str] | None, folders: list[Path] | None) -> Registry:
        return load([str(TINY_PLUGIN), *(names or [])], folders) if names or folders else registry

    def begin(self: ResultsDirectory) -> None:
        raise typer.Exit

    monkeypatch.setattr(common, "load_registry", load_once)
    monkeypatch.setattr(ResultsDirectory, "begin", begin)


BLOCKS = [
    range(50),
    *(pytest.param(range(first, first + 50), marks=pytest.mark.chaos) for first in range(50, 2000, 50)),
]


@pytest.mark.usefixtures("_nothing_is_trained")
@pytest.mark.parametrize("numbers", BLOCKS, ids=lambda numbers: f"from {numbers[0]}")
def test_edited_experiment_is_accepted_or_refused_with_its_key(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, numbers: range
) -> None:
    others = [path.read_text() for path in sorted(EXPERIMENTS.glob("*.toml"))]
    file, results = tmp_path / "edited.toml", tmp_path / "out"
    refused = 0
    for number in numbers:
        chance = Random(number)
        text, options = TINY_TOML, []
        if chance.random() < 0.3:
            options = draw_options(chance)
        else:
            # Other experiments take long to plan: a mistake that is there anyway ends them after the check of all keys.
            text = chance.choice([TINY_TOML, TINY_TOML, chance.choice(others) + "\n[mistake]\n"])
            for _ in range(chance.choice([1, 1, 1, 2, 5])):
                text = edit_file(chance, text)
        file.write_text(text)
        run = ["run", str(file), "--results", str(results), "--device", "cpu", *options]
        status, printed, message = call(capfd, *(run if options else ["plan", str(file)]))  # a plan decodes no images
        seen = f"edit {number}: status {status}\n{options}\n{message[-3000:]}\n{text[-6000:]}"
        assert "Traceback" not in printed + message, seen
        assert status in (0, 2, 3), seen
        assert not results.exists(), seen
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed + message) is None, seen
        if status:
            refused += 1
            assert message.strip(), seen
        if status == 2 and not options:
            lines = message.splitlines()
            named = [line for line in lines if line.startswith(str(file)) and PLACE.match(line, len(str(file)))]
            assert named or any(line.startswith(LISTS) for line in lines), seen
        if status == 2 and options:
            assert options[0].strip("-").partition("s-")[0] in message or str(file) in message, seen
    assert refused > len(numbers) / 2
