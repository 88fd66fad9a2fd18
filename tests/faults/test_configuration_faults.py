"""Mistakes in experiment files and on the command line: each is named with its place, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import call
from helpers.experiments import TINY_TOML
from helpers.running import TINY_PLUGIN

from decoderbench.config.experiment import load_experiment

DATASET = TINY_TOML[TINY_TOML.index("[dataset]") : TINY_TOML.index("[image]")]
EXCLUDE = "seeds = [0]\nexclude = "
NAMES = "seeds = [0]\nnames = "

# What is replaced in the valid file, by what, and the message behind `FILE:LINE: `.
MISTAKES = {
    "6 syntax": ("[image]", "[image", "not valid TOML: Expected ']' at the end of a table declaration; correct the"),
    "7 key given twice": (
        "steps = 2",
        "steps = 2\nsteps = 3",
        "not valid TOML: Cannot overwrite a value; correct the ",
    ),
    "7 table given twice": ("[image]", "[dataset]", "not valid TOML: Cannot declare ('dataset',) twice; correct the"),
    "8 unknown table": ("[image]", "[imagge]", "imagge: unknown key; did you mean 'image'?; known: allow, augme"),
    "9 unknown key": (
        "steps = 2",
        "zzz = 2",
        "training.zzz: unknown key; known: batch_size, clip_norm, ema_decay, freeze, keep, lear",
    ),
    "10 typo": (
        "learning_rate",
        "learing_rate",
        "training.learing_rate: unknown key; did you mean 'learning_rate'?; kn",
    ),
    "11 plural": (
        "[grid.encoder]",
        "[grid.encoders]",
        "grid.encoders: unknown key; did you mean 'encoder'?; known: br",
    ),
    "12 case": (
        "seeds",
        "Seeds",
        "grid.Seeds: unknown key; did you mean 'seeds'?; known: bridge, decoder, encoder, exc",
    ),
    "12 singular": ("seeds", "seed", "grid.seed: unknown key; did you mean 'seeds'?; known: bridge, decoder"),
    "13 dash": ("batch_size", "batch-size", "training.batch-size: unknown key; did you mean 'batch_size'?; known: "),
    "14 text for a number": ("steps = 2", 'steps = "2"', "training.steps: must be a number, not text, given '2'"),
    "14 word for a number": ("steps = 2", 'steps = "two"', "training.steps: input should be a valid integer, unable"),
    "15 fraction": (
        "steps = 2",
        "steps = 2.5",
        "training.steps: input should be a valid integer, got a number with a ",
    ),
    "16 truth for a number": (
        "steps = 2",
        "steps = true",
        "training.steps: must be a number, not true or false, given",
    ),
    "16 number for truth": (
        "[image]",
        "noise = 1\n[image]",
        "dataset.noise: dataset 'synthetic_captcha': must be true ",
    ),
    "17 list for a number": ("steps = 2", "steps = [2]", "training.steps: input should be a valid integer"),
    "18 number for a list": ("seeds = [0]", "seeds = 0", "grid.seeds: input should be a list, as in [...] or, for tab"),
    "18 text in a list": ("seeds = [0]", 'seeds = [0, "1"]', "grid.seeds: must be a number, not text"),
    "19 negative rate": ("2e-3", "-2e-3", "training.learning_rate: input should be greater than 0, given -0.002"),
    "20 rate of zero": ("2e-3", "0.0", "training.learning_rate: input should be greater than 0, given 0.0"),
    "21 rate of nan": ("2e-3", "nan", "training.learning_rate: input should be a finite number, given nan"),
    "22 infinite rate": ("2e-3", "inf", "training.learning_rate: input should be a finite number, given inf"),
    "23 no steps": ("steps = 2", "steps = 0", "training.steps: input should be greater than or equal to 1, given 0"),
    "24 empty batches": (
        "batch_size = 8",
        "batch_size = 0",
        "training.batch_size: input should be greater than or equ",
    ),
    "26 no seeds": ("seeds = [0]", "seeds = []", "grid.seeds: tuple should have at least 1 item"),
    "27 seed given twice": ("seeds = [0]", "seeds = [0, 0]", "grid.seeds: a seed is listed twice; list each once"),
    "28 large seed": ("seeds = [0]", f"seeds = [{2**70}]", "grid.seeds: seeds must be between 0 and 2**63 - 1, given"),
    "29 typo in a component": (
        "tiny_cnn",
        "tiny_cn",
        "grid.encoder.tiny.use: unknown encoder 'tiny_cn'; did you mean ",
    ),
    "29 typo in a model": (
        'tiny = { use = "tiny_cnn"',
        'tiny = { use = "timm_cnn", model = "resnt18"',
        "grid.encoder.tiny: unknown timm model 'resnt18'; did you mean 'resnet18'?; timm.list_models() lists all names",
    ),
    "31 typo in a component": (
        "lstm_ctc",
        "lstm_ctx",
        "grid.decoder.ctc.use: unknown decoder 'lstm_ctx'; did you mean",
    ),
    "31 typo in an option": (
        "hidden_dim",
        "hiden_dim",
        "grid.decoder.ctc.hiden_dim: decoder 'lstm_ctc': unknown key; ",
    ),
    "31 option of another type": (
        "= 8 }",
        '= "x" }',
        "grid.decoder.ctc.hidden_dim: decoder 'lstm_ctc': input should b",
    ),
    "33 nothing left": ("seeds = [0]", f'{EXCLUDE}[{{ encoder = "tiny" }}]', "grid.exclude: exclude leaves no combin"),
    "34 excludes nothing": (
        "seeds = [0]",
        f'{EXCLUDE}[{{ decoder = "cct" }}]',
        "grid.exclude.0: exclude refers to the unknown decoder 'cct'; did you mean 'ctc'?; known: ctc",
    ),
    "34 names nothing": (
        "seeds = [0]",
        f'{NAMES}[{{ name = "CRNN", decoder = "cct" }}]',
        "grid.names.0: name 'CRNN' refers to the unknown decoder 'cct'; did you mean 'ctc'?; known: ctc",
    ),
    "35 character given twice": ("[image]", '[labels]\ncharset = "011"\n[image]', "labels.charset: charset holds '1'"),
    "35 drawn twice": (
        '"01"',
        '"011"',
        "dataset: dataset 'synthetic_captcha': charset has a character twice; list each",
    ),
    "36 no characters": (
        "[image]",
        '[labels]\ncharset = ""\n[image]',
        "labels.charset: charset is empty; give at least",
    ),
    "36 nothing to draw": (
        '"01"',
        '""',
        "dataset.charset: dataset 'synthetic_captcha': string should have at least 1 ",
    ),
    "../ in the name": ('"tiny"', '"../up"', "name: string should match pattern"),
    "10,000,000 cells": (
        "seeds = [0]",
        f"seeds = [{', '.join(map(str, range(10_001)))}]",
        "grid: 10,001 cells, and a grid may have 10,000; divide it among several files",
    ),
}
LINES = {
    "16 number for truth": "noise = 1",
    "35 character given twice": 'charset = "011"',
    "35 drawn twice": "[dataset]",
    "36 no characters": 'charset = ""',
    "10,000,000 cells": "[grid]",
}
"""The line that the message names, where that is not the last line of the replacement."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tiny.toml"


