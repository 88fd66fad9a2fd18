"""The report: published records become a frame, tables and figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.recording import COMMAND, HOSTILE, header, make_cell, make_record, publish, table_rows
from markdown_it import MarkdownIt

from decoderbench.conditions import CONDITIONS
from decoderbench.config.cell import ResolvedComponent
from decoderbench.errors import DataError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import append_line
from decoderbench.report import load_frame, load_report, load_results, markdown_table, summarize, write_report
from decoderbench.report.tables import format_fixed

COLUMNS = [
    *("experiment", "dataset", "rectifier", "encoder", "bridge", "decoder"),
    *("setting", "seed", "fold", "folds", "status", "reason"),
    *("exact_match", "cer", "one_minus_ned", "nats_per_char", "num_test"),
    *("param_count", "training_only_param_count", "gmacs"),
    *("train_samples_per_sec", "infer_samples_per_sec", "latency_ms"),
    *("train_peak_memory_mb", "infer_peak_memory_mb", "train_seconds"),
    *("frames", "train_limit", "tuned", "tuning_seconds", *CONDITIONS, "cell_id", "name"),
]


def publish_mixed(path: Path) -> ResultsDirectory:
    """Publish a row with two done cells and a diverged one, an infeasible row, and a pending row."""
    attention = [make_cell("Attention", seed) for seed in range(3)]
    wide = [make_cell("Wide", seed, infeasible="needs 9 frames, has 4") for seed in range(2)]
    return publish(
        path,
        [*attention, *wide, make_cell("Later")],
        [
            make_record(attention[0], 0.9),
            make_record(attention[1], status="diverged", reason="loss was nan"),
            make_record(attention[2], 0.8, num_test=999),
            *(make_record(cell, status="infeasible", reason="needs 9 frames, has 4") for cell in wide),
        ],
        data_notes=("3 labels are _longer_ than 5",),
        data_summary=("5 samples of _some_ kind",),
    )


def test_load_frame_has_fixed_columns_and_types_in_plan_order(tmp_path: Path) -> None:
    cells = [make_cell("B", seed=2**62), make_cell("A", frames=None, num_parameters=None)]
    publish(tmp_path, cells, [make_record(cells[1], num_test=None), make_record(cells[0])])
    frame = load_frame(tmp_path)
    assert list(frame.columns) == COLUMNS
    assert frame["decoder"].tolist() == ["B", "A"]
    assert frame["seed"].tolist() == [2**62, 0]
    assert frame["frames"].tolist() == [16, pd.NA]
    assert {name: str(frame[name].dtype) for name in ("seed", "num_test", "frames", "cer")} == {
        "seed": "int64",
        "num_test": "Int64",
        "frames": "Int64",
        "cer": "float64",
    }
    assert frame[["rectifier", "latency_ms", "device"]].values.tolist()[0] == ["none", 2.0, "cpu"]
    assert frame["cell_id"].tolist() == [cell.cell_id for cell in cells]


def test_load_results_leaves_metrics_without_result_missing(tmp_path: Path) -> None:
    frame = load_results(publish_mixed(tmp_path).path).recorded
    metrics = ["exact_match", "cer", "one_minus_ned", "nats_per_char"]
    assert frame["status"].tolist() == ["done", "diverged", "done", "infeasible", "infeasible"]
    assert frame[metrics].isna().all(axis="columns").tolist() == [False, True, False, True, True]


def test_load_frame_takes_renamed_labels_from_the_plan(tmp_path: Path) -> None:
    old, new = make_cell("lstm + ctc"), make_cell("something else")
    new = new.model_copy(update={"decoder": old.decoder.model_copy(update={"label": "something else"})})
    assert old.cell_id == new.cell_id
    publish(tmp_path, [new], [make_record(old)])
    assert load_frame(tmp_path)["decoder"].tolist() == ["something else"]


def test_load_frame_appends_metrics_then_plugin_columns(tmp_path: Path) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)]
    records = [make_record(cell, metrics={"zeta": 0.25, "alpha": None}) for cell in cells]
    publish(tmp_path, cells, records)
    frame = load_frame(
        tmp_path, extra_columns=lambda record: {"words": record.cell.seed + 1} if record.cell.seed else {}
    )
    assert list(frame.columns) == [*COLUMNS, "alpha", "zeta", "words"]
    assert frame["zeta"].tolist() == [0.25] * 3
    assert frame["words"].tolist() == [pd.NA, 2, 3]


@pytest.mark.parametrize("name", ["cer", "cell_id", "name", "zeta"])
def test_load_frame_ignores_plugin_column_that_exists(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cell = make_cell()
    publish(tmp_path, [cell], [make_record(cell, metrics={"zeta": 1.0})])
    frame = load_frame(tmp_path, extra_columns=lambda record: {name: 1, "moon": 2})
    assert caplog.messages == [f"report column '{name}' already exists, so a plugin's is ignored; give it another name"]
    assert list(frame.columns) == [*COLUMNS, "zeta", "moon"]
    pd.testing.assert_frame_equal(frame.drop(columns="moon"), load_frame(tmp_path))


def test_load_frame_ignores_metric_named_like_a_fixed_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cell = make_cell(seed=7)
    publish(tmp_path, [cell], [make_record(cell, metrics={"seed": 1.0})])
    assert load_frame(tmp_path)["seed"].tolist() == [7]
    assert "report column 'seed' already exists" in caplog.text


def test_summarize_counts_done_seeds_and_uses_sample_deviation(tmp_path: Path) -> None:
    summary = summarize(load_results(publish_mixed(tmp_path).path).cells)
    assert summary["decoder"].tolist() == ["Attention", "Wide", "Later"]
    assert summary["num_seeds"].tolist() == [2, 0, 0]
    assert summary["num_cells"].tolist() == [3, 2, 1]
    assert summary["exact_match_mean"][0] == pytest.approx(0.85)
    assert summary["exact_match_std"][0] == pytest.approx(0.1 / 2**0.5)
    assert summary["latency_ms"].isna().tolist() == [False, True, True]
    assert summary["status"].tolist() == ["diverged", "infeasible", "pending"]
    assert summary["reasons"].tolist() == [
        "diverged: loss was nan",
        "infeasible: needs 9 frames, has 4",
        "pending",
    ]


def test_markdown_table_keeps_rows_without_result_and_notes_reasons(tmp_path: Path) -> None:
    text = markdown_table(load_report(publish_mixed(tmp_path).path))
    rows = {row[2]: row[3:] for row in table_rows(text)}
    assert rows["Attention"] == [
        *("85.0", "15.0", "75.0", "0.125"),
        *("2 of 3 (note 1)", "11.2", "0.0456", "2.00", "5000", "1 seed failed"),
    ]
    assert rows["Wide"] == [*["n/a"] * 4, "0 of 2 (note 2)", *["n/a"] * 4, "infeasible"]
    assert rows["Later"] == [*["n/a"] * 4, "0 of 1", *["n/a"] * 4, ""]
    notes = text.splitlines()[-7:]
    assert notes == [
        "- nothing is bold: that needs two rows with at least two seeds each, tested on the same images",
        "- predictions.parquet: it is missing, so these cells have no interval and no contrast",
        "- tuned for none: one setting for all rows",
        "- note 1, diverged: loss was nan (ResNet / columns / Attention, seed 1)",
        "- note 2, infeasible: needs 9 frames, has 4 (ResNet / columns / Wide, seeds 0, 1)",
        "- 3 labels are \\_longer\\_ than 5",
        "- pending: 1 of 6 cells",
    ]


def publish_stages(path: Path, **changes: dict[str, Any]) -> ResultsDirectory:
    """Publish two rectifiers x two decoders; the last cell failed. `changes` are fields by "rectifier decoder"."""
    thin_plate = ResolvedComponent(label="TPS", use="tps", options={}, decisive={}, source="s")
    none = ResolvedComponent(label="as it is", use="none", options={}, decisive={}, source="s")
    cells = [
        make_cell(decoder, rectifier=rectifier, **changes.get(f"{rectifier.label} {decoder}", {}))
        for rectifier in (none, thin_plate)
        for decoder in ("CTC", "Attention")
    ]
    return publish(
        path, cells, [*map(make_record, cells[:-1]), make_record(cells[-1], status="failed", reason="out of luck")]
    )


def test_markdown_table_shows_rectifiers_unless_all_are_none(tmp_path: Path) -> None:
    without = markdown_table(load_report(publish_mixed(tmp_path / "without").path))
    assert header(without)[:4] == ["Encoder", "Bridge", "Decoder", "Exact match (%)"]
    text = markdown_table(load_report(publish_stages(tmp_path / "with").path))
    assert header(text)[:5] == ["Rectifier", "Encoder", "Bridge", "Decoder", "Exact match (%)"]
    assert [row[:4] for row in table_rows(text)] == [
        ["as it is", "ResNet", "columns", "CTC"],
        ["as it is", "ResNet", "columns", "Attention"],
        ["TPS", "ResNet", "columns", "CTC"],
        ["TPS", "ResNet", "columns", "Attention"],
    ]
    assert "- note 1, failed: out of luck (TPS / ResNet / columns / Attention, seed 0)" in text


def test_tables_start_with_names_if_any_row_has_one(tmp_path: Path) -> None:
    path = publish_stages(tmp_path, **{"as it is Attention": {"name": "007_"}}).path
    write_report(path, command=COMMAND)
    text = (path / "report.md").read_text(encoding="utf-8")
    assert header(text[text.index("| Name") :])[:3] == ["Name", "Rectifier", "Encoder"]
    assert [row[0] for row in table_rows(markdown_table(load_report(path)))] == ["", "007_", "", ""]
    latex = (path / "tables/main.tex").read_text(encoding="utf-8").splitlines()
    assert r"\begin{tabular}{llrrrrrl}" in latex, "two axes that vary, five columns, remarks"
    rows = [line.split(" & ")[:2] for line in latex if line.startswith(("as it is &", "TPS &"))]
    assert rows == [["as it is", "CTC"], ["as it is", "Attention"], ["TPS", "CTC"], ["TPS", "Attention"]]
    assert r"\par the same in all rows: encoder ResNet; bridge columns." in latex
    assert load_frame(path)["name"].tolist() == ["", "007_", "", ""]
    assert summarize(load_frame(path))["name"].tolist() == ["", "007_", "", ""]


def test_report_page_states_data_method_and_provenance(tmp_path: Path) -> None:
    page = write_report(publish_mixed(tmp_path).path, command=COMMAND).read_text(encoding="utf-8")
    for line in (
        "- 5 samples of \\_some\\_ kind",
        "- Weights evaluated: best on the validation split (exact match, then nats).",
        "- Images in the test split: 1000, 999.",
        "    decoderbench run demo.toml",
        f"    {COMMAND}",
        "- date: 2026-01-01 to 2026-01-03",
        "- torch: 2.10",
        "- device: cpu",
    ):
        assert line in page.splitlines()
    assert "**" not in page, "no row has a result that could be bold"


def test_write_report_without_records_shows_all_pending(tmp_path: Path) -> None:
    publish(tmp_path, [make_cell(seed=seed) for seed in range(2)], [])
    page = write_report(tmp_path, command=COMMAND).read_text(encoding="utf-8")
    assert table_rows(page)[0][3:8] == [*["n/a"] * 4, "0 of 2"]
    assert "- pending: 2 of 2 cells" in page
    frame = load_frame(tmp_path)
    assert list(frame.columns) == COLUMNS
    assert (len(frame), len(summarize(frame))) == (0, 0)
    assert (tmp_path / "tables/cells.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_write_report_refuses_folder_without_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no plan\.json"):
        write_report(tmp_path, command=COMMAND)


def publish_hostile(path: Path) -> Path:
    cells = [make_cell(label, encoder=HOSTILE[0]) for label in HOSTILE]
    records = [make_record(cell) for cell in cells[:-1]]
    failed = make_record(cells[-1], status="failed", reason="x\n\n# y | `z` \x1b[31m<b>")
    directory = publish(path, cells, [*records, failed], data_notes=("# not a heading",), data_summary=("# nor this",))
    for cell in cells:
        history = directory.cell_directory(cell) / "history.jsonl"
        for step in (1, 2):
            append_line(history, {"step": step, "val_exact_match": 0.5})
    write_report(path, command=COMMAND)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose labels and reasons contain markup; shared, so tests must not change it."""
    return publish_hostile(tmp_path_factory.mktemp("hostile"))


