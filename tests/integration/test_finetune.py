"""Trained weights as a start: what fits is loaded, characters keep their rows, stages can be frozen or slowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.commands import call
from helpers.running import TINY_PLUGIN
from helpers.training import train
from PIL import Image

from decoderbench import ConfigError, Experiment, Registry, build_plugin_manager
from decoderbench.planning.prepare import prepare
from decoderbench.records.results_directory import ResultsDirectory

PLUGIN = ("-p", str(TINY_PLUGIN))
BRIGHTNESS = {"a": 230, "b": 160, "c": 90, "d": 20}


def draw(folder: Path, characters: str, count: int, seed: int) -> Path:
    """Write images of bars, whose brightness is that of the character."""
    folder.mkdir(parents=True)
    generator, rows = np.random.default_rng(seed), ["filename,label"]
    for number in range(count):
        label = "".join(generator.choice(list(characters), 1 + number % 4))
        line = np.repeat([BRIGHTNESS[character] for character in label], 48 // len(label))
        pixels = np.broadcast_to(line, (16, len(line))) + generator.integers(0, 25, (16, len(line)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def own_registry() -> Registry:
    return Registry(build_plugin_manager([str(TINY_PLUGIN)]))


def experiment_on(folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "bars",
        "dataset": {"use": "folder", "path": str(folder), "fractions": [0.6, 0.2, 0.2]},
        "image": {"height": 16, "width": 48},
        "training": {"steps": 4, "batch_size": 8, "precision": "float32", "warmup_steps": 0, **training},
        "grid": {
            "seeds": [0],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {
                "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
                "attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4},
            },
        },
    }


@pytest.fixture(scope="module")
def packs(own_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack of each decoder, trained on `bac` in this order of ids: a, b, c."""
    top = tmp_path_factory.mktemp("packs")
    train(experiment_on(draw(top / "images", "abc", 60, 0), keep="last"), own_registry, top / "results")
    from decoderbench.inference.loading import pack

    for name in ("ctc", "attention"):
        pack(top / "results", top / f"{name}.zip", own_registry, row=f"tiny / columns / {name}")
    return top


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw(tmp_path / "images", "dcb", 60, 1)


def weights_of(results: Path, decoder: str) -> dict[str, torch.Tensor]:
    directory = ResultsDirectory(results)
    cell = next(cell for cell in directory.read_plan().cells if cell.decoder.label == decoder)
    return safetensors.torch.load_file(directory.cell_directory(cell) / "weights.safetensors")


def trained_on(
    packs: Path, images: Path, registry: Registry, results: Path, decoder: str = "ctc", **training: Any
) -> dict[str, torch.Tensor]:
    """Return the weights after training on from a pack; with a tiny learning rate they are those of the start."""
    experiment = experiment_on(images, start_from=str(packs / f"{decoder}.zip"), keep="last", **training)
    experiment["grid"]["decoder"] = {decoder: experiment["grid"]["decoder"][decoder]}
    frame = train(experiment, registry, results)
    assert frame["status"].tolist() == ["done"], frame["reason"].tolist()
    return weights_of(results, decoder)


@pytest.mark.parametrize("decoder", ["ctc", "attention"])
def test_weights_are_those_of_the_pack_and_common_characters_keep_their_rows(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path, decoder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="decoderbench")
    started = trained_on(packs, images, own_registry, tmp_path / "out", decoder, learning_rate=1e-9, steps=1)
    pack = weights_of(packs / "results", decoder)
    assert started.keys() == pack.keys()
    # The characters are a, b, c in the pack and b, c, d here; CTC has its blank first, attention end and start last.
    rows = {"b": (1, 0), "c": (2, 1)}
    offset, last = (1, ()) if decoder == "ctc" else (0, (3, 4))
    common = {(offset + old, offset + new) for old, new in rows.values()} | {(place, place) for place in last}
    common |= {(0, 0)} if decoder == "ctc" else set()
    sized = {name for name, value in pack.items() if any(size in (4, 5) for size in value.shape[:1]) and
             name.startswith("decoder.") and ("head" in name or "embed" in name or "output" in name)}  # fmt: skip
    assert sized
    for name in pack.keys() - sized:
        torch.testing.assert_close(started[name], pack[name], atol=1e-6, rtol=1e-5)
    for name in sized:
        for old, new in common:
            if old < len(pack[name]):
                torch.testing.assert_close(started[name][new], pack[name][old], atol=1e-6, rtol=1e-5)
    assert "rows of 2 of 3 characters are those of the pack" in caplog.text


