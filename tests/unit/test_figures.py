"""Figures: what is drawn of made-up rows, and the bytes of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from helpers.readings import make_predictions, make_row, write_result
from helpers.recording import HOSTILE, make_cell, make_record, publish
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoderbench.analysis import load_report
from decoderbench.records.schema import Cost, append_line
from decoderbench.report import figures
from decoderbench.report.figures_cost import COST_AXES, draw_cost, pareto_front
from decoderbench.report.figures_lines import LineAxes, draw_lines
from decoderbench.report.figures_rows import draw_errors, draw_seeds
from decoderbench.report.figures_steps import draw_steps
from decoderbench.report.figures_style import Drawing, draw, shown_rows, style_of

LATENCY = COST_AXES["accuracy_vs_latency"]


def make_rows(values: list[float], **columns: Any) -> pd.DataFrame:
    """Return rows of a report with intervals of two points, cut at 0 and 100, as fractions of 1."""
    value = np.array(values) / 100
    frame = pd.DataFrame(
        {
            "decoder": [f"d{number}" for number in range(len(values))],
            "name": "",
            "exact_match": value,
            "exact_match_low": (value - 0.02).clip(0, 1),
            "exact_match_high": (value + 0.02).clip(0, 1),
            "exact_match_bold": False,
            "latency_ms": np.arange(1.0, len(values) + 1),
            "alike": True,
        }
        | columns
    )
    return shown_rows(frame, ["decoder"])


def axes_of(figure: Figure, number: int = 0) -> Axes:
    return figure.axes[number]


@pytest.mark.parametrize("values", [[0.0, 100.0, 99.5], [0.0], [100.0], [50.0, 60.0]])
def test_intervals_are_those_of_the_rows_and_stay_within_0_and_100(values: list[float]) -> None:
    figure = Figure()
    rows = make_rows(values)
    draw_cost(figure, rows, LATENCY)
    bars = [container.lines[2][0].get_segments()[0][:, 1].tolist() for container in axes_of(figure).containers]
    expected = (100 * rows[["exact_match_low", "exact_match_high"]]).values.tolist()
    assert bars == [pytest.approx(bar) for bar in expected]
    assert all(0 <= end <= 100 for bar in bars for end in bar)


def test_row_without_interval_is_drawn_as_a_point() -> None:
    figure = Figure()
    draw_cost(figure, make_rows([40.0], exact_match_low=np.nan, exact_match_high=np.nan), LATENCY)
    assert axes_of(figure).containers[0].lines[2][0].get_segments()[0][:, 1].tolist() == [40, 40]


def test_pareto_front_holds_rows_that_no_cheaper_or_equal_one_reaches() -> None:
    rows = make_rows([50.0, 40.0, 60.0, 60.0, 70.0, 65.0], latency_ms=[1.0, 2.0, 3.0, 4.0, 5.0, 5.0])
    assert pareto_front(rows, "latency_ms")["decoder"].tolist() == ["d0", "d2", "d4"]


def test_rows_measured_otherwise_are_not_on_the_front() -> None:
    figure = Figure()
    draw_cost(figure, make_rows([50.0, 90.0], alike=[True, False]), LATENCY)
    front = axes_of(figure).lines[0]
    assert list(front.get_ydata()) == [50, 50]
    assert "not all measured alike" in axes_of(figure).get_title()
    draw_cost(other := Figure(), make_rows([50.0], alike=[False]), LATENCY)  # no front at all
    assert len(axes_of(other).containers) == 1


def test_every_seed_is_a_dot_and_one_that_did_not_learn_a_cross() -> None:
    figure = Figure()
    rows = make_rows([99.0, 60.0, float("nan")], exact_match_bold=[True, False, False])
    seeds = pd.DataFrame(
        {"index": [0, 0, 1, 1], "exact_match": [0.985, 0.995, 0.0, 0.99], "learned": [True, True, False, True]}
    )
    draw_seeds(figure, rows, seeds)
    axes = axes_of(figure)
    drawn = {
        marker: [x for line in axes.lines if line.get_marker() == marker for x in line.get_xdata()] for marker in ".x"
    }
    assert drawn == {".": pytest.approx([98.5, 99.5, 99]), "x": [0]}
    assert [text.get_text() for text in axes.texts] == ["no result"]
    names = axes.get_yticklabels()
    assert [(text.get_text(), text.get_fontweight()) for text in names] == [
        ("d0", "bold"),
        ("d1", "normal"),
        ("d2", "normal"),
    ]


def test_bars_of_errors_add_up_to_100_percent_with_the_rate_beside_them() -> None:
    errors = pd.DataFrame(
        {
            "substitutions": [2.0, 0.0, np.nan],
            "insertions": [1.0, 0.0, np.nan],
            "deletions": [1.0, 0.0, np.nan],
            "repeats_dropped": [0.5, 0.0, np.nan],
            "same_length": [0.1, 0.0, np.nan],
            "too_long": [0.1, 0.0, np.nan],
            "too_short": [0.0, 0.0, np.nan],
            "truncated": [0.2, 0.0, np.nan],
            "empty": [0.0, 0.0, np.nan],
        }
    )
    figure = Figure()
    draw_errors(figure, make_rows([50.0, 100.0, float("nan")]), errors)
    left, right = figure.axes
    widths = [[bar.get_width() for bar in axes.patches] for axes in (left, right)]
    assert widths[0][::3] == pytest.approx([50, 25, 12.5, 12.5])
    assert widths[1][::3] == pytest.approx([25, 25, 0, 50, 0])
    assert [sum(of_row[1::3]) for of_row in widths] == [0, 0]
    assert [text.get_text() for text in left.texts] == ["4.00 per 100", "0.00 per 100", "n/a"]
    assert [text.get_text() for text in right.texts] == ["40.0 %", "0.00 %", "n/a"]


def make_curves(learned: list[bool]) -> pd.DataFrame:
    """Return curves of one row that reach 100 percent at step 2 if the seed learned, else stay at 0."""
    return pd.DataFrame(
        [
            {"index": 0, "fold": -1, "seed": seed, "step": step, "val_exact_match": ok * step / 2, "learned": ok}
            for seed, ok in enumerate(learned)
            for step in (1, 2)
        ]
    )


@pytest.mark.parametrize(
    ("learned", "mean", "crosses"),
    [([True, True], [50, 100], 0), ([True, False], [50, 100], 1), ([False, False], [0, 0], 2), ([True], [50, 100], 0)],
)
def test_mean_curve_is_over_seeds_that_learned(learned: list[bool], mean: list[float], crosses: int) -> None:
    figure = Figure()
    draw_steps(figure, make_curves(learned), make_rows([50.0]), ["decoder"])
    lines = axes_of(figure).lines
    assert lines[-1].get_linewidth() == 1.8
    assert list(lines[-1].get_ydata()) == mean
    assert sum(line.get_marker() == "x" for line in lines) == crosses
    thin = [line for line in lines if line.get_linewidth() == 0.6]
    assert len(thin) == (len(learned) if len(learned) > 1 else 0)


def test_curves_of_many_rows_are_in_panels_with_one_legend() -> None:
    kinds = [(encoder, f"d{number}") for encoder in ("E0", "$E1$") for number in range(7)]
    columns = dict(zip(("encoder", "decoder"), zip(*kinds, strict=True), strict=True))
    rows = shown_rows(make_rows([50.0] * 14, **columns).drop(columns=["label", "style"]), ["encoder", "decoder"])
    curves = pd.concat([make_curves([True]).assign(index=index) for index in rows.index])
    figure = Figure(layout="constrained")
    draw_steps(figure, curves, rows, ["encoder", "decoder"])
    assert [axes.get_title() for axes in figure.axes] == ["E0", "$E1$"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"d{number}" for number in range(7)]


def test_lines_leave_out_rows_without_points() -> None:
    lines = pd.DataFrame({"index": [0, 0, 2], "x": [2, 1, 1], "y": [80.0, 90.0, 70.0]})
    figure = Figure(layout="constrained")
    draw_lines(figure, lines, make_rows([85.0, 50.0, 70.0]), LineAxes("length", "Exact match"))
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes_of(figure).lines]
    assert drawn == [([1, 2], [90, 80]), ([1], [70])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["d0", "d2"]


def test_styles_of_77_rows_are_distinct() -> None:
    styles = [style_of(position) for position in range(77)]
    assert len({(style.color, style.marker) for style in styles}) == 77


def texts(drawing: bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(drawing).findall(".//{*}text")]


def draw_hostile() -> Drawing:
    rows = make_rows([50.0] * len(HOSTILE), decoder=HOSTILE)
    rows = shown_rows(rows.drop(columns=["label", "style"]), ["decoder"])
    return draw("caption", lambda figure: draw_cost(figure, rows, LATENCY))


def test_labels_are_shown_literally_and_files_hold_no_date() -> None:
    drawing = draw_hostile()
    shown = "".join("".join(texts(drawing.svg)).split())
    for label in HOSTILE:
        assert "".join(label.split()) in shown
    assert not ElementTree.fromstring(drawing.svg).findall(".//{*}script")
    assert b"<dc:date>" not in drawing.svg
    assert b"CreationDate" not in drawing.pdf
    assert drawing.pdf.startswith(b"%PDF-")
    assert draw_hostile() == drawing


@pytest.mark.slow
def test_figures_have_the_same_bytes_in_every_process() -> None:
    code = (
        "import hashlib, unit.test_figures as t;d = t.draw_hostile(); print(hashlib.sha256(d.svg + d.pdf).hexdigest())"
    )
    digests = set()
    for seed in ("1", "2"):
        path = os.pathsep.join(sys.path)
        tests = str(Path(__file__).parents[1])
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tests}{os.pathsep}{path}"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures have a caption only, since drawing takes time."""
    monkeypatch.setattr(figures, "draw", lambda caption, paint: SimpleNamespace(caption=caption))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that were drawn, by caption; no files are made of them."""
    found: dict[str, Figure] = {}

    def keep(caption: str, paint: Any) -> None:
        found[caption] = Figure(layout="constrained")
        paint(found[caption])

    monkeypatch.setattr(figures, "draw", keep)
    return found


@pytest.mark.usefixtures("undrawn")
def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    cell = make_cell()
    directory = publish(tmp_path, [cell], [])
    assert figures.draw_figures(load_report(tmp_path)) == {}
    directory.publish(make_record(cell, cost=Cost()))
    assert list(figures.draw_figures(load_report(tmp_path))) == [
        *("accuracy_of_seeds", "accuracy_vs_parameters", "accuracy_vs_macs"),
    ]
    append_line(directory.cell_directory(cell) / "history.jsonl", {"step": 1, "val_exact_match": 0.5})
    cost = Cost(latency_ms=2.0, train_seconds=9.0, latency_ms_by_length={"3": 1.5, "5": 2.5})
    directory.publish(make_record(cell, cost=cost))
    assert list(figures.draw_figures(load_report(tmp_path))) == [
        "accuracy_of_seeds",
        "accuracy_vs_steps",
        "accuracy_vs_latency",
        "accuracy_vs_parameters",
        "accuracy_vs_macs",
        "accuracy_vs_training_time",
        "latency_vs_length",
    ]


@pytest.mark.usefixtures("undrawn")
def test_row_that_was_renamed_after_its_run_keeps_its_figures(tmp_path: Path) -> None:
    cell = make_cell()
    cost = Cost(latency_ms=2.0, train_seconds=9.0, latency_ms_by_length={"3": 1.5, "5": 2.5})
    directory = publish(tmp_path, [cell], [make_record(cell, cost=cost)])
    before = list(figures.draw_figures(load_report(tmp_path)))
    renamed = cell.model_copy(update={"decoder": cell.decoder.model_copy(update={"label": "another name"})})
    directory.write_plan(directory.read_plan().model_copy(update={"cells": (renamed,)}))
    report = load_report(tmp_path)
    assert list(figures.draw_figures(report)) == before
    assert "latency_vs_length" in before
    assert [record.cell.decoder.label for record in report.results.records] == ["another name"]


def test_characters_that_the_font_of_a_pdf_lacks_are_warned_about(
    tmp_path: Path, drawn: dict[str, Figure], caplog: pytest.LogCaptureFixture
) -> None:
    cell = make_cell("漢字 é\n漢")
    publish(tmp_path, [cell], [make_record(cell)])
    figures.draw_figures(load_report(tmp_path))
    assert drawn
    assert [message for message in caplog.messages if "figures" in message] == [
        "figures/*.pdf: boxes stand for 字漢, which their font lacks; the SVG files have them as text"
    ]


def test_accuracy_against_labels_joins_rows_that_differ_in_their_number_only(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    usual = make_cell().training
    chosen = {"training": usual.model_copy(update={"learning_rate": 0.5}), "tuned": {"training.learning_rate": 0.5}}
    few = {"train_limit": 100, "setting": "100 labels", **chosen}
    augmentation = make_cell().augmentation.model_copy(update={"brightness": 0.5})
    cells = [
        make_cell("CTC"),
        make_cell("CTC", **few),
        make_cell("Attention", **few),  # alone
        make_cell("CTC", setting="50 labels, bright", train_limit=50, augmentation=augmentation),
        make_cell("CTC", setting="20 labels, fast", train_limit=20, training=chosen["training"]),  # was not tuned
    ]
    sizes = {"train": 900, "val": 100, "test": 50}
    records = [make_record(cell, 0.5 + place / 10) for place, cell in enumerate(cells)]
    publish(tmp_path, cells, records, split_sizes=sizes)
    assert "accuracy_vs_labels" in figures.draw_figures(load_report(tmp_path))
    (figure,) = [figure for caption, figure in drawn.items() if "number of labels" in caption]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes_of(figure).lines] == [
        ([100, 1000], pytest.approx([60, 50]))
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CTC"]


def test_seeds_that_did_not_learn_are_marked_by_the_validation_of_the_last_step(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    cells = [make_row("CTC", seed=seed) for seed in range(3)]
    directory = publish(tmp_path, cells, [])
    labels = make_predictions(["ab", "ba"], ["ab", "ba"])  # with an entropy of log 2 nats
    for cell, nats in zip(cells, (0.1, 0.69, 0.1), strict=True):
        folder = directory.cell_directory(cell)
        append_line(
            folder / "history.jsonl",
            {"step": cell.training.steps, "val_exact_match": 0.5, "val_nats_per_char": nats},
        )
        labels.to_parquet(folder / "val_predictions.parquet")
        write_result(directory, cell, labels)
    figures.draw_figures(load_report(tmp_path))
    marked = [axes_of(figure) for caption, figure in drawn.items() if "cross" in caption]
    crosses = [[line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())] for axes in marked]
    assert [len(lines) for lines in crosses] == [1, 1]