def test_cells_csv_round_trips_hostile_labels(hostile: Path) -> None:
    read = pd.read_csv(hostile / "tables/cells.csv", dtype=str, keep_default_na=False)
    assert read["decoder"].tolist() == HOSTILE
    assert read["reason"].tolist()[-1] == "x\n\n# y | `z` \x1b[31m<b>"
    assert read[["exact_match", "param_count", "seed"]].values.tolist()[5] == ["", "11.2", "0"]
    assert float(read["gmacs"][0]) == 0.0456


def test_report_page_shows_hostile_labels_literally(hostile: Path) -> None:
    page = (hostile / "report.md").read_text(encoding="utf-8")
    rows = table_rows(page)
    assert {row[0] for row in rows} == {HOSTILE[0].strip()}
    shown = [label.replace("\r", " ").replace("\n", " ").strip() for label in HOSTILE]
    assert [row[2] for row in rows] == shown
    assert "\x1b" not in page
    assert r"\$\\frac{1}{0}\$" in page  # unescaped, some viewers typeset it as mathematics
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    assert not any("html" in inner.type for token in tokens for inner in (token, *(token.children or ())))
    headings = [token.map[0] for token in tokens if token.type == "heading_open" and token.map]
    assert [page.splitlines()[line] for line in headings] == [
        "# demo",
        "## Data",
        "## Settings",
        "## Figures",
        "## How it was measured",
        "## Provenance",
    ]


def test_table_tex_escapes_every_cell_and_note(hostile: Path) -> None:
    text = (hostile / "tables/main.tex").read_text(encoding="utf-8")
    first = r"50\%\_a \& b \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    assert f"\n{first} & 50.0 & " in text
    assert "\n{[}t] {*} \\textasciitilde{}\\textasciitilde{}u" in text
    assert r"\$\textbackslash{}frac\{1\}\{0\}\$ \&lt;" in text
    assert r"x  \# y \textbar{} \textasciigrave{}z\textasciigrave{}  {[}31m\textless{}b\textgreater{}" in text
    assert text.startswith(f"% {COMMAND}\n")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    rows = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert len(rows) == len(HOSTILE)
    assert all(row.endswith(r" \\") for row in rows)


def test_markdown_table_imports_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    publish_mixed(tmp_path)
    code = (
        "import sys; from decoderbench.report import load_report, markdown_table;"
        "markdown_table(load_report(sys.argv[1]));"
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_numbers_that_differ_by_float_error_are_written_alike() -> None:
    below = 97.45 - 2e-14
    assert below < 97.45
    assert format_fixed(below, 1) == format_fixed(97.45, 1) == "97.5"
