"""The 24 combinations of the paper, as named in the experiment files, trained for two steps on few images."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.experiments import EXPERIMENTS, PlanCells

from decoderbench import Experiment, run
from decoderbench.config.experiment import load_experiment
from decoderbench.config.merging import merge
from decoderbench.planning.selection import select_cells
from decoderbench.registry.registry import Registry

NAMED = {"CRNN", "RARE", "R2AM", "STAR-Net", "GRCNN", "Rosetta", "TRBA"}


def few_images(name: str, **changes: Any) -> Experiment:
    data = load_experiment(EXPERIMENTS / f"{name}.toml").as_given()
    small = {"dataset": {"train": 24, "val": 6, "test": 10}, "evaluation": {"batch_size": 10}}
    return Experiment(**merge(merge(data, small), changes))


@pytest.mark.parametrize("name", ["four_stage", "four_stage_cpu"])
def test_both_experiments_plan_the_same_24_combinations(name: str, plan_cells: PlanCells) -> None:
    cells = plan_cells(name)
    assert len({cell.variant for cell in cells}) == 24
    assert all(cell.infeasible is None for cell in cells)
    assert {(cell.name, *(part.use for part in cell.components)) for cell in cells if cell.name} == {
        ("CRNN", "none", "crnn_vgg", "bilstm", "ctc"),
        ("RARE", "tps", "crnn_vgg", "bilstm", "attention_lstm"),
        ("R2AM", "none", "grcnn", "mean_height", "attention_lstm"),
        ("STAR-Net", "tps", "resnet_fan", "bilstm", "ctc"),
        ("GRCNN", "none", "grcnn", "bilstm", "ctc"),
        ("Rosetta", "none", "resnet_fan", "mean_height", "ctc"),
        ("TRBA", "tps", "resnet_fan", "bilstm", "attention_lstm"),
    }


def test_four_stage_has_the_published_numbers_of_parameters(plan_cells: PlanCells) -> None:
    params = {cell.name: cell.num_parameters for cell in plan_cells("four_stage")}
    assert params["CRNN"] == 8_451_621
    assert params["TRBA"] == 49_555_182
    assert params["Rosetta"] == 44_282_885


def test_select_cells_accepts_names_of_combinations(plan_cells: PlanCells) -> None:
    chosen = select_cells(plan_cells("four_stage_cpu"), "star-net or crnn")
    assert [cell.variant_title for cell in chosen] == ["VGG / BiLSTM / CTC", "TPS / ResNet / BiLSTM / CTC"]


@pytest.mark.slow
def test_all_24_combinations_are_trained_and_reported(registry: Registry, tmp_path: Path) -> None:
    experiment = few_images("four_stage_cpu", training={"steps": 2, "batch_size": 8, "warmup_steps": 1})
    frame = run(experiment, registry=registry, results=tmp_path, device="cpu", base_dir=EXPERIMENTS)
    assert set(frame["status"]) == {"done"}
    assert len(frame) == 24
    assert (frame[["latency_ms", "param_count", "gmacs", "infer_samples_per_sec"]] > 0).all(axis=None)
    page = (tmp_path / "report.md").read_text()
    assert {name for name in NAMED if re.search(rf"^\| {name} +\|", page, re.MULTILINE)} == NAMED
    assert "## Effects of the stages" in page
