"""Labels that text tools mistake for something else: kept as they are, or refused with code and code point."""

import json
import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.folders import make, opened, table
from helpers.training import train

from decoderbench import Charset, DataError, InfeasibleError, Labels, LabelSpec, Registry, Sample, SequenceSpec
from decoderbench.data.audit import audit
from decoderbench.model.ctc import CTCDecoder
from decoderbench.specs import ctc_frames_needed

ACCEPTED = [
    "NA", "null", "None", "nan", "N/A", "NaN", "inf", "-inf", "007", "0123", "1e5", "1_000", "True", "FALSE",
    "1.0", "0x1F", "2026-11-27", "12:30", "10%", "€5", "=1+1", "+cmd", "@SUM(A1)", "-1", "=cmd|'/C", "calc'!A0",
    "a,b", '"quoted"', "|", ";", "'", "\\", "\\n", "%s", "{0}", "$HOME", "`id`", "a/b", "../x",
    "<script>alert(1)</script>", "&amp;", "<!--", "]]>", "\\textbf{x}", "$x$", "![a](b)",
    "two words",
    " blanks ",
    "café",
    "cafe\u0301",
    "１２３",
    "😀",
    "日本語",
    "ÅÅ",
    "x" * 31,
]  # fmt: skip
REFUSED = {
    "": "empty_label",
    "a\0b": "U+0000",
    "a\nb": "U+000A",
    "a\rb": "U+000D",
    "a\tb": "U+0009",
    "\x1b[31mred": "U+001B",
    "a\u200bb": "U+200B ZERO WIDTH SPACE",
    "a\u200db": "U+200D ZERO WIDTH JOINER",
    "\ufeffa": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "a\u202eb": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "a\u2028b": "U+2028 LINE SEPARATOR",
    "x" * 10_000: "has 10,000 characters, max_length is 40",
}


def labeled(folder: Path, labels: list[str], form: str) -> Path:
    """Write images and a table of their labels; every label is on three images, so that each split can have it."""
    names = [f"images/{number:03d}.png" for number in range(len(labels))]
    make(folder, [Path(name).name for name in names])
    if form == "json":
        rows = [{"filename": name, "label": label} for name, label in zip(names, labels, strict=True)]
        (folder / "labels.json").write_text(json.dumps(rows))
        return folder
    return table(folder, zip(names, labels, strict=True))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_label_is_read_as_it_is_written(tmp_path: Path, form: str) -> None:
    labels = [*ACCEPTED, *(label for label in REFUSED if len(label) < 10_000)]
    samples = opened(labeled(tmp_path, labels, form), split="dealt").samples()
    assert [sample.label for sample in samples] == labels


def test_label_that_is_usual_text_is_accepted_unchanged() -> None:
    samples = [
        Sample(str(row), label, split) for split in ("train", "val", "test") for row, label in enumerate(ACCEPTED)
    ]  # type: ignore[arg-type]
    found = audit(samples, max_length=40)
    assert found.labels == tuple(3 * ACCEPTED)
    assert found.problems == ()


@pytest.mark.parametrize("label", REFUSED, ids=lambda label: ascii(label[:9]))
def test_label_that_nobody_sees_is_refused_with_its_code_point(label: str) -> None:
    samples = [Sample("bad", label, "train"), *(Sample(split, "ok", split) for split in ("train", "val", "test"))]  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        audit(samples, max_length=40)
    assert REFUSED[label] in str(caught.value)
    assert "1 in all: 'bad'" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_label_with_half_of_a_character_is_refused_whatever_is_allowed(
    tmp_path: Path, tiny: dict[str, Any], tiny_registry: Registry
) -> None:
    labels = ["ok"] * 29 + ["a\ud800"]
    tiny["dataset"] = {"use": "folder", "path": str(labeled(tmp_path, labels, "json")), "labels": "table"}
    tiny |= {"allow": ["control_character"]}
    with pytest.raises(DataError, match=r"'a\\ud800' is no valid text, as it has half of a character \(U\+D800\)"):
        train(tiny, tiny_registry, tmp_path / "out")


@pytest.mark.slow
def test_labels_reach_the_predictions_unchanged(tmp_path: Path, tiny: dict[str, Any], tiny_registry: Registry) -> None:
    folder = labeled(tmp_path / "set", ACCEPTED, "csv")
    tiny["dataset"] = {"use": "folder", "path": str(folder), "split": "dealt", "fractions": [0.1, 0.1, 0.8]}
    tiny["image"] = {"height": 16, "width": 160}
    tiny["training"] |= {"steps": 1, "validate_every": 1, "batch_size": 2}
    tiny["allow"] = ["too_narrow", "no_contrast", "duplicate_across_splits", "conflicting_labels"]
    tiny["grid"]["decoder"] = {"loop": {"use": "lstm_cell", "hidden_dim": 8}}
    folder_of = {f"{number:03d}.png": label for number, label in enumerate(ACCEPTED)}
    draw_different_images(folder)
    frame = train(tiny, tiny_registry, tmp_path / "out")
    (cell_id,) = frame["cell_id"]
    written = pd.read_parquet(tmp_path / "out" / "cells" / cell_id / "predictions.parquet")
    assert len(written) == round(0.8 * len(ACCEPTED))
    assert written["reference"].tolist() == [folder_of[name] for name in written["sample"]]


def draw_different_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for number, file in enumerate(sorted((folder / "images").iterdir())):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 160), dtype=np.uint8)
        Image.fromarray(pixels).save(file)


