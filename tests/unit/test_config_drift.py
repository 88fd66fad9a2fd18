"""Config drift (A12): after any key of an experiment has changed, no result of before is shown as one of now.

RELIABILITY asks to refuse a changed key. Here a changed key makes other cells, in folders of their own: see
framework/decisions/0012.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import make, table
from helpers.recording import make_cell, make_record
from pydantic import BaseModel

from decoderbench import Experiment, prepare
from decoderbench.config.cell import Cell
from decoderbench.config.merging import merge
from decoderbench.errors import ConfigError
from decoderbench.kinds import AXES
from decoderbench.planning.meta_probe import MetaProbe, Size
from decoderbench.records.pack import Manifest, Pack, write_pack
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.records.schema import Plan
from decoderbench.registry.registry import Registry
from decoderbench.report import load_results
from decoderbench.runs.runner import open_results

ALL, NONE = "all cells", "no cell"

CHANGES: dict[str, tuple[Any, str]] = {
    # key: another value, and the cells that it concerns
    "name": ("other", NONE),  # another folder: test_results_are_not_those_of_another_experiment
    "question": ("Another question?", NONE),
    "dataset": ({"seed": 1}, ALL),
    "allow": (
        ["too_long"],
        NONE,
    ),  # what is excluded then counts by the digest of the labels
    "image.height": (20, ALL),
    "image.width": (36, ALL),
    "image.channels": (3, ALL),
    "image.resize": ("pad", ALL),
    "image.buckets": (2, ALL),
    "labels.charset": ("01a", ALL),
    "labels.extra_characters": ("a", ALL),
    "labels.max_length": (5, ALL),
    "labels.normalize.strip": (True, ALL),
    "labels.normalize.case": ("upper", ALL),
    "labels.normalize.alphanumeric_only": (True, ALL),
    "labels.normalize.unicode_form": ("NFC", ALL),
    "augmentation.rotate": (1.0, ALL),
    "augmentation.shear": (0.1, ALL),
    "augmentation.scale": (0.1, ALL),
    "augmentation.translate": (0.1, ALL),
    "augmentation.contrast": (0.1, ALL),
    "augmentation.brightness": (0.1, ALL),
    "augmentation.noise": (0.1, ALL),
    "training.steps": (7, ALL),
    "training.batch_size": (4, ALL),
    "training.learning_rate": (1e-3, ALL),
    "training.warmup_steps": (1, ALL),
    "training.weight_decay": (0.0, ALL),
    "training.clip_norm": (1.0, ALL),
    "training.precision": ("auto", ALL),
    "training.validate_every": (2, ALL),
    "training.ema_decay": (0.9, ALL),
    "training.keep": ("last", ALL),
    "training.start_from": ("reader.zip", ALL),
    "training.freeze": (["encoder"], ALL),
    **{f"training.learning_rate_factors.{stage}": (0.5, ALL) for stage in AXES},
    "evaluation.batch_size": (8, ALL),
    "evaluation.beam_size": (2, ALL),
    "tuning": ({"over": {"training.learning_rate": [1e-3, 3e-3]}, "seeds": [1000]}, ALL),
    "grid.seeds": ([1], ALL),
    "grid.rectifier": ({"none": {"use": "tps"}}, ALL),
    "grid.encoder": ({"tiny": {"stride": 2}}, ALL),
    "grid.bridge": ({"columns": {"use": "flatten_grid"}}, ALL),
    "grid.decoder": ({"ctc": {"hidden_dim": 9}}, "ctc"),
    "grid.settings": ({"short": {"training": {"steps": 5}}}, ALL),
    "grid.exclude": ([{"decoder": "loop"}], NONE),
    "grid.names": ([{"name": "CRNN", "decoder": "ctc"}], NONE),
}


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield every key of an experiment with its table, as in `image.width`; those of components are one key."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.model_config.get("extra") != "allow":
            yield from keys_of(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def change(data: dict[str, Any], key: str) -> dict[str, Any]:
    value: Any = CHANGES[key][0]
    for part in reversed(key.split(".")):
        value = {part: value}
    return merge(data, value)


@pytest.fixture(autouse=True)
def _no_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan without building the recognizers: their sizes are not part of a cell's identity."""
    monkeypatch.setattr(MetaProbe, "measure", lambda self, **parts: Size())