def refuse(capfd: pytest.CaptureFixture[str], file: Path, *options: str, status: int = 2) -> list[str]:
    """Run a file that must be refused with a status; return the lines of the message. Nothing may be written."""
    before = sorted(file.parent.iterdir())
    results = file.parent / "out"
    arguments = ("run", str(file), "-p", str(TINY_PLUGIN), "--results", str(results), "--device", "cpu", *options)
    given, _, message = call(capfd, *arguments)
    assert given == status, message
    assert "Traceback" not in message
    assert sorted(file.parent.iterdir()) == before
    return message.splitlines()


@pytest.mark.parametrize("fault", MISTAKES)
def test_mistake_in_a_file_is_named_with_file_line_key_reason_and_move(
    capfd: pytest.CaptureFixture[str], file: Path, fault: str
) -> None:
    old, new, message = MISTAKES[fault]
    assert old in TINY_TOML
    text = TINY_TOML.replace(old, new, 1)
    file.write_text(text)
    needle = LINES.get(fault, new.splitlines()[-1])
    number = max(number for number, line in enumerate(text.splitlines(), 1) if needle in line)
    lines = refuse(capfd, file)
    assert any(line.startswith(f"{file}:{number}: {message}") for line in lines), lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": no such file; give the path of an experiment's .toml file"),
        ("a folder", ": cannot be read: Is a directory; give the path of an experiment's .toml file"),
        (b"", ": name: is missing; every experiment needs it"),
        (b"name = 'a'\nx = '\xff'", ":2: not UTF-8 text: invalid start byte; save it as UTF-8"),
        (b"x = " + b"9" * 5000, ": not valid TOML: Exceeds the limit"),
        (b"x = " + b"[" * 5000, ": not valid TOML: maximum recursion depth exceeded"),
    ],
    ids=["1 missing", "2 folder", "3 empty", "4 not UTF-8", "5,000 digits", "5,000 brackets"],
)
def test_file_that_cannot_be_read_is_named_with_the_next_move(
    capfd: pytest.CaptureFixture[str], file: Path, content: bytes | str | None, message: str
) -> None:
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    assert any(line.startswith(f"{file}{message}") for line in refuse(capfd, file))