def test_equal_charset_loads_everything(
    packs: Path, own_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="decoderbench")
    same = draw(tmp_path / "same", "cab", 60, 2)
    started = trained_on(packs, same, own_registry, tmp_path / "out", learning_rate=1e-9, steps=1)
    pack = weights_of(packs / "results", "ctc")
    for name, value in pack.items():
        torch.testing.assert_close(started[name], value, atol=1e-6, rtol=1e-5)
    assert f"{len(pack)} of {len(pack)} tensors are those of the pack" in caplog.text


def test_frozen_stage_keeps_its_weights_and_factors_slow_a_stage_down(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path
) -> None:
    pack = weights_of(packs / "results", "ctc")
    frozen = trained_on(packs, images, own_registry, tmp_path / "frozen", freeze=["encoder"], learning_rate=0.01)
    for name, value in pack.items():
        if name.startswith("encoder."):
            assert torch.equal(frozen[name], value), name
    assert not torch.equal(frozen["decoder.head.weight"], pack["decoder.head.weight"])
    slow = trained_on(
        packs, images, own_registry, tmp_path / "slow", learning_rate=0.01, learning_rate_factors={"encoder": 0.001}
    )
    fast = trained_on(packs, images, own_registry, tmp_path / "fast", learning_rate=0.01)

    def moved(weights: dict[str, torch.Tensor]) -> float:
        return max(float((weights[name] - pack[name]).abs().max()) for name in pack if name.startswith("encoder."))

    assert 0 < moved(slow) < 0.01 * moved(fast)


def test_frozen_normalization_keeps_its_statistics() -> None:
    from torch import nn

    from decoderbench.options import TrainingOptions
    from decoderbench.training.optimizer import freeze

    module = nn.ModuleDict({"encoder": nn.BatchNorm1d(3), "decoder": nn.BatchNorm1d(3)}).train()
    freeze(module, TrainingOptions(freeze=("encoder",)))
    for part in module.values():
        part(torch.randn(8, 3) + 5)
    assert torch.equal(module["encoder"].running_mean, torch.zeros(3))
    assert (module["decoder"].running_mean > 0).all()


