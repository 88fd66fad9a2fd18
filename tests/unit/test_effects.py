"""Effects of stages and their interactions: contrasts over matched rows, against sums by hand and the estimator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.commands import leave_out_figures
from helpers.readings import make_row, publish_rows
from helpers.recording import COMMAND, HOSTILE, publish, table_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoderbench.analysis import load_report
from decoderbench.analysis.effects import find_effects, find_interactions
from decoderbench.report import write_report
from decoderbench.statistics import Estimate, Scores, family, holm

ROWS: dict[tuple[str, ...] | str, list[str | None]] = {
    ("A", "p", "x"): ["1000", "1100"],
    ("A", "p", "y"): ["1101", "1100"],
    ("A", "q", "x"): ["1110", "1010"],
    ("A", "q", "y"): ["1111", "0111"],
    ("B", "p", "x"): ["1000", "0000"],
    ("B", "p", "y"): [None, None],
    ("B", "q", "x"): ["0010", "0110"],
    ("B", "q", "y"): ["0111", "1111"],
}
"""Which of four images each seed of a row reads right, by encoder, bridge and decoder; one row failed."""


@pytest.fixture(scope="module", autouse=True)
def _without_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        yield


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `ROWS`; shared, so tests must not change them."""
    return publish_rows(tmp_path_factory.mktemp("grid"), ROWS).path