def test_byte_order_mark_is_accepted(file: Path) -> None:
    file.write_text(TINY_TOML, encoding="utf-8-sig")
    assert load_experiment(file).name == "tiny"


def test_all_mistakes_of_a_file_and_of_the_command_line_are_named_in_one_go(
    capfd: pytest.CaptureFixture[str], file: Path
) -> None:
    text = TINY_TOML
    for old, new in [
        ("name =", "nam ="),
        ('"01"', '""'),
        ("height = 16", "height = 0"),
        ("steps", "stepz"),
        ("learning_rate = 2e-3", "learning_rate = nan"),
        ("[0]", "[0, 0]"),
        ("tiny_cnn", "tiny_cn"),
        ("mean_height", "mean_heigt"),
        ("hidden_dim = 8", "hidden_dim = 0"),
    ]:
        text = text.replace(old, new, 1)
    file.write_text(text)
    lines = refuse(capfd, file, "--set", "image.widht=3", "--add", "decoder.more=lstm_ctx")
    keys = [line.removeprefix(f"{file}").partition(": ")[2].partition(": ")[0] for line in lines[:-1]]
    assert sorted(keys) == [
        *("dataset.charset", "grid.bridge.columns.use", "grid.decoder.ctc.hidden_dim", "grid.decoder.more.use"),
        *("grid.encoder.tiny.use", "grid.seeds", "image.height", "image.widht", "nam", "name"),
        *("training.learning_rate", "training.stepz"),
    ]
    assert lines[-1] == f"12 mistakes in {file}; nothing was trained"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"mean_height"', '"global_pool"', "  tiny / columns / ctc: CTC needs T >= 3 for the longest label"),
        (
            '"tiny_cnn"',
            '"timm_cnn", model = "vit_tiny_patch16_224"',
            "  tiny / columns / ctc: timm model 'vit_tiny_patch16_224' cannot read images of 16x32",
        ),
        (
            '"tiny_cnn"',
            '"timm_cnn", model = "resnet10t", stage = 9',
            "grid.encoder.tiny: timm model 'resnet10t' has no stage 9; choose one of 0 (reduction 2), 1 (reduction 4)",
        ),
    ],
    ids=["32 bridge and decoder", "30 no map of features", "no such stage"],
)
def test_grid_that_cannot_work_is_refused_before_training_with_its_reason(
    capfd: pytest.CaptureFixture[str], file: Path, old: str, new: str, message: str
) -> None:
    file.write_text(TINY_TOML.replace(old, new, 1))
    lines = [line.removeprefix(f"{file}:27: ") for line in refuse(capfd, file)]
    assert any(line.startswith(message) for line in lines), lines


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[image]",
            "[labels]\nmax_length = 1\n[image]",
            "  too_long: '00' has 2 characters, max_length is 1; 43 in all:",
        ),
        (DATASET, '[dataset]\nuse = "folder"\npath = "nowhere"\n', "nowhere is not a folder; check the option path"),
        (DATASET, '[dataset]\nuse = "folder"\npath = "$HOME/x"\n', "check the option path of the dataset; $ is taken "),
        (DATASET, '[dataset]\nuse = "lmdb"\ntrain = "a"\ntest = "a"\n', "a is listed twice in train, val and test;"),
    ],
    ids=["37 max_length", "39 no such folder", "$HOME", "39 train is test"],
)
def test_data_that_cannot_be_used_end_with_status_3_and_name_the_option(
    capfd: pytest.CaptureFixture[str], file: Path, old: str, new: str, message: str
) -> None:
    file.write_text(TINY_TOML.replace(old, new, 1))
    lines = refuse(capfd, file, status=3)
    assert any(message in line for line in lines), lines


