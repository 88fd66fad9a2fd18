"""Labels checked against the charset, then normalized, from the experiment to the record and the report."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.training import train

from decoderbench import Experiment
from decoderbench.config.merging import merge
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry


@pytest.fixture
def mixed(tiny: dict[str, Any]) -> dict[str, Any]:
    """Labels with both cases and a hyphen, and a B that is not in the charset."""
    tiny["grid"]["decoder"] = {label: tiny["grid"]["decoder"][label] for label in ("ctc", "attention")}
    labels = {"charset": "-Aa", "normalize": {"case": "lower", "alphanumeric_only": True}}
    allow = ["outside_charset", "empty_after_normalizing"]
    return merge(tiny, {"dataset": {"charset": "aA-B"}, "labels": labels, "allow": allow})


def labels_by_key(experiment: dict[str, Any], registry: Registry, base_dir: Path) -> dict[str, str]:
    """Return the labels of the test split as they are in the data, by key."""
    samples = prepare(Experiment(**experiment), registry=registry, base_dir=base_dir).inputs.samples
    return {sample.key: sample.label for sample in samples if sample.split == "test"}


def test_rejected_labels_are_counted_and_accepted_ones_normalized_on_both_sides(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    frame = train(mixed, tiny_registry, tmp_path / "results", report=True)
    assert set(frame["status"]) == {"done"}
    assert set(frame["num_test"]) == {20}  # rejected labels stay in the denominator
    in_data = labels_by_key(mixed, tiny_registry, tmp_path)
    assert {"B", "A", "-"} <= set("".join(in_data.values()))
    for row in frame.itertuples():
        folder = tmp_path / "results" / "cells" / str(row.cell_id)
        labels = json.loads((folder / "cell.json").read_text())["labels"]
        assert labels["charset"] == "a"
        normalize = {"strip": False, "case": "lower", "alphanumeric_only": True, "unicode_form": "none"}
        assert labels["normalize"] == normalize
        predictions = pd.read_parquet(folder / "predictions.parquet").set_index("sample")
        assert set("".join(predictions["hypothesis"])) <= {"a"}
        for key, label in in_data.items():
            filtered = "B" in label
            assert predictions.loc[key, "reference"] == (label if filtered else label.lower().replace("-", ""))
            assert pd.isna(predictions.loc[key, "nll"]) == filtered
            assert predictions.loc[key, "edit_distance"] > 0 or not filtered
        assert (predictions["reference"] == predictions["hypothesis"]).mean() == row.exact_match

    samples = prepare(Experiment(**mixed), registry=tiny_registry, base_dir=tmp_path).inputs.samples
    report = (tmp_path / "results" / "report.md").read_text()
    filtered = sum("B" in sample.label for sample in samples)
    emptied = sum(set(sample.label) == {"-"} for sample in samples)
    changed = sum("B" not in sample.label and set(sample.label) != {"a"} for sample in samples)
    assert f"outside_charset: allowed, in {filtered} of 100 samples" in report
    assert f"empty_after_normalizing: allowed, in {emptied} of 100 samples" in report
    assert f"normalize  case lower, alphanumeric only: {changed} of 100 labels changed" in report


def test_upper_case_labels_are_trained_on(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    upper = merge(tiny, {"dataset": {"charset": "AB"}, "labels": {"charset": "AB"}})
    upper["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    in_data = labels_by_key(upper, tiny_registry, tmp_path)
    references = {}
    for case in ("keep", "lower"):
        results = tmp_path / case
        frame = train(merge(upper, {"labels": {"normalize": {"case": case}}}), tiny_registry, results, report=True)
        report = (results / "report.md").read_text()
        assert frame.loc[0, "num_test"] == 20
        assert "samples  64 train, 16 val, 20 test" in report
        assert ("normalize  case lower" in report) == (case == "lower")
        predictions = pd.read_parquet(results / "cells" / frame.loc[0, "cell_id"] / "predictions.parquet")
        references[case] = dict(zip(predictions["sample"], predictions["reference"], strict=True))
    assert references["keep"] == in_data
    assert references["lower"] == {key: label.lower() for key, label in in_data.items()}


def test_images_are_decoded_once_for_all_normalizers(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECODERBENCH_CACHE", str(tmp_path / "cache"))
    for case in ("lower", "upper"):
        train(merge(mixed, {"labels": {"normalize": {"case": case}}}), tiny_registry, tmp_path / case)
    assert len(list((tmp_path / "cache" / "images").glob("*/meta.json"))) == 1


@pytest.mark.parametrize(
    "change", [{"case": "upper"}, {"case": "keep"}, {"alphanumeric_only": False}, {"unicode_form": "NFC"}]
)
def test_cell_id_depends_on_the_normalizer(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path, change: dict[str, Any]
) -> None:
    def ids(data: dict[str, Any]) -> set[str]:
        experiment = Experiment(**data)
        return {cell.cell_id for cell in prepare(experiment, registry=tiny_registry, base_dir=tmp_path).cells}

    assert ids(mixed).isdisjoint(ids(merge(mixed, {"labels": {"normalize": change}})))


def test_cell_id_depends_on_the_charset_before_normalizing(
    mixed: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    def planned(charset: str) -> list[Any]:
        experiment = Experiment(**merge(mixed, {"labels": {"charset": charset}}))
        return list(prepare(experiment, registry=tiny_registry, base_dir=tmp_path).cells)

    both, lower = planned("Aa-"), planned("a-")
    assert [cell.labels.charset for cell in both] == [cell.labels.charset for cell in lower] == ["a", "a"]
    assert {cell.cell_id for cell in both}.isdisjoint(cell.cell_id for cell in lower)
