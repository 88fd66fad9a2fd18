"""`dataset.folds`: which images each fold tests, validates and trains on, and what a plan and an audit make of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import make_cell
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from decoderbench import ComponentConfig, Dataset, Experiment, prepare
from decoderbench.config.grid import DatasetChoice
from decoderbench.data.audit import audit
from decoderbench.data.dataset import SPLITS, Sample
from decoderbench.data.folds import divide_into_folds, folds_text, share_of_val
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.errors import DataError, PluginError
from decoderbench.planning.data_report import audit_experiment
from decoderbench.planning.grid import plan_table
from decoderbench.planning.selection import select_cells
from decoderbench.records.schema import Plan, sizes_key
from decoderbench.registry.registry import Components, Registry
from decoderbench.report.settings import notes_on_learning, settings_of
from decoderbench.training.local_context import LocalContext


def images(count: int, groups: list[str] | None = None) -> list[Sample]:
    return [Sample(f"{row}.png", "a", "train", groups[row] if groups else "") for row in range(count)]


def folds_testing(folds: tuple[tuple[str, ...], ...]) -> list[list[int]]:
    """Return the folds that test each row."""
    return [[number for number, of in enumerate(folds) if of[row] == "test"] for row in range(len(folds[0]))]


@settings(max_examples=25)
@given(st.integers(4, 60), st.data())
def test_each_image_is_tested_once_and_folds_differ_by_one_image(count: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(2, count))
    share = data.draw(st.floats(0.01, 0.99))
    folds = divide_into_folds(images(count), number, val_share=share, seed=data.draw(st.integers(0, 3)))
    assert len(folds) == number
    assert all(len(of) == 1 for of in folds_testing(folds))
    for splits in folds:
        counts = Counter(splits)
        assert counts["test"] in (count // number, -(-count // number))
        rest = count - counts["test"]
        assert abs(counts["val"] - min(max(share * rest, 1), rest - 1)) <= 0.5 + 1e-9
        assert counts["train"] >= 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=4, max_size=15), st.integers(3, 4))
def test_groups_are_never_divided_and_folds_are_as_even_as_scikit_learns(sizes: list[int], number: int) -> None:
    names = [f"page {group}" for group, size in enumerate(sizes) for _ in range(size)]
    folds = divide_into_folds(images(len(names), names), number, val_share=0.2, seed=0)
    for splits in folds:
        parts: dict[str, set[str]] = {}
        for name, split in zip(names, splits, strict=True):
            parts.setdefault(name, set()).add(split)
        assert all(len(of) == 1 for of in parts.values())
        assert set().union(*parts.values()) == set(SPLITS)
    assert all(len(of) == 1 for of in folds_testing(folds))
    loads = [0] * number
    for size in sorted(sizes, reverse=True):  # GroupKFold: the largest group to the lightest fold
        loads[loads.index(min(loads))] += size
    assert sorted(Counter(of)["test"] for of in folds) == sorted(loads)


@settings(max_examples=15)
@given(st.permutations(range(17)))
def test_order_of_samples_does_not_matter(order: list[int]) -> None:
    samples = images(17, [f"page {row // 2}" if row < 6 else "" for row in range(17)])
    folds = divide_into_folds(samples, 4, val_share=0.3, seed=1)
    moved = divide_into_folds([samples[row] for row in order], 4, val_share=0.3, seed=1)
    assert moved == tuple(tuple(of[row] for row in order) for of in folds)


def test_another_seed_gives_other_folds_and_validation_images_differ_between_folds() -> None:
    one, other = (divide_into_folds(images(40), 4, val_share=0.25, seed=seed) for seed in (0, 1))
    assert folds_testing(one) != folds_testing(other)
    in_val = [{row for row, split in enumerate(of) if split == "val"} for of in one]
    assert len({frozenset(of) for of in in_val}) == 4


def test_sizes_are_those_of_the_fractions() -> None:
    folds = divide_into_folds(images(1070), 5, val_share=share_of_val(0.714, 0.086), seed=0)
    assert [Counter(of) for of in folds] == [{"train": 764, "val": 92, "test": 214}] * 5


@pytest.mark.parametrize(
    ("number", "groups", "message"),
    [
        (7, None, "folds is 7, and the data have 6 images; lower it"),
        (4, ["a", "a", "b", "b", "c", "c"], "folds is 4, and the data have 3 groups; lower it"),
        (2, ["a", "a", "a", "b", "b", "b"], "folds is 2, and fold 0 leaves 1 of 2 groups to train and validate on"),
    ],
)
def test_more_folds_than_groups_or_too_few_groups_are_refused(
    number: int, groups: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        divide_into_folds(images(6, groups), number, val_share=0.2, seed=0)


@pytest.mark.parametrize(("train", "val", "empty"), [(0.8, 0.0, "val"), (0, 5, "train")])
def test_split_without_train_or_val_gives_no_ratio(train: float, val: float, empty: str) -> None:
    with pytest.raises(DataError, match=f"it has no {empty}"):
        share_of_val(train, val)


def test_numbers_of_folds_are_ranges() -> None:
    assert [folds_text(of) for of in ([2], [1, 0], [0, 1, 2, 4], [4, 3, 2, 1, 0])] == [
        "fold 2",
        "folds 0, 1",
        "folds 0 to 2, 4",
        "folds 0 to 4",
    ]


@pytest.mark.parametrize("given", [1, 0, -5, True, 2.0, "5"])
def test_folds_below_two_or_no_whole_number_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"must be 2 or more|should be a valid integer"):
        DatasetChoice.model_validate({"use": "folder", "folds": given})


def test_folds_count_as_cells_of_a_grid(tiny: dict[str, Any]) -> None:
    tiny["grid"]["seeds"] = [0, 1]
    tiny["dataset"]["folds"] = 5001
    with pytest.raises(ValueError, match=r"dataset\.folds\s+makes \d\d,\d+ cells, and there may be 10,000"):
        Experiment(**tiny)


def test_fold_counts_for_the_id_only_if_it_is_set() -> None:
    folded = [make_cell(fold=fold, folds=folds) for fold, folds in ((0, 5), (1, 5), (0, 4))]
    assert make_cell(fold=None, folds=None).cell_id == make_cell().cell_id
    assert len({cell.cell_id for cell in (make_cell(), *folded)}) == 4
    assert folded[1].cell_id.startswith("x-x-x-seed-0-fold-1-")
    assert folded[1].title == "ResNet / columns / CTC / seed 0 / fold 1 of 5"


def test_models_of_folds_start_from_other_weights_than_each_other_and_alike_in_all_rows() -> None:
    seeds = [make_cell(seed=seed, fold=fold, folds=3).training_seed for seed in (0, 1) for fold in range(3)]
    assert len({*seeds}) == 6
    assert make_cell("LSTM", seed=1, fold=2, folds=3).training_seed == seeds[-1]
    assert make_cell(seed=7).training_seed == 7


@pytest.fixture
def folded(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["dataset"]["folds"] = 3
    tiny["grid"]["seeds"] = [0, 1]
    return tiny


def test_plan_has_a_cell_per_seed_and_fold_of_one_data(folded: dict[str, Any], tiny_registry: Registry) -> None:
    prepared = prepare(Experiment(**folded), registry=tiny_registry)
    rows = {cell.variant for cell in prepared.cells}
    assert sorted(cell.place[1:] for cell in prepared.cells) == sorted(
        (seed, fold) for seed in (0, 1) for fold in range(3) for _ in rows
    )
    assert len({cell.cell_id for cell in prepared.cells}) == len(prepared.cells) == 6 * len(rows)
    assert len({cell.data_key for cell in prepared.cells}) == len(prepared.data) == 1
    (counts,) = (line for line in prepared.data_summary() if line.startswith("samples"))
    assert counts == (
        "samples  100 in 3 folds; fold 0: 53 train, 13 val, 34 test; folds 1, 2: 54 train, 13 val, 33 test"
    )
    (note,) = (line for line in prepared.data_summary() if "is not used" in line)
    assert note == (
        "note     the split of the dataset is not used, as dataset.folds is set: drawn separately: options train, val "
        "and test"
    )
    assert plan_table(prepared.cells).endswith(f"{6 * len(rows)} cells: {len(rows)} variants, seeds 0, 1, 3 folds")
    assert {cell.fold for cell in select_cells(prepared.cells, "fold 1")} == {1}
    assert {cell.place[1:] for cell in select_cells(prepared.cells, "seed 1 and not fold 0")} == {(1, 1), (1, 2)}


def test_cells_of_a_fold_read_its_images_and_share_the_rest(
    folded: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    folded["dataset"]["train_limit"] = 20
    prepared = prepare(Experiment(**folded), registry=tiny_registry)
    (inputs,) = prepared.data.values()
    dataset = ResidentDataset(inputs.images, inputs.audit, torch.device("cpu"))
    with pytest.raises(ValueError, match="splits within a fold only"):
        inputs.audit.rows(inputs.images, "train")
    tested: dict[int, set[int]] = {}
    for cell in prepared.cells:
        own = LocalContext(cell, tiny_registry, dataset, tmp_path, {}).dataset
        assert own._buckets[0] is dataset._buckets[0]  # images are not copied
        train, val, test = (set(own.rows(split).tolist()) for split in SPLITS)
        assert (len(train), len(val), len(train | val | test)) == (16, 4, 20 + len(test))
        assert tested.setdefault(cell.fold or 0, test) == test
        tuning = cell.model_copy(update={"purpose": "tuning"})
        hidden = LocalContext(tuning, tiny_registry, dataset, tmp_path, {}).dataset
        with pytest.raises(PluginError, match="asked for test images"):
            hidden.rows("test")
        with pytest.raises(PluginError, match="asked for test images"):
            hidden.gather(np.array([min(test)]))
    assert sorted(row for rows in tested.values() for row in rows) == list(range(100))


def test_limit_above_a_fold_and_folds_above_the_data_are_refused_with_their_place(
    folded: dict[str, Any], tiny_registry: Registry
) -> None:
    folded["dataset"]["train_limit"] = 67
    with pytest.raises(DataError, match=r"dataset\.train_limit: train_limit is 67, and the data have 66 images"):
        prepare(Experiment(**folded), registry=tiny_registry)
    del folded["dataset"]["train_limit"]
    folded["dataset"]["folds"] = 101
    with pytest.raises(DataError, match=r"dataset\.folds: folds is 101, and the data have 100 images; lower it"):
        prepare(Experiment(**folded), registry=tiny_registry)
    report = audit_experiment(Experiment(**folded), tiny_registry, base_dir=Path())
    assert not report.accepted
    assert "folds is 101" in "\n".join(report.lines())


def test_settings_may_differ_in_folds(folded: dict[str, Any], tiny_registry: Registry) -> None:
    del folded["dataset"]["folds"]
    folded["grid"]["settings"] = {"split": {}, "folds": {"dataset": {"folds": 2}}, "more": {"dataset": {"folds": 4}}}
    prepared = prepare(Experiment(**folded), registry=tiny_registry)
    numbers = Counter((cell.setting, cell.folds) for cell in prepared.cells)
    rows = len({cell.variant[:-1] for cell in prepared.cells})
    assert numbers == {("split", None): 2 * rows, ("folds", 2): 4 * rows, ("more", 4): 8 * rows}
    assert len(prepared.data) == 3
    assert len({inputs.data_hash for inputs in prepared.data.values()}) == 1  # images are decoded once
    assert "2 or 4 folds" in plan_table(prepared.cells)
    folded["grid"]["settings"] = {"one": {"dataset": {"folds": 2}}, "other": {"dataset": {"folds": 2}}}
    with pytest.raises(ValueError, match="says the same as the setting 'one'"):
        Experiment(**folded)


class Own(Dataset):
    """Twelve images with labels and groups that a test sets."""

    name = "own"
    labels: tuple[str, ...] = ("a",) * 12
    pixels: tuple[int, ...] = tuple(range(12))
    groups: tuple[str, ...] = ("",) * 12
    splits: tuple[Any, ...] = ("train",) * 9 + ("val",) * 3

    class Config(ComponentConfig):
        """No fractions, and no seed."""

    def samples(self) -> list[Sample]:
        found = zip(self.labels, self.splits, self.groups, strict=True)
        return [Sample(f"{row}", label, split, group) for row, (label, split, group) in enumerate(found)]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (32, 16), 255)
        image.putpixel((self.pixels[index], 3), 0)
        image.putpixel((self.pixels[index], 4), 0)
        return image

    def fingerprint(self) -> str:
        return json.dumps([self.labels, self.pixels, self.splits])


@pytest.fixture
def own(tiny: dict[str, Any], tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    datasets: Components[Any] = tiny_registry["dataset"]
    monkeypatch.setattr(datasets, "_components", dict(datasets._components))
    datasets.add(Own, "plugin", "origin")
    return tiny | {"dataset": {"use": "own", "folds": 3}}


def test_dataset_of_a_plugin_without_test_images_has_folds_in_the_ratio_of_its_split(
    own: dict[str, Any], tiny_registry: Registry
) -> None:
    (inputs,) = prepare(Experiment(**own), registry=tiny_registry).data.values()
    assert [part.counts for part in inputs.label_audit.parts()] == [{"train": 6, "val": 2, "test": 4}] * 3


def test_identical_images_in_two_folds_are_a_problem_that_training_excludes_if_allowed(
    own: dict[str, Any], tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inputs,) = prepare(Experiment(**own), registry=tiny_registry).data.values()
    fold_of = [of[0] for of in folds_testing(tuple(part.splits for part in inputs.label_audit.parts()))]
    first, other = 0, next(row for row in range(12) if fold_of[row] != fold_of[0])
    pixels = [*range(12)]
    pixels[other] = pixels[first]
    monkeypatch.setattr(Own, "pixels", tuple(pixels))
    where = f"'0' and '{other}' are identical images, in 'fold {fold_of[0]}' and 'fold {fold_of[other]}'"
    with pytest.raises(DataError, match=rf"duplicate_across_splits: {where}; 2 in all: '0', '{other}'"):
        prepare(Experiment(**own), registry=tiny_registry, audit_images=True)
    allowed = own | {"allow": ["duplicate_across_splits"]}
    (inputs,) = prepare(Experiment(**allowed), registry=tiny_registry, audit_images=True).data.values()
    for part in inputs.audit.parts():
        rows = {split: set(part.rows(inputs.images, split).tolist()) for split in SPLITS}
        assert not rows["train"] & {first, other}
        assert {first, other} & (rows["test"] | rows["val"]) == {
            row for row in (first, other) if part.splits[row] != "train"
        }
    assert inputs.audit.excluded == (first, other)


def test_notes_name_the_folds_that_they_are_about() -> None:
    samples = [Sample(f"{row}", "z" if row == 0 else "abc"[row % 3], "train") for row in range(30)]
    folds = divide_into_folds(samples, 3, val_share=0.2, seed=0)
    found = audit(samples, folds=folds)
    of_z = {number for number, splits in enumerate(folds) if splits[0] != "train"}
    note = f"labels of val and test with characters that are not in train: 1 ('z') ({folds_text(of_z)})"
    assert note in found.notes
    assert found.characters == "abcz"  # every fold builds the same network
    assert audit(samples, folds=folds).digest == found.digest
    others = divide_into_folds(samples, 3, val_share=0.2, seed=1)
    assert audit(samples, folds=others).digest != found.digest


def test_report_states_the_images_of_folds() -> None:
    cells = [make_cell(fold=fold, folds=2) for fold in range(2)]
    sizes = [{"train": 60 + fold, "val": 16, "test": 8} for fold in range(2)]
    plan = Plan(
        experiment="demo",
        command="",
        cells=tuple(cells),
        sizes={sizes_key(cell.data_key, cell.fold): of for cell, of in zip(cells, sizes, strict=True)},
    )
    assert [plan.split_sizes_of(cell) for cell in cells] == sizes
    (epochs,) = (line for line in settings_of(plan) if line.startswith("epochs"))
    assert epochs.endswith("of 60 to 61 training images")
    (note,) = (note for note in notes_on_learning(plan) if "training images" in note)
    assert "each of the 60 training images" in note
    assert any("test has 16 samples" in note for note in notes_on_learning(plan))