OPTIONS = {
    "38 absent device": (["--device", "cuda:7"], "--device cuda:7: "),
    "40 words for a time": (["--stop-after", "10 minutes"], "--stop-after 10 minutes: must be a positive duration, as"),
    "no time": (["--stop-after", "0s"], "--stop-after 0s: must be a positive duration"),
    "endless time": (["--stop-after", "inf"], "--stop-after inf: must be a positive duration"),
    "time of a cell": (
        ["--cell-timeout", "-5m"],
        "--cell-timeout -5m: must be a positive duration, as in 90s, 5m or 2h",
    ),
    "checkpoints": (["--checkpoint-every", "often"], "--checkpoint-every often: must be a positive duration"),
    "no jobs": (["--jobs", "0"], "'--jobs': Input should be greater than or equal to 1"),
    "word for jobs": (["--jobs", "all"], "'--jobs': Input should be a valid integer"),
    "executor": (["--executor", "locl"], "unknown executor 'locl'; did you mean 'local'?; registered: inline, local"),
    "no threads": (["--threads", "0"], "'--threads': Input should be greater than or equal to 1"),
    "seeds": (["--seeds", "0,,1"], "--seeds 0,,1: must be whole numbers separated by commas, as in 0,1,2"),
    "twice": (["--seeds", "1", "--set", "grid.seeds=[2]"], "--seeds and --set grid.seeds say the same thing; give one"),
    "set": (["--set", "training"], "--set training: must be key=value, as in training.steps=500"),
    "add": (["--add", "decodr.x=lstm_ctc"], "--add decodr.x=lstm_ctc: unknown axis 'decodr'; did you mean 'decoder'?;"),
    "select": (["-k", "cct"], "-k 'cct': 'cct' matches none of 1 cells"),
    "allow": (["--allow", "empty_lable"], "unknown code 'empty_lable'; did you mean 'empty_label'"),
    "option": (["--stpes", "3"], "No such option: --stpes"),
}


@pytest.mark.parametrize("fault", OPTIONS)
def test_mistake_on_the_command_line_names_the_option(
    capfd: pytest.CaptureFixture[str], file: Path, fault: str
) -> None:
    file.write_text(TINY_TOML)
    options, message = OPTIONS[fault]
    lines = refuse(capfd, file, *options)
    assert any(message in line for line in lines), lines


def test_batch_larger_than_the_split_is_noted_with_the_key(
    capfd: pytest.CaptureFixture[str], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(TINY_TOML.replace("batch_size = 8", "batch_size = 65"))
    assert call(capfd, "plan", str(file), "-p", str(TINY_PLUGIN))[0] == 0
    assert (
        "a batch of 65 images holds each of the 64 training images 1.0 times on average; set training.batch"
        in caplog.text
    )
