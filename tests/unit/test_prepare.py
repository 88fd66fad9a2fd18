"""`prepare`: what is known before training, and that nothing is read twice."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from decoderbench import Experiment, Registry, prepare
from decoderbench.errors import ConfigError, InfeasibleError
from decoderbench.planning.compare_preset import fit_preset
from decoderbench_plugins.datasets.folder import dataset as dataset_module
from decoderbench_plugins.datasets.folder import sources


def test_compare_reads_the_labels_once(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        Image.new("L", (64, 32), number).save(tmp_path / f"{number}ab.png")
    readings = []
    find_labels = sources.find_labels
    monkeypatch.setattr(dataset_module, "find_labels", lambda *given: readings.append(given) or find_labels(*given))
    data, dataset, _ = fit_preset(tmp_path, registry)
    prepared = prepare(Experiment(**data), registry=registry, dataset=dataset)
    assert len(prepared.inputs.samples) == 30
    assert len(readings) == 1


def test_dataset_with_other_options_is_not_used(tiny_registry: Registry, tiny: dict[str, Any]) -> None:
    registered, config = tiny_registry["dataset"].configure(Experiment(**tiny).dataset)
    other = registered.component(config.model_copy(update={"train": 32}), Path())
    prepared = prepare(Experiment(**tiny), registry=tiny_registry, dataset=other)
    assert len(prepared.inputs.samples) == 100


def test_plan_of_images_of_one_size_decodes_none(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    prepared = prepare(Experiment(**tiny), registry=tiny_registry, cache_dir=tmp_path)
    assert not list(tmp_path.glob("images/*"))
    assert prepared.inputs.audit_so_far is prepared.inputs.label_audit
    assert len(prepared.inputs.images) == 100
    assert list(tmp_path.glob("images/*"))
    assert prepared.inputs.audit_so_far is prepared.inputs.audit


def test_mistakes_in_component_options_are_all_listed(tiny: dict[str, Any], tiny_registry: Registry) -> None:
    tiny["grid"]["decoder"] = {"a": {"use": "lstm_cel"}, "b": {"use": "lstm_ctc", "hiden_dim": 3}}
    with pytest.raises(ConfigError) as caught:
        prepare(Experiment(**tiny), registry=tiny_registry)
    assert len(caught.value.mistakes) == 2


def test_grid_without_a_feasible_cell_is_refused_with_the_reasons(
    tiny: dict[str, Any], tiny_registry: Registry
) -> None:
    tiny["grid"]["encoder"] = {"coarse": {"use": "tiny_cnn", "stride": 16}}
    tiny["grid"]["decoder"] = {"ctc": {"use": "lstm_ctc"}}
    prepared = prepare(Experiment(**tiny), registry=tiny_registry)
    with pytest.raises(InfeasibleError, match="coarse / columns / ctc: CTC needs T >= 3"):
        prepared.refuse_if_infeasible()
