"""Results with predictions, images and alignments that are made by hand, and their page as its reader gets it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from decoderbench.alignments import Alignment, encode_alignments
from decoderbench.analysis import load_report
from decoderbench.analysis.kept_images import encode_image
from decoderbench.config.cell import Cell
from decoderbench.metrics import Transcriptions, built_in_definitions
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan, append_line
from decoderbench.report.html import html_report
from helpers.recording import make_cell, make_record

VOID = {"meta", "link", "img", "input", "br"}
COMMAND = "decoderbench report results/demo"
Element = tuple[str, tuple[tuple[str, str | None], ...]]


class Page(HTMLParser):
    """A page: its elements with their attributes, its text, and the text of each element by its id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.source = page
        self.elements: list[Element] = []
        self.texts: dict[str, str] = {}
        self.text = ""
        self._open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(attrs))))
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> ends nothing"
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> ends with </{tag}>"

    def handle_data(self, data: str) -> None:
        self.text += data
        for _, identity in self._open:
            if identity:
                self.texts[identity] = self.texts.get(identity, "") + data

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", ((data, None),)))

    handle_pi = unknown_decl = handle_comment

    def handle_decl(self, decl: str) -> None:
        self.elements.append(("declaration", ((decl, None),)))

    @property
    def counts(self) -> Counter[Element]:
        """How often each element with the same attributes is there."""
        return Counter(self.elements)

    def values(self, tag: str, attribute: str) -> list[str | None]:
        """Return the values of an attribute of all elements of a kind that have it."""
        return [dict(attrs)[attribute] for name, attrs in self.elements if name == tag and attribute in dict(attrs)]


def publish_readings(
    path: Path,
    readings: Mapping[str, Sequence[Sequence[str]]],
    references: Sequence[str],
    *,
    keys: Sequence[str] | None = None,
    unread: Sequence[Cell] = (),
    cell: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
) -> ResultsDirectory:
    """Write results whose cells have read test images.

    Args:
        path: the results folder.
        readings: by decoder, for each seed what it read.
        references: the labels of the test images.
        keys: of the test images.
        unread: cells of the plan without a record.
        cell: changes of cells.
        record: changes of records.
        plan: changes of the plan.
    """
    keys = keys or [f"test/{number}" for number in range(len(references))]
    directory = ResultsDirectory(path)
    cells = [
        make_cell(decoder, seed).model_copy(update=dict(cell or {}))
        for decoder, of_seeds in readings.items()
        for seed in range(len(of_seeds))
    ]
    fields = {"experiment": "demo", "command": "decoderbench run demo.toml"} | dict(plan or {})
    directory.write_plan(Plan(cells=(*cells, *unread), **fields))
    texts = [read for of_seeds in readings.values() for read in of_seeds]
    for one, hypotheses in zip(cells, texts, strict=True):
        folder = directory.cell_directory(one)
        folder.mkdir(parents=True)
        nll = [0.1 + 0.5 * (a != b) for a, b in zip(references, hypotheses, strict=True)]
        frame = pd.DataFrame(
            {
                "sample": keys,
                "reference": references,
                "hypothesis": hypotheses,
                "log_prob": [-0.1 * (1 + number) for number in range(len(keys))],
                "text_log_prob": [-0.1 * (1 + number) for number in range(len(keys))],
                "nll": nll,
            }
        )
        frame.to_parquet(folder / "predictions.parquet", index=False)
        weights = (
            np.eye(len(references[0]), 8, dtype=np.float32)
            if len(references[0]) < 8
            else np.eye(4, 8, dtype=np.float32)
        )
        alignment = Alignment(keys[0], hypotheses[0][: len(weights)], weights)
        (folder / "alignments.npz").write_bytes(encode_alignments([alignment]))
        for step in (10, 20):
            append_line(
                folder / "history.jsonl", {"step": step, "val_exact_match": step / 40, "val_nats_per_char": 1.5}
            )
        transcribed = Transcriptions(references, hypotheses, nll)
        metrics = {name: definition.score(transcribed) for name, definition in built_in_definitions().items()}
        fields_of_record: dict[str, Any] = {"metrics": metrics, "num_test": len(references)} | dict(record or {})
        directory.publish(make_record(one, **fields_of_record))
    return directory


def publish_images(path: Path, images: Sequence[tuple[str, str, str, str]]) -> None:
    """Write `images.parquet` with a small picture for each data hash, key, split and label."""
    pixels = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (1, 8, 1))
    rows = [(*image, encode_image(pixels)) for image in images]
    pd.DataFrame(rows, columns=["data_hash", "sample", "split", "label", "png"]).to_parquet(path / "images.parquet")


def page_of(path: Path) -> Page:
    """Return the page of a results folder."""
    return Page(html_report(load_report(path), command=COMMAND))
