"""`train_limit`: how many images a cell trains and validates on, and which."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import make_cell
from hypothesis import given
from hypothesis import strategies as st

from decoderbench import ComponentConfig, Dataset, Experiment, prepare
from decoderbench.config.grid import DatasetChoice
from decoderbench.data.dataset import Sample, Split
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.data.train_limit import first_rows, limited_sizes
from decoderbench.errors import DataError, PluginError
from decoderbench.records.schema import Plan
from decoderbench.registry.registry import Components, Registry
from decoderbench.report.settings import notes_on_learning, settings_of
from decoderbench.training.local_context import LocalContext

SIZES: dict[Split, int] = {"train": 64, "val": 16, "test": 20}


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_limit_is_divided_like_the_data_and_each_larger_one_adds_to_one_split(
    train: int, val: int, data: st.DataObject
) -> None:
    sizes: dict[Split, int] = {"train": train, "val": val, "test": 7}
    limit = data.draw(st.integers(2, train + val))
    found = limited_sizes(sizes, limit)
    assert found["train"] + found["val"] == limit
    assert found["test"] == 7
    assert 1 <= found["train"] <= train
    assert 1 <= found["val"] <= val
    exact = limit * train / (train + val)
    assert found["train"] in {max(1, min(limit - 1, round(exact + shift))) for shift in (-1e-9, 1e-9)}
    if limit < train + val:
        larger = limited_sizes(sizes, limit + 1)
        assert (larger["train"] - found["train"], larger["val"] - found["val"]) in {(0, 1), (1, 0)}


def test_limit_of_all_images_is_no_limit_and_one_above_names_both_numbers() -> None:
    assert limited_sizes(SIZES, 80) == limited_sizes(SIZES, None) == SIZES
    with pytest.raises(DataError, match=r"train_limit is 81, and the data have 80 images .* \(64 train, 16 val\)"):
        limited_sizes(SIZES, 81)


def test_first_rows_are_nested_and_depend_on_seed_and_keys_only() -> None:
    keys = [f"image {number}" for number in range(200)]
    rows = np.arange(50, 150)
    chosen = [set(first_rows(rows, keys, number, seed=0).tolist()) for number in (5, 20, 99)]
    assert chosen[0] < chosen[1] < chosen[2] < set(rows.tolist())
    assert list(map(len, chosen)) == [5, 20, 99]
    assert set(first_rows(rows, keys, 20, seed=1).tolist()) != chosen[1]
    moved = first_rows(np.arange(100), keys[50:150], 20, seed=0) + 50  # the same samples in other rows
    assert set(moved.tolist()) == chosen[1]


@pytest.mark.parametrize("given", [1, 0, -5, True, 2.0, "100"])
def test_limit_below_two_or_no_whole_number_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"must be 2 or more|should be a valid integer"):
        DatasetChoice.model_validate({"use": "folder", "train_limit": given})


@pytest.fixture
def limited(tiny: dict[str, Any]) -> Experiment:
    del tiny["grid"]["decoder"]["attention"]
    tiny["grid"] |= {"seeds": [0, 1], "settings": {str(n): {"dataset": {"train_limit": n}} for n in (10, 30)}}
    return Experiment(**tiny)


def test_all_rows_of_a_seed_train_and_validate_on_the_same_images(
    limited: Experiment, tiny_registry: Registry, tmp_path: Path
) -> None:
    prepared = prepare(limited, registry=tiny_registry)
    (inputs,) = prepared.data.values()
    dataset = ResidentDataset(inputs.images, inputs.audit, torch.device("cpu"))
    seen: dict[tuple[int, str], set[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for cell in prepared.cells:
        context = LocalContext(cell, tiny_registry, dataset, tmp_path, {})
        train, val = (tuple(context.dataset.rows(split).tolist()) for split in ("train", "val"))
        drawn = np.concatenate([context.dataset.sampler(8, 0).batch(step) for step in range(20)])
        assert set(drawn.tolist()) == set(train)  # what `batches` draws from
        assert {dataset.store.splits[row] for row in train} == {"train"}
        assert {dataset.store.splits[row] for row in val} == {"val"}
        assert (len(train), len(val)) == {"10": (8, 2), "30": (24, 6)}[cell.setting]
        assert context.dataset.rows("test").tolist() == dataset.rows("test").tolist()
        seen.setdefault((cell.seed, cell.setting), set()).add((train, val))
    assert all(len(found) == 1 for found in seen.values())
    rows = {key: found.pop() for key, found in seen.items()}
    for split in (0, 1):
        assert set(rows[0, "10"][split]) < set(rows[0, "30"][split])
        assert rows[0, "30"][split] != rows[1, "30"][split]
    assert len(dataset.rows("train")) == 64  # the data themselves are as before


def test_evaluation_of_a_limited_cell_scores_its_validation_images_only(
    limited: Experiment, tiny_registry: Registry, tmp_path: Path
) -> None:
    prepared = prepare(limited, registry=tiny_registry)
    cell = next(cell for cell in prepared.cells if cell.setting == "10" and cell.decoder.label == "ctc")
    (inputs,) = prepared.data.values()
    dataset = ResidentDataset(inputs.images, inputs.audit, torch.device("cpu"))
    context = LocalContext(cell, tiny_registry, dataset, tmp_path, {})
    found = context.evaluate(context.recognizer())
    assert found.keys == [dataset.store.keys[row] for row in context.dataset.rows("val")]
    assert len(found.keys) == 2


def test_limit_counts_for_the_id_only_if_it_is_set() -> None:
    ids = [make_cell(**given).cell_id for given in ({}, {"train_limit": None}, {"train_limit": 5}, {"train_limit": 6})]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_limit_above_the_data_is_refused_with_its_place(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["settings"] = {"as is": {}, "many": {"dataset": {"train_limit": 81}}}
    with pytest.raises(DataError, match=r"grid\.settings\.many\.dataset\.train_limit: train_limit is 81, .* 80 images"):
        prepare(Experiment(**tiny), registry=tiny_registry)
    del tiny["grid"]["settings"]
    tiny["dataset"]["train_limit"] = 1000
    with pytest.raises(DataError, match=r"dataset\.train_limit: train_limit is 1,000, and the data have 80 images"):
        prepare(Experiment(**tiny), registry=tiny_registry, cache_dir=tmp_path, audit_images=True)
    assert not list(tmp_path.glob("images/*"))  # it is found before they are decoded


def test_report_states_the_images_of_limited_cells() -> None:
    cells = make_cell(setting="all"), make_cell(setting="few", train_limit=30)
    plan = Plan(experiment="demo", command="", cells=cells, sizes={cells[0].data_key: SIZES})
    assert plan.split_sizes_of(cells[1]) == {"train": 24, "val": 6, "test": 20}
    (epochs,) = (line for line in settings_of(plan) if line.startswith("epochs"))
    assert "2e+03 of 64 training images (setting all)" in epochs
    assert "5.33e+03 of 24 training images (setting few)" in epochs
    notes = " ".join(notes_on_learning(plan))
    assert "each of the 24 training images 2.7 times" in notes
    assert "val has 6 samples" in notes


def test_dataset_with_an_option_of_that_name_is_not_registered() -> None:
    class Own(Dataset):
        name = "own"

        class Config(ComponentConfig):
            train_limit: int = 3
            """Samples."""

        def samples(self) -> list[Sample]:
            return []

        def load_image(self, index: int) -> Any:
            raise NotImplementedError

        def fingerprint(self) -> str:
            return ""

    with pytest.raises(PluginError, match="option 'train_limit' of dataset 'own' is an option that every dataset has"):
        Components[Any]("dataset").add(Own, "plugin", "origin")
