"""Factor effects: the effect of each stage of a grid, on matched cells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import stdev
from typing import Any

import pandas as pd
import pytest
from helpers.commands import leave_out_figures
from helpers.recording import COMMAND, HOSTILE, header, make_cell, make_record, publish, table_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from decoderbench.config.cell import ResolvedComponent
from decoderbench.report import factor_effects, load_frame, write_report

AXES = ["rectifier", "encoder", "bridge", "decoder"]
FILES = ["factors.csv", "factors.tex"]
SCORES = {
    ("A", "p", "x"): [10, 20],
    ("A", "p", "y"): [30, 40],
    ("A", "q", "x"): [50, 50],
    ("A", "q", "y"): [None, 60],
    ("B", "p", "x"): [20, 40],
    ("B", "p", "y"): [None, None],
    ("B", "q", "x"): [30, 10, 99],
    ("B", "q", "y"): [40, 40],
}
"""Exact match in percent of each seed, by encoder, bridge and decoder. None means failed; one row has an extra seed."""

# By stage: the values of each matched combination at its two levels, computed by hand, and the cells per level.
MATCHED = {
    "encoder": ([(15, 30), (50, 20), (60, 40)], 5),  # with p x, q x, and the second seed of q y
    "bridge": ([(15, 50), (40, 60), (30, 20)], 5),  # with A x, the second seed of A y, B x
    "decoder": ([(15, 35), (50, 60), (20, 40)], 5),  # with A p, the second seed of A q, B q
}


@pytest.fixture(scope="module", autouse=True)
def _without_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        yield


def frame_of(scores: dict[tuple[str, ...], list[int | None]]) -> pd.DataFrame:
    """Return a frame of these scores, with a CER of (1 - exact match) / 2."""
    rows: list[dict[str, Any]] = []
    for variant, seeds in scores.items():
        for seed, score in enumerate(seeds):
            exact = float("nan") if score is None else score / 100
            labels = dict(zip(AXES, ("none", *variant)[-4:], strict=True))
            status = "failed" if score is None else "done"
            rows.append(labels | {"seed": seed, "status": status, "exact_match": exact, "cer": (1 - exact) / 2})
    return pd.DataFrame(rows)


def publish_scores(path: Path, scores: dict[tuple[str, ...], list[int | None]], rectifier: str = "none") -> Path:
    component = ResolvedComponent(label=rectifier, use=rectifier, options={}, decisive={}, source="s")
    cells, records = [], []
    for (encoder, bridge, decoder), seeds in scores.items():
        named = ResolvedComponent(
            label=bridge, use="x", options={"label": bridge}, decisive={"label": bridge}, source="s"
        )
        for seed, score in enumerate(seeds):
            cells.append(make_cell(decoder, seed, encoder=encoder, bridge=named, rectifier=component))
            if score is None:
                records.append(make_record(cells[-1], status="failed", reason="out of luck"))
            else:
                records.append(make_record(cells[-1], score / 100))
    return publish(path, cells, records).path


def test_factor_effects_use_matched_combinations_and_seeds() -> None:
    effects = factor_effects(frame_of(SCORES))
    assert effects["stage"].unique().tolist() == list(MATCHED)
    for stage, (pairs, num_cells) in MATCHED.items():
        own = effects[effects["stage"] == stage]
        first, second = own[own["metric"] == "exact_match"].to_dict("records")
        means = [sum(values) / 300 for values in zip(*pairs, strict=True)]
        assert [first["mean"], second["mean"]] == pytest.approx(means)
        assert [first["difference"], first["difference_std"]] == [0, 0]
        differences = [(after - before) / 100 for before, after in pairs]
        assert second["difference"] == pytest.approx(sum(differences) / 3)
        assert second["difference_std"] == pytest.approx(stdev(differences))
        cer = own[own["metric"] == "cer"].to_dict("records")[1]
        assert cer["difference"] == pytest.approx(-second["difference"] / 2)
        assert cer["difference_std"] == pytest.approx(second["difference_std"] / 2)
        assert own[["num_combinations", "num_planned", "num_cells"]].values.tolist() == [[3, 4, num_cells]] * 4


def test_factor_effects_reference_is_first_level_of_grid() -> None:
    effects = factor_effects(frame_of({("z", "p", "x"): [1], ("a", "p", "x"): [2]}))
    assert effects[["level", "reference"]].values.tolist() == [["z", "z"], ["z", "z"], ["a", "z"], ["a", "z"]]


def test_factor_effects_are_missing_if_a_level_is_never_done() -> None:
    scores = {("A", "p", "x"): [10], ("A", "p", "y"): [20], ("A", "p", "z"): [None]}
    effects = factor_effects(frame_of(scores))
    assert effects["level"].unique().tolist() == ["x", "y", "z"]
    assert effects[["mean", "difference", "difference_std"]].isna().all(axis=None)
    assert effects["num_combinations"].tolist() == [0] * 6


def test_factor_effects_are_missing_if_nothing_is_done() -> None:
    effects = factor_effects(frame_of({variant: [None] for variant in SCORES}))
    assert effects["num_cells"].tolist() == [0] * 12
    assert effects["mean"].isna().all()


@settings(max_examples=25)
@given(
    effects=st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=3), min_size=4, max_size=4),
    seeds=st.lists(st.integers(-5, 5), min_size=1, max_size=3),
    data=st.data(),
)
def test_factor_effects_recover_additive_effects_despite_missing_cells(
    effects: list[list[int]], seeds: list[int], data: st.DataObject
) -> None:
    """If exact match is a + b + c + d + seed, the differences of a, b, c and d are exact and have no spread."""
    cells = list(product(*(range(len(levels)) for levels in effects), range(len(seeds))))
    missing = data.draw(st.sets(st.sampled_from(cells)))
    rows = []
    for *levels, seed in cells:
        score = sum(axis[level] for axis, level in zip(effects, levels, strict=True)) + seeds[seed]
        labels = dict(zip(AXES, map(str, levels), strict=True))
        done = (*levels, seed) not in missing
        rows.append(
            labels | {"seed": seed, "status": "done" if done else "failed", "exact_match": score, "cer": -score}
        )
    found = factor_effects(pd.DataFrame(rows))
    assert len(found) == 2 * sum(len(levels) for levels in effects if len(levels) > 1)
    for row in found.to_dict("records"):
        own = effects[AXES.index(row["stage"])]
        expected = (own[int(row["level"])] - own[0]) * (1 if row["metric"] == "exact_match" else -1)
        if row["num_combinations"]:
            assert row["difference"] == pytest.approx(expected)
        if row["num_combinations"] > 1:
            assert row["difference_std"] == pytest.approx(0, abs=1e-9)
        if not missing:
            assert row["num_combinations"] == row["num_planned"]
            assert row["num_cells"] == row["num_planned"] * len(seeds)


def tables_of(page: str) -> list[str]:
    section = page.partition("## Factors\n")[2].partition("\n## ")[0]
    return [part for part in section.split("\n\n") if part.startswith("|")]


def test_report_page_shows_stage_effects_and_decoders_by_stage(tmp_path: Path) -> None:
    page = write_report(publish_scores(tmp_path, SCORES), command=COMMAND).read_text(encoding="utf-8")
    assert page.index("## Factors") < page.index("## How it was measured")
    stages, decoders = tables_of(page)
    assert table_rows(stages) == [
        ["encoder", "A", "41.7", "reference", "58.3", "reference", "3 of 4", "5"],
        ["encoder", "B", "30.0", "-11.7 ± 23.6", "70.0", "+11.7 ± 23.6", "3 of 4", "5"],
        ["bridge", "p", "28.3", "reference", "71.7", "reference", "3 of 4", "5"],
        ["bridge", "q", "43.3", "+15.0 ± 22.9", "56.7", "-15.0 ± 22.9", "3 of 4", "5"],
        ["decoder", "x", "28.3", "reference", "71.7", "reference", "3 of 4", "5"],
        ["decoder", "y", "45.0", "+16.7 ± 5.8", "55.0", "-16.7 ± 5.8", "3 of 4", "5"],
    ]
    assert header(decoders) == ["Encoder", "Bridge", "x", "y"]
    assert table_rows(decoders) == [
        ["A", "p", "15.0", "35.0 (+20.0)"],
        ["A", "q", "50.0", "60.0 (+10.0)"],
        ["B", "p", "30.0", "n/a"],
        ["B", "q", "46.3", "40.0 (+20.0)"],
    ]
    assert "not a confidence interval" in page
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "factors.csv"), factor_effects(load_frame(tmp_path)))


def test_report_page_shows_rectifier_that_is_not_none(tmp_path: Path) -> None:
    page = write_report(publish_scores(tmp_path, SCORES, "tps"), command=COMMAND).read_text(encoding="utf-8")
    stages, decoders = tables_of(page)
    assert header(decoders)[:3] == ["Rectifier", "Encoder", "Bridge"]
    assert table_rows(decoders)[0][:3] == ["tps", "A", "p"]
    assert not any("rectifier" in row for row in table_rows(stages))


def test_report_page_omits_decoder_table_for_one_decoder(tmp_path: Path) -> None:
    scores = {variant: seeds for variant, seeds in SCORES.items() if variant[2] == "x"}
    page = write_report(publish_scores(tmp_path, scores), command=COMMAND).read_text(encoding="utf-8")
    (stages,) = tables_of(page)
    assert {row[0] for row in table_rows(stages)} == {"encoder", "bridge"}


def test_write_report_deletes_factors_if_one_stage_varies(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("of an earlier report")
    scores = {("A", "p", "x"): [10], ("A", "p", "y"): [20]}
    page = write_report(publish_scores(tmp_path, scores), command=COMMAND).read_text(encoding="utf-8")
    assert "Factors" not in page
    assert not any((tmp_path / name).exists() for name in FILES)


def test_report_page_shows_missing_factors_without_records(tmp_path: Path) -> None:
    cells = [make_cell(decoder, encoder=encoder) for encoder, decoder in product("AB", "xy")]
    page = write_report(publish(tmp_path, cells, []).path, command=COMMAND).read_text(encoding="utf-8")
    stages, decoders = tables_of(page)
    assert [row[2:] for row in table_rows(stages)[::2]] == [["n/a", "reference", "n/a", "reference", "0 of 2", "0"]] * 2
    assert table_rows(decoders) == [["A", "columns", "n/a", "n/a"], ["B", "columns", "n/a", "n/a"]]


def test_factor_tables_show_hostile_labels_literally(tmp_path: Path) -> None:
    labels = [*HOSTILE, "Encoder"]  # also the name of a column
    scores = {(encoder, "p", decoder): [50] for encoder in labels for decoder in labels}
    page = write_report(publish_scores(tmp_path, scores), command=COMMAND).read_text(encoding="utf-8")
    shown = [label.replace("\r", " ").replace("\n", " ").strip() for label in labels]
    stages, decoders = tables_of(page)
    assert [row[1] for row in table_rows(stages)] == shown * 2
    assert [row[0] for row in table_rows(decoders)] == shown
    assert all(len(row) == 2 + len(labels) for row in table_rows(decoders))
    latex = (tmp_path / "factors.tex").read_text(encoding="utf-8")
    assert latex.startswith(f"% {COMMAND}\n")
    assert latex.count(r"\begin{tabular}") == 2
    assert r"\$\textbackslash{}frac\{1\}\{0\}\$" in latex
    read = pd.read_csv(tmp_path / "factors.csv", dtype=str, keep_default_na=False)
    assert read["level"].tolist() == [label for label in labels for _ in range(2)] * 2