def flags(*rows: tuple[str, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return (rows, seeds, images)."""
    return np.array([[list(map(float, seed or "")) for seed in ROWS[row]] for row in rows])


def estimate_of(weights: dict[tuple[str, ...], float]) -> Estimate:
    """Return the estimate of a contrast of these rows, in the family of all rows that have a result."""
    done = [row for row, seeds in ROWS.items() if isinstance(row, tuple) and None not in seeds]
    (found,) = family(Scores(flags(*done), np.ones(4)), [[weights.get(row, 0) for row in done]])
    return found.estimate


MATCHED = {
    "encoder": {"A": [("A", "p", "x"), ("A", "q", "x"), ("A", "q", "y")]},
    "bridge": {"p": [("A", "p", "x"), ("A", "p", "y"), ("B", "p", "x")]},
    "decoder": {"x": [("A", "p", "x"), ("A", "q", "x"), ("B", "q", "x")]},
}
"""By stage: the rows of its first level for which the row with the second level has a result, found by hand."""
SECOND = {"encoder": (0, "B"), "bridge": (1, "q"), "decoder": (2, "y")}


@pytest.mark.parametrize("stage", list(MATCHED))
def test_effect_is_the_contrast_of_matched_rows(grid: Path, stage: str) -> None:
    effects = load_report(grid).effects
    own = effects[(effects["stage"] == stage) & (effects["metric"] == "exact_match")]
    first, second = own.to_dict("records")
    ((reference, rows),) = MATCHED[stage].items()
    place, other = SECOND[stage]
    counterparts = [tuple(other if axis == place else label for axis, label in enumerate(row)) for row in rows]
    before, after = flags(*rows), flags(*counterparts)
    assert (first["level"], second["level"], second["reference"]) == (reference, other, reference)
    assert [first["mean"], second["mean"]] == pytest.approx([before.mean(), after.mean()])
    expected = estimate_of(dict.fromkeys(rows, -1 / 3) | dict.fromkeys(counterparts, 1 / 3))
    assert second["difference"] == pytest.approx(after.mean() - before.mean())
    found = [second[name] for name in ("difference", "low", "high", "p")]
    assert found == pytest.approx([expected.value, max(expected.low, -1), min(expected.high, 1), expected.p])
    assert np.isnan([first[name] for name in ("difference", "low", "high", "p", "p_holm")]).all()
    assert own[["num_combinations", "num_planned", "num_seeds"]].values.tolist() == [[3, 4, 2]] * 2
    assert second["scope"] == "architecture"


def test_p_values_of_effects_are_adjusted_over_the_differences_of_a_metric(grid: Path) -> None:
    effects = load_report(grid).effects
    for _, own in effects.groupby("metric"):
        np.testing.assert_allclose(own["p_holm"], holm(own["p"]))
        assert own["p"].notna().sum() == 3


def test_interaction_is_the_difference_of_two_effects(grid: Path) -> None:
    interactions = load_report(grid).interactions
    own = interactions[interactions["metric"] == "exact_match"].set_index(["stage_a", "stage_b"])
    line = own.loc[("encoder", "decoder")]
    rows = [("B", "q", "y"), ("B", "q", "x"), ("A", "q", "y"), ("A", "q", "x")]
    expected = estimate_of(dict(zip(rows, (1, -1, -1, 1), strict=True)))
    assert [line[name] for name in ("difference", "low", "high", "p")] == pytest.approx(
        [expected.value, max(expected.low, -2), min(expected.high, 2), expected.p]
    )
    assert line[["level_a", "reference_a", "level_b", "reference_b"]].tolist() == ["B", "A", "y", "x"]
    assert line[["num_combinations", "num_planned", "num_seeds"]].tolist() == [1, 2, 2]
    np.testing.assert_allclose(own["p_holm"], holm(own["p"]))


def test_seeds_that_any_row_of_a_contrast_lacks_do_not_count(tmp_path: Path) -> None:
    rows = {"x": ["10", "11", None], "y": ["11", "00", "11"]}
    effects = load_report(publish_rows(tmp_path, rows).path).effects
    own = effects[effects["metric"] == "exact_match"]
    assert own["mean"].tolist() == pytest.approx([0.75, 0.5])
    assert own["num_seeds"].tolist() == [2, 2]


def test_combination_that_would_cost_more_results_than_it_adds_is_left_out(tmp_path: Path) -> None:
    rows: dict[tuple[str, ...] | str, list[str | None]] = {
        ("A", "x"): ["10", "11", "10"],
        ("A", "y"): ["11", "11", "10"],
        ("B", "x"): ["00", None, None],
        ("B", "y"): ["11", "11", "11"],
    }
    effects = load_report(publish_rows(tmp_path, rows).path).effects
    own = effects[(effects["metric"] == "exact_match") & (effects["stage"] == "decoder")]
    assert own[["num_combinations", "num_planned", "num_seeds"]].values.tolist() == [[1, 2, 3]] * 2
    assert own["mean"].tolist() == pytest.approx([4 / 6, 5 / 6])


def test_one_seed_makes_effects_of_these_trained_models(tmp_path: Path) -> None:
    effects = load_report(publish_rows(tmp_path, {"x": ["1010"], "y": ["1111"]}).path).effects
    own = effects[effects["metric"] == "exact_match"]
    assert own["scope"].tolist() == ["", "this trained model"]
    assert own["difference"].tolist()[1] == 0.5


@pytest.mark.parametrize("failed", [["10", None], [None, None]])
def test_effects_are_missing_if_a_level_has_no_result(tmp_path: Path, failed: list[str | None]) -> None:
    rows = {("A", "x"): failed, ("A", "y"): [None, None]}
    report = load_report(publish_rows(tmp_path, rows).path)  # type: ignore[arg-type]
    own = report.effects[report.effects["metric"] == "exact_match"]
    assert own[["mean", "difference"]].isna().all(axis=None)
    assert own["num_combinations"].tolist() == [0] * len(own)


def test_levels_tested_on_different_images_are_not_compared(tmp_path: Path) -> None:
    rows: dict[tuple[str, ...] | str, list[str | None]] = {("A", "x"): ["10"], ("A", "y"): ["11"]}
    others: dict[tuple[str, ...] | str, list[str | None]] = {("B", "x"): ["101"], ("B", "y"): ["110"]}
    effects = load_report(publish_rows(tmp_path, rows | others).path).effects
    own = effects[effects["metric"] == "exact_match"]
    assert own[["image_set", "stage", "level"]].values.tolist() == [
        *([0, "decoder", "x"], [0, "decoder", "y"]),
        *([1, "decoder", "x"], [1, "decoder", "y"]),
    ]


class Made:
    """Samples of made-up scores: one metric, one image set."""

    image_sets: list[int | None]

    def __init__(
        self, variants: list[tuple[str, ...]], numerator: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    ) -> None:
        self.variants, self.numerator = variants, numerator
        self.image_sets = [0 if there else None for there in ~np.isnan(numerator).all(axis=(1, 2))]
        self.metrics = ["made"]

    def rows_of(self, image_set: int) -> list[int]:
        return [row for row, number in enumerate(self.image_sets) if number == image_set]

    def cells(self, row: int) -> list[object]:
        return [make_row("x")]

    def scores(self, metric: str, rows: list[int]) -> Scores:
        return Scores(self.numerator[rows], np.ones(self.numerator.shape[2]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    effects=st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=3), min_size=3, max_size=3),
    joint=st.integers(-5, 5),
    seeds=st.lists(st.integers(-5, 5), min_size=1, max_size=3),
    data=st.data(),
)
def test_effects_and_interactions_recover_an_additive_model_despite_missing_cells(
    effects: list[list[int]], joint: int, seeds: list[int], data: st.DataObject
) -> None:
    """If a score is a + b + c + seed + image, the differences are exact; one joint term is the one interaction."""
    images = np.arange(4.0)
    variants = list(product(*(range(len(levels)) for levels in effects)))
    cells = [(row, seed) for row in range(len(variants)) for seed in range(len(seeds))]
    missing = data.draw(st.sets(st.sampled_from(cells)))
    numerator = np.full((len(variants), len(seeds), 4), np.nan)
    for row, seed in set(cells) - missing:
        levels = variants[row]
        score = sum(axis[level] for axis, level in zip(effects, levels, strict=True)) + seeds[seed]
        numerator[row, seed] = score + images + joint * (levels[0] == 1 and levels[1] == 1)
    made = Made([("none", *map(str, levels), "") for levels in variants], numerator)
    found = find_interactions(made)  # type: ignore[arg-type]
    for line in found[found["num_combinations"] > 0].to_dict("records"):
        crossed = (line["stage_a"], line["level_a"], line["stage_b"], line["level_b"]) == (
            "encoder",
            "1",
            "bridge",
            "1",
        )
        assert line["difference"] == pytest.approx(joint if crossed else 0, abs=1e-9)
    if joint == 0:
        stages = {"encoder": effects[0], "bridge": effects[1], "decoder": effects[2]}
        for line in find_effects(made).to_dict("records"):  # type: ignore[arg-type]
            own = stages[line["stage"]]
            if line["num_combinations"] and line["level"] != line["reference"]:
                assert line["difference"] == pytest.approx(own[int(line["level"])] - own[0], abs=1e-9)
            if not missing:
                assert line["num_combinations"] == line["num_planned"]
                assert line["num_seeds"] == len(seeds)


def tables_of(page: str) -> list[str]:
    section = page.partition("## Effects of the stages\n")[2].partition("\n## ")[0]
    return [part for part in section.split("\n\n") if part.startswith("|")]


def test_report_page_shows_effects_and_interactions(grid: Path) -> None:
    page = write_report(grid, command=COMMAND).read_text(encoding="utf-8")
    stages, interactions = tables_of(page)
    rows = table_rows(stages)
    assert [row[:4] for row in rows][:2] == [
        ["encoder", "A", "62.5", "reference"],
        ["encoder", "B", "45.8", rows[1][3]],
    ]
    assert rows[1][3].startswith("-16.7 [-")
    assert [row[-2:] for row in rows] == [["3 of 4", "2"]] * 6
    assert [row[:2] for row in table_rows(interactions)] == [
        ["B (not A)", "q (not p)"],
        ["B (not A)", "y (not x)"],
        ["q (not p)", "y (not x)"],
    ]
    read = pd.read_csv(grid / "tables/effects.csv", keep_default_na=False, na_values=[""])
    assert read["difference"].tolist()[1] == load_report(grid).effects["difference"][1]


def test_report_page_omits_effects_if_one_stage_varies_and_deletes_earlier_files(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("tables/effects.tex", "tables/interactions.csv", "factors.csv", "factors.tex", "table.tex"):
        (tmp_path / name).write_text("of an earlier report")
    page = write_report(publish_rows(tmp_path, {"x": ["10"], "y": ["11"]}).path, command=COMMAND)
    assert "Effects of the stages" not in page.read_text(encoding="utf-8")
    for name in ("tables/effects.tex", "tables/interactions.csv", "factors.csv", "factors.tex", "table.tex"):
        assert not (tmp_path / name).exists(), name


def test_report_page_without_records_has_no_effects(tmp_path: Path) -> None:
    cells = [make_row(encoder, "p", decoder) for encoder, decoder in product("AB", "xy")]
    page = write_report(publish(tmp_path, cells, []).path, command=COMMAND).read_text(encoding="utf-8")
    assert "Effects" not in page
    assert "pending: 4 of 4 cells" in page


def test_tables_of_effects_show_hostile_labels_literally(tmp_path: Path) -> None:
    labels = [*HOSTILE, "Encoder"]  # also the name of a column
    rows: dict[tuple[str, ...] | str, list[str | None]] = {
        (encoder, "p", decoder): ["10"] for encoder in labels for decoder in labels[:2]
    }
    page = write_report(publish_rows(tmp_path, rows).path, command=COMMAND).read_text(encoding="utf-8")
    shown = [label.replace("\r", " ").replace("\n", " ").strip() for label in labels]
    stages, _ = tables_of(page)
    assert [row[1] for row in table_rows(stages)] == [*shown, *shown[:2]]
    latex = (tmp_path / "tables/effects.tex").read_text(encoding="utf-8")
    assert latex.startswith(f"% {COMMAND}\n")
    assert r"\$\textbackslash{}frac\{1\}\{0\}\$" in latex
    read = pd.read_csv(tmp_path / "tables/effects.csv", dtype=str, keep_default_na=False)
    assert list(dict.fromkeys(read.loc[read["stage"] == "encoder", "level"])) == labels