@pytest.fixture(autouse=True)
def _pack_to_start_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pack(tmp_path / "reader.zip", Pack(Manifest(cell=make_cell()), b"weights", "# Card"))


@pytest.fixture
def small(tiny: dict[str, Any]) -> dict[str, Any]:
    """Two cells that are quick to plan."""
    del tiny["grid"]["decoder"]["attention"]
    return tiny


def plan(data: dict[str, Any], registry: Registry) -> tuple[Cell, ...]:
    return prepare(Experiment(**data), registry=registry).cells


def test_every_key_of_an_experiment_is_changed_here() -> None:
    assert sorted(keys_of(Experiment)) == sorted(CHANGES)


def test_changed_key_makes_other_cells_and_leaves_the_rest(small: dict[str, Any], tiny_registry: Registry) -> None:
    before = {cell.cell_id: cell for cell in plan(small, tiny_registry)}
    for key, (_, concerned) in CHANGES.items():
        after = plan(change(small, key), tiny_registry)
        changed = {cell.decoder.label for cell in after if cell.cell_id not in before}
        expected = {ALL: {"loop", "ctc"}, NONE: set()}.get(concerned, {concerned})
        assert changed == expected, f"{key}: {changed} are trained again, not {expected}"


def test_results_of_earlier_settings_stay_as_they_are_and_are_counted(
    small: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, before = ResultsDirectory(tmp_path), plan(small, tiny_registry)
    for cell in before:
        directory.publish(make_record(cell, exact_match=0.75))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    now = plan(change(small, "grid.decoder"), tiny_registry)
    assert directory.count_other_results(now) == 1
    directory.write_plan(Plan(experiment="tiny", command="", cells=now))
    rows = load_results(tmp_path).recorded.set_index("decoder")
    assert rows.loc["loop", "exact_match"] == 0.75
    assert list(rows.index) == ["loop"], "the changed cell has no result"
    assert {path: path.read_bytes() for path in files} == files


def test_results_are_not_those_of_another_experiment(small: dict[str, Any], tmp_path: Path) -> None:
    ResultsDirectory(tmp_path).write_plan(Plan(experiment="tiny", command="", cells=()))
    with pytest.raises(ConfigError, match=r"holds results of experiment 'tiny', not 'other'; give another folder"):
        open_results(Experiment(**change(small, "name")), tmp_path)


@pytest.mark.parametrize("what", ["label", "split", "pixel"])
def test_one_byte_of_the_data_makes_other_cells(
    small: dict[str, Any], tiny_registry: Registry, tmp_path: Path, what: str
) -> None:
    names = [f"{number}.png" for number in range(30)]
    rows = [[name, "01"[index % 2], ("train", "val", "test")[index % 3]] for index, name in enumerate(names)]
    make(tmp_path, names)
    table(tmp_path, rows, ("filename", "label", "split"))
    small["dataset"] = {"use": "folder", "path": str(tmp_path)}
    before = {cell.cell_id for cell in plan(small, tiny_registry)}
    assert {cell.cell_id for cell in plan(small, tiny_registry)} == before
    if what == "pixel":
        file = tmp_path / "images" / "7.png"
        content = file.read_bytes()
        file.write_bytes(content[:-13] + bytes([content[-13] ^ 1]) + content[-12:])
    else:
        rows[7][1 if what == "label" else 2] = {"label": "0", "split": "train"}[what]
        table(tmp_path, rows, ("filename", "label", "split"))
    assert not before & {cell.cell_id for cell in plan(small, tiny_registry)}