# Files of labels that are no files, or no text


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 * 2**30)


def long_line(path: Path) -> None:
    path.write_bytes(b"filename,label\n" + b"a" * 2_000_000 + b"\n")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is not a regular file"),
    "folder": (Path.mkdir, "is not a regular file"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "leaves the folder|is not a regular file"),
    "link": (lambda path: path.symlink_to("images/000.png"), "is a link|is not UTF-8"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "leads nowhere|is not a regular file"),
    "hole of 4 GiB": (sparse, "has 4,294,967,296 bytes; a file of labels may have"),
    "one long line": (long_line, r"line 2 has more than 1,000,000 bytes"),
    "zeros": (lambda path: path.write_bytes(bytes(3_000_000)), "line 1 has more than 1,000,000 bytes"),
    "latin-1": (lambda path: path.write_bytes("filename,label\na,é\n".encode("latin-1")), "line 2 is not UTF-8"),
    "utf-16": (lambda path: path.write_bytes("filename,label\na,b\n".encode("utf-16")), "line 1 is not UTF-8"),
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("options", [{}, {"labels_file": "labels.csv"}], ids=["found", "named"])
def test_file_of_labels_that_cannot_be_read_is_named_and_never_blocks(
    tmp_path: Path, what: str, options: dict[str, Any]
) -> None:
    make(tmp_path, [f"{number:03d}.png" for number in range(3)])
    create, reason = FILES[what]
    create(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=reason) as caught:
        opened(tmp_path, **options).samples()
    assert "labels.csv" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["labels.parquet", "labels.xlsx", "labels.json", "labels.jsonl", "labels.txt"])
def test_pipe_in_place_of_a_table_never_blocks(tmp_path: Path, name: str) -> None:
    make(tmp_path, ["a.png"])
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} is not a regular file"):
        opened(tmp_path, labels_file=name).samples()
    with pytest.raises(DataError, match=rf"{name}: is not a regular file"):
        opened(tmp_path).samples()


def test_all_wrong_rows_of_a_table_are_counted_in_one_message(tmp_path: Path) -> None:
    make(tmp_path, [f"{number}.png" for number in range(20)])
    rows = [[f"{number}.png", str(number), *["more"] * (number % 2)] for number in range(16)]
    with pytest.raises(DataError, match=r"8 rows of labels cannot be read:\n  labels\.csv line 3 has a different"):
        opened(table(tmp_path, rows), labels_file="labels.csv").samples()


# Labels on their way to the loss


class Uniform(CTCDecoder):
    """All symbols are equally probable in every frame."""

    def forward(self, memory: torch.Tensor) -> torch.Tensor:
        return memory.new_zeros(*memory.shape[:2], self.vocabulary_size)


@pytest.mark.parametrize("count", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_loss_is_finite_if_and_only_if_the_label_fits_into_the_frames(count: int) -> None:
    chance, charset = random.Random(0), Charset("ab")
    for _ in range(count):
        text = "".join(chance.choices("ab", k=chance.randint(2, 9)))
        needed = ctc_frames_needed(text)
        spec = LabelSpec(charset=charset, max_length=len(text), frames_needed=needed)
        with pytest.raises(InfeasibleError, match=f"CTC needs T >= {needed}"):
            Uniform(None, SequenceSpec(length=needed - 1, dim=5, left_to_right=True), spec)
        decoder = Uniform(None, SequenceSpec(length=needed, dim=5, left_to_right=True), spec)
        labels = Labels.from_texts([text], charset)
        assert torch.isfinite(decoder.nll(torch.zeros(1, needed, 5), labels)).all()
        assert torch.isinf(decoder.nll(torch.zeros(1, needed - 1, 5), labels)).all()


ALPHABET = string.printable[:95] + "éüßœñ中日本語한😀👍"


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ids_of_any_labels_are_inside_the_charset_and_spell_them(count: int) -> None:
    chance = random.Random(0)
    for _ in range(count):
        charset = Charset("".join(chance.sample(ALPHABET, chance.randint(1, 40))))
        texts = ["".join(chance.choices(charset.characters, k=chance.randint(0, 9))) for _ in range(4)]
        labels = Labels.from_texts(texts, charset, max_length=9)
        assert labels.host_lengths == tuple(map(len, texts))
        ids = labels.ids[labels.mask()]
        assert set(ids.tolist()) <= set(range(len(charset)))
        rows = zip(labels.ids.tolist(), labels.host_lengths, strict=True)
        assert [charset.decode(row[:length]) for row, length in rows] == texts


@pytest.mark.parametrize("wrong", [-1, 3, 7, 10**6, 10**9])
def test_id_outside_of_the_charset_is_refused_before_the_loss_is_computed(wrong: int) -> None:
    decoder = Uniform(
        None,
        SequenceSpec(length=9, dim=5, left_to_right=True),
        LabelSpec(charset=Charset("abc"), max_length=4, frames_needed=1),
    )
    ids = torch.tensor([[0, wrong, 0, 0], [1, 2, 0, 0]])
    labels = Labels(ids, torch.tensor([2, 2]), (2, 2))
    with pytest.raises(
        ValueError, match=rf"labels have ids from {min(wrong, 0)} to .*, the charset has ids from 0 to 2"
    ):
        decoder.nll(torch.zeros(2, 9, 5), labels)
    outside = Labels(ids, torch.tensor([1, 2]), (1, 2))  # positions past the end of a label have no meaning
    assert torch.isfinite(decoder.nll(torch.zeros(2, 9, 5), outside)).all()
