"""Labels that are filtered, then normalized, from the experiment to the record and the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from decoderbench import Experiment, run
from decoderbench.config.overrides import merge
from decoderbench.planning.grid import plan_cells, read_data
from decoderbench.registry.registry import Registry


@pytest.fixture
def mixed(tiny: dict[str, Any]) -> dict[str, Any]:
    """Labels of both cases and a hyphen, and a B that the charset lacks."""
    tiny["grid"]["decoder"] = {label: tiny["grid"]["decoder"][label] for label in ("ctc", "attention")}
    labels = {"charset": "-Aa", "normalize": {"case": "lower", "alphanumeric_only": True}}
    allow = ["outside_charset", "empty_after_normalizing"]
    return merge(tiny, {"dataset": {"charset": "aA-B"}, "labels": labels, "allow": allow})


def labels_by_key(experiment: dict[str, Any], registry: Registry, base_dir: Path) -> dict[str, str]:
    """Return the labels of the test split as they stand in the data."""
    data = read_data(Experiment(**experiment), registry, base_dir=base_dir, cache_dir=None)
    return {sample.key: sample.label for sample in data.samples if sample.split == "test"}


def test_what_is_filtered_is_counted_and_what_is_left_is_normalized_on_both_sides(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    frame = run(Experiment(**mixed), registry=tiny_registry, results=tmp_path / "results", device="cpu")
    assert set(frame["status"]) == {"done"}
    assert set(frame["num_test"]) == {20}  # nothing shrinks the denominator
    in_data = labels_by_key(mixed, tiny_registry, tmp_path)
    assert {"B", "A", "-"} <= set("".join(in_data.values()))
    for row in frame.itertuples():
        folder = tmp_path / "results" / "cells" / str(row.cell_id)
        labels = json.loads((folder / "cell.json").read_text())["labels"]
        assert labels["charset"] == "a"
        assert labels["normalize"] == {"case": "lower", "alphanumeric_only": True, "unicode_form": "none"}
        predictions = pd.read_parquet(folder / "predictions.parquet").set_index("sample")
        assert set("".join(predictions["hypothesis"])) <= {"a"}
        for key, label in in_data.items():
            filtered = "B" in label
            assert predictions.loc[key, "reference"] == (label if filtered else label.lower().replace("-", ""))
            assert pd.isna(predictions.loc[key, "nll"]) == filtered
            assert predictions.loc[key, "edit_distance"] > 0 or not filtered
        assert (predictions["reference"] == predictions["hypothesis"]).mean() == row.exact_match

    data = read_data(Experiment(**mixed), tiny_registry, base_dir=tmp_path, cache_dir=None)
    samples = data.samples
    report = (tmp_path / "results" / "report.md").read_text()
    filtered = sum("B" in sample.label for sample in samples)
    emptied = sum(set(sample.label) == {"-"} for sample in samples)
    changed = sum("B" not in sample.label and set(sample.label) != {"a"} for sample in samples)
    assert f"outside_charset: allowed, in {filtered} of 100 samples" in report
    assert f"empty_after_normalizing: allowed, in {emptied} of 100 samples" in report
    assert f"normalize  case lower, alphanumeric only: {changed} of 100 labels changed" in report


def test_upper_case_only_data_are_trained_on(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    upper = merge(tiny, {"dataset": {"charset": "AB"}, "labels": {"charset": "AB"}})
    upper["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    in_data = labels_by_key(upper, tiny_registry, tmp_path)
    references = {}
    for case in ("keep", "lower"):
        experiment = Experiment(**merge(upper, {"labels": {"normalize": {"case": case}}}))
        lines: list[str] = []
        results = tmp_path / case
        frame = run(experiment, registry=tiny_registry, results=results, device="cpu", echo=lines.append)
        assert frame.loc[0, "num_test"] == 20
        assert "samples  64 train, 16 val, 20 test" in lines
        assert ("normalize" in (results / "report.md").read_text()) == (case == "lower")
        predictions = pd.read_parquet(results / "cells" / frame.loc[0, "cell_id"] / "predictions.parquet")
        references[case] = dict(zip(predictions["sample"], predictions["reference"], strict=True))
    assert references["keep"] == in_data
    assert references["lower"] == {key: label.lower() for key, label in in_data.items()}


def test_images_are_decoded_once_whatever_is_made_of_their_labels(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    for case in ("lower", "upper"):
        experiment = Experiment(**merge(mixed, {"labels": {"normalize": {"case": case}}}))
        run(experiment, registry=tiny_registry, results=tmp_path / case, device="cpu", cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "images").glob("*/meta.json"))) == 1


@pytest.mark.parametrize(
    "change", [{"case": "upper"}, {"case": "keep"}, {"alphanumeric_only": False}, {"unicode_form": "NFC"}]
)
def test_another_normalizer_names_another_cell(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path, change: dict[str, Any]
) -> None:
    def ids(data: dict[str, Any]) -> set[str]:
        experiment = Experiment(**data)
        found = read_data(experiment, tiny_registry, base_dir=tmp_path, cache_dir=None)
        return {cell.cell_id for cell in plan_cells(experiment, tiny_registry, found)}

    assert ids(mixed).isdisjoint(ids(merge(mixed, {"labels": {"normalize": change}})))


def test_another_filter_names_another_cell_though_the_charset_stays(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    def planned(charset: str) -> list[Any]:
        experiment = Experiment(**merge(mixed, {"labels": {"charset": charset}}))
        data = read_data(experiment, tiny_registry, base_dir=tmp_path, cache_dir=None)
        return list(plan_cells(experiment, tiny_registry, data))

    both, lower = planned("Aa-"), planned("a-")
    assert [cell.labels.charset for cell in both] == [cell.labels.charset for cell in lower] == ["a", "a"]
    assert {cell.cell_id for cell in both}.isdisjoint(cell.cell_id for cell in lower)