def test_what_the_pack_holds_is_part_of_the_identity_and_its_path_is_not(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.zip"
    copy.write_bytes((packs / "ctc.zip").read_bytes())

    def ids(start: Path | None) -> list[str]:
        experiment = experiment_on(images, **({} if start is None else {"start_from": str(start)}))
        cells = prepare(Experiment(**experiment), registry=own_registry).cells
        return [cell.cell_id for cell in cells]

    assert ids(packs / "ctc.zip") == ids(copy) != ids(None)
    assert ids(packs / "ctc.zip") != ids(packs / "attention.zip")


def test_report_says_from_what_a_row_starts(
    packs: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--steps", "2", "--results", str(tmp_path / "out"), "--device", "cpu", "--executor", "inline", *PLUGIN)
    status, out, _ = call(capfd, "finetune", str(packs / "ctc.zip"), str(images), *options)
    assert status == 0, out
    assert "starts from the trained weights of the row with the same stages of bars, seed 0" in out
    assert "--charset new: 3 characters; the labels have 3, of which the pack knows 2" in out
    page = (tmp_path / "out" / "report.md").read_text()
    assert "starts from: the row with the same stages of bars, seed 0" in page
    assert "frozen" not in page


@pytest.mark.parametrize(("policy", "charset"), [("new", "bcd"), ("union", "abcd"), ("keep", "abc")])
def test_charset_policies(
    packs: Path, images: Path, tmp_path: Path, policy: str, charset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--steps", "2", "--results", str(tmp_path / "out"), "--device", "cpu", "--executor", "inline", *PLUGIN)
    more = ("--charset", policy, "--freeze", "encoder", *(("--allow", "outside_charset") if policy == "keep" else ()))
    status, out, err = call(capfd, "finetune", str(packs / "ctc.zip"), str(images), *options, *more)
    assert status == 0, (out, err)
    (cell,) = ResultsDirectory(tmp_path / "out").read_plan().cells
    assert cell.labels.charset == charset
    assert cell.training.freeze == ("encoder",)
    assert cell.start is not None


def test_kept_charset_accepts_what_normalizing_turns_into_its_characters(
    own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from decoderbench.inference.loading import pack

    experiment = experiment_on(draw(tmp_path / "first", "abc", 60, 0))
    experiment["labels"] = {"normalize": {"case": "lower"}}
    experiment["grid"]["decoder"] = {"ctc": experiment["grid"]["decoder"]["ctc"]}
    train(experiment, own_registry, tmp_path / "results")
    pack(tmp_path / "results", tmp_path / "reader.zip", own_registry)
    upper = draw(tmp_path / "upper", "abc", 60, 3)
    table = upper / "labels.csv"
    table.write_text(table.read_text().replace("a", "A").replace("filenAme,lAbel", "filename,label"))
    options = ("--charset", "keep", "--steps", "2", "--results", str(tmp_path / "out"), "--executor", "inline", *PLUGIN)
    status, _, err = call(capfd, "finetune", str(tmp_path / "reader.zip"), str(upper), *options)
    assert status == 0, err
    (cell,) = ResultsDirectory(tmp_path / "out").read_plan().cells
    assert cell.labels.charset == "abc"


def test_data_outside_a_kept_charset_are_refused_unless_allowed(
    packs: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--charset", "keep", "--steps", "2", "--results", str(tmp_path / "out"), *PLUGIN)
    status, _, err = call(capfd, "finetune", str(packs / "ctc.zip"), str(images), *options)
    assert status == 3
    assert "outside_charset" in err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"start_from": "missing.zip"}}, "training.start_from: .*missing.zip: cannot be read"),
        ({"training": {"freeze": ["encoders"]}}, "training.freeze"),
        ({"training": {"freeze": ["rectifier", "encoder", "bridge", "decoder"]}}, "nothing would be trained"),
        ({"training": {"learning_rate_factors": {"encoder": 0}}}, "training.learning_rate_factors"),
        ({"training": {"freeze": ["encoder"], "learning_rate_factors": {"encoder": 2.0}}}, "the encoder is frozen"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(
    images: Path, tmp_path: Path, changes: dict[str, Any], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import re

    from helpers.running import to_toml

    data = experiment_on(images)
    data["training"] |= changes["training"]
    file = tmp_path / "bars.toml"
    file.write_text(to_toml(data))
    status, _, err = call(capfd, "run", str(file), "--results", str(tmp_path / "out"), *PLUGIN)
    assert status == 2
    assert re.search(named, err), err
    assert not (tmp_path / "out").exists()


def test_pack_that_no_stage_has_anything_of_makes_the_row_infeasible(
    packs: Path, images: Path, own_registry: Registry
) -> None:
    experiment = experiment_on(images, start_from=str(packs / "ctc.zip"))
    experiment["grid"]["encoder"]["tiny"]["stride"] = 2
    experiment["grid"]["bridge"] = {"stack": {"use": "stack_height"}}
    cells = prepare(Experiment(**experiment), registry=own_registry).cells
    reasons = {cell.decoder.label: cell.infeasible for cell in cells}
    assert reasons["ctc"] is None  # its decoder has the options of the pack's
    assert "it cannot start from ctc.zip, as no stage of it" in str(reasons["attention"])


def folder_of_packs(packs: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """Return a folder that `pack --every-row` has written."""
    status, out, err = call(capfd, "pack", str(packs / "results"), str(folder), "--every-row", *PLUGIN)
    assert status == 0, err
    assert out.count("pack: ") == 2
    assert err.count("row        tiny / columns / ") == 2
    return folder


def test_each_row_starts_from_its_own_pack_of_a_folder(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_packs(packs, tmp_path / "packs", capfd)
    assert sorted(file.name for file in folder.iterdir()) == ["tiny-columns-attention.zip", "tiny-columns-ctc.zip"]
    experiment = experiment_on(images, start_from=str(folder), steps=1, learning_rate=1e-9, keep="last")
    experiment["grid"]["decoder"]["other"] = {"use": "lstm_ctc", "hidden_dim": 16}
    frame = train(experiment, own_registry, tmp_path / "out", report=True).set_index("decoder")
    assert frame["status"].to_dict() == {"ctc": "done", "attention": "done", "other": "infeasible"}
    rule = "of the packs in packs it starts from the one that has all its stages with their options; none has"
    assert frame.loc["other", "reason"] == rule
    note = "starts from the trained weights of the row with the same stages of bars, seed 0; steps"
    assert (tmp_path / "out" / "report.md").read_text().count(note) == 1
    for decoder in ("ctc", "attention"):
        trained = weights_of(packs / "results", decoder)
        started = weights_of(tmp_path / "out", decoder)
        for name in ("encoder.conv.weight", "decoder.lstm.weight_hh_l0"):
            if name in trained:
                torch.testing.assert_close(started[name], trained[name], atol=1e-6, rtol=1e-5)
    starts = [cell.start for cell in ResultsDirectory(tmp_path / "out").read_plan().cells if not cell.infeasible]
    assert [start.title.split(" of ")[0] for start in starts if start] == [
        "tiny / columns / ctc",
        "tiny / columns / attention",
    ]


def test_folder_of_packs_that_decides_nothing(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of_packs(packs, tmp_path / "packs", capfd)
    (folder / "again.zip").write_bytes((packs / "ctc.zip").read_bytes())
    cells = prepare(Experiment(**experiment_on(images, start_from=str(folder))), registry=own_registry).cells
    reasons = {cell.decoder.label: cell.infeasible for cell in cells}
    assert reasons["attention"] is None
    assert str(reasons["ctc"]).endswith("several have: again.zip, tiny-columns-ctc.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"a folder without packs; decoderbench pack RESULTS .*empty --every-row"):
        prepare(Experiment(**experiment_on(images, start_from=str(tmp_path / "empty"))), registry=own_registry)
    status, _, err = call(capfd, "pack", str(packs / "results"), str(folder), "--every-row", "--best", *PLUGIN)
    assert (status, "--every-row: packs all rows" in err) == (2, True)


def test_settings_compare_a_start_with_none(packs: Path, images: Path, own_registry: Registry, tmp_path: Path) -> None:
    experiment = experiment_on(images)
    experiment["grid"]["settings"] = {
        "from its pack": {"training": {"start_from": str(packs / "ctc.zip")}},
        "from nothing": {},
    }
    experiment["grid"]["decoder"] = {"ctc": experiment["grid"]["decoder"]["ctc"]}
    frame = train(experiment, own_registry, tmp_path / "out")
    assert frame["status"].tolist() == ["done", "done"]
    assert len(list((tmp_path / "out" / "starts").iterdir())) == 1
    starts = [cell.start for cell in ResultsDirectory(tmp_path / "out").read_plan().cells]
    assert [start is None for start in starts] == [False, True]


def test_damaged_pack_is_one_line(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes((packs / "ctc.zip").read_bytes()[:-40])
    status, _, err = call(capfd, "finetune", str(broken), str(images), "--results", str(tmp_path / "out"), *PLUGIN)
    assert (status, err.count("\n")) == (3, 1)
    assert "is no pack, or damaged" in err
    status, _, err = call(capfd, "finetune", str(packs / "ctc.zip"), str(images), "--charset", "old", *PLUGIN)
    assert status == 2
    assert "--charset old: must be one of new, union, keep" in err
    with pytest.raises(ConfigError, match="start_from"):
        prepare(Experiment(**experiment_on(images, start_from=str(broken))), registry=own_registry)


def test_cell_files_state_the_start(packs: Path, images: Path, own_registry: Registry, tmp_path: Path) -> None:
    trained_on(packs, images, own_registry, tmp_path / "out", steps=1)
    (result,) = (tmp_path / "out" / "cells").glob("*/result.json")
    start = json.loads(result.read_text())["cell"]["start"]
    assert start["title"] == "tiny / columns / ctc of bars, seed 0"
    assert (tmp_path / "out" / "starts" / f"{start['digest']}.zip").read_bytes() == (packs / "ctc.zip").read_bytes()


def test_verify_and_clean_know_the_packs_that_cells_start_from(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "out"
    trained_on(packs, images, own_registry, results, steps=1)
    (file,) = (results / "starts").iterdir()
    (results / "starts" / "0123456789abcdef.zip").write_bytes((packs / "attention.zip").read_bytes())
    status, out, _ = call(capfd, "verify", str(results))
    assert status == 1
    assert "0123456789abcdef.zip: damaged: it is another pack than its name says" in out
    status, out, _ = call(capfd, "clean", str(results), "--yes")
    assert (status, "0123456789abcdef.zip: pack of earlier settings" in out) == (0, True)
    assert list((results / "starts").iterdir()) == [file]
    assert call(capfd, "verify", str(results))[0] == 0
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, out, _ = call(capfd, "verify", str(results), "--fix")
    assert (status, f"{file}: damaged" in out) == (1, True)
    assert call(capfd, "verify", str(results))[0] == 0
    trained_on(packs, images, own_registry, results, steps=1)
    assert file.read_bytes() == (packs / "ctc.zip").read_bytes()


def test_other_components_start_as_without_a_pack(packs: Path, images: Path, own_registry: Registry) -> None:
    """The heads of both decoders have the same name and, by chance, the same shape, and other classes."""
    from decoderbench.records.pack import read_pack
    from decoderbench.training.building import build_recognizer
    from decoderbench.training.start import build_started

    experiment = experiment_on(images, start_from=str(packs / "ctc.zip"))
    experiment["grid"]["decoder"] = {"other": {"use": "ctc"}, "attention": {"use": "attention_lstm", "hidden_dim": 16}}
    cpu = torch.device("cpu")
    for cell in prepare(Experiment(**experiment), registry=own_registry).cells:
        assert cell.infeasible is None  # encoder and bridge are those of the pack
        started, report = build_started(cell, own_registry, cpu, read_pack(packs / "ctc.zip"))
        assert report is not None
        assert {name.split(".")[0] for name in report.loaded} == {"encoder"}
        fresh = build_recognizer(cell, own_registry, cpu).state_dict()
        for name, value in started.state_dict().items():
            if name.startswith("decoder."):
                assert torch.equal(value, fresh[name]), name


def test_frozen_stage_without_trained_weights_fails_with_the_reason(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path
) -> None:
    experiment = experiment_on(images, start_from=str(packs / "ctc.zip"), freeze=["decoder"])
    frame = train(experiment, own_registry, tmp_path / "out").set_index("decoder")
    assert set(frame["status"]) == {"failed"}
    assert (
        "the decoder is frozen, but the pack has no trained weights for all of decoder.head"
        in frame.loc["ctc", "reason"]
    )
    assert "the decoder is frozen" in frame.loc["attention", "reason"]


def test_pack_that_changes_after_the_plan_is_refused(
    packs: Path, images: Path, own_registry: Registry, tmp_path: Path
) -> None:
    from decoderbench import DataError
    from decoderbench.execution.starts import keep_starts

    file = tmp_path / "reader.zip"
    file.write_bytes((packs / "ctc.zip").read_bytes())
    prepared = prepare(Experiment(**experiment_on(images, start_from=str(file))), registry=own_registry)
    file.write_bytes((packs / "attention.zip").read_bytes())
    with pytest.raises(DataError, match="is not the pack that the cells were planned with"):
        keep_starts(prepared.starts, prepared.cells, own_registry, ResultsDirectory(tmp_path / "out"))


def test_recipe_says_what_is_set_by_hand(
    packs: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--set", "training.learning_rate=0.01", "--set", "training.steps=2", "--executor", "inline", *PLUGIN)
    status, out, _ = call(
        capfd, "finetune", str(packs / "ctc.zip"), str(images), "--results", str(tmp_path / "out"), *options
    )
    assert status == 0
    recipe = [line for line in out.splitlines() if line.startswith("recipe: ")]
    assert not [line for line in recipe if "learning_rate" in line or "steps =" in line]
    assert [line for line in recipe if "batch_size" in line]
