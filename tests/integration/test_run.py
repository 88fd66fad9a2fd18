"""`run`: from the description of a grid to records, the table and the report."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from helpers.training import observe, train

from decoderbench import Experiment, hookimpl, load_frame
from decoderbench.alignments import decode_alignments
from decoderbench.analysis import load_report
from decoderbench.errors import ConfigError, InfeasibleError
from decoderbench.metrics import nats_per_character
from decoderbench.planning.grid import plan_table
from decoderbench.planning.prepare import prepare
from decoderbench.records.predictions import COLUMNS
from decoderbench.records.record_files import read_result
from decoderbench.records.schema import read_lines, unpack_flags
from decoderbench.registry.registry import Registry
from decoderbench.report.html import html_report

FIXED_COLUMNS = [
    "experiment", "dataset", "rectifier", "encoder", "bridge", "decoder", "setting", "seed", "fold", "folds",
    "status", "reason", "exact_match", "cer", "one_minus_ned", "nats_per_char", "num_test",
    "param_count", "training_only_param_count", "gmacs",
    "train_samples_per_sec", "infer_samples_per_sec", "latency_ms",
    "train_peak_memory_mb", "infer_peak_memory_mb", "train_seconds",
    "frames", "train_limit", "tuned", "tuning_seconds",
    "device", "threads", "jobs", "measured", "cpu_capability", "compute_capability", "cuda", "cudnn",
    "driver", "float32", "auto_precision", "torch", "timm", "sources", "dataset_source", "wrappers", "decoderbench",
    "python", "commit", "cell_id", "name",
]  # fmt: skip


def assert_read_texts_are_described(folder: Path) -> None:
    """Check what is kept of each image of validation and test, for a decoder of any kind."""
    record = read_result(folder)
    aligned, ends = {"loop": (False, True), "ctc": (True, False), "attention": (True, True)}[record.cell.decoder.label]
    for name in ("predictions.parquet", "val_predictions.parquet"):
        predictions = pd.read_parquet(folder / name)
        assert predictions.dtypes.astype(str).to_dict() == COLUMNS
        assert (predictions["text_log_prob"] >= predictions["log_prob"] - 1e-4).all()
        right = predictions["reference"] == predictions["hypothesis"]
        assert predictions.loc[right, "text_log_prob"].to_numpy() == pytest.approx(-predictions.loc[right, "nll"])
        assert set(predictions["group"]) == {""}
        assert set(predictions["frames"]) == {8}
        assert predictions["ended"].isna().all() != ends
        read = predictions["hypothesis"] != ""
        assert (predictions["frames_per_character"].notna() == (read & aligned)).all()
        assert predictions["unused_frames"].notna().all() == aligned
    history = read_lines(folder / "history.jsonl")
    assert [line["step"] for line in history] == [6, 11, 12]
    correct = {line["step"]: unpack_flags(line["val_correct"], len(right)) for line in history}
    assert correct[record.kept_step].tolist() == right.tolist()
    assert [flags.mean() for flags in correct.values()] == [line["val_exact_match"] for line in history]
    assert (folder / "alignments.npz").exists() == aligned
    if aligned:
        kept = decode_alignments((folder / "alignments.npz").read_bytes())
        assert [one.sample for one in kept] == [f"test/{number:06}" for number in (0, 4, 8, 11, 15, 19)]
        assert {one.weights.shape for one in kept} == {(len(one.text), 8) for one in kept}
    latencies = record.cost.latency_ms_by_length
    test = pd.read_parquet(folder / "predictions.parquet")
    assert list(map(int, latencies)) == sorted(set(test["hypothesis"].str.len()))
    assert min(latencies.values()) > 0


def test_run_writes_records_table_and_report_of_a_grid(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    observer = observe(tiny_registry)
    tiny["training"] |= {"steps": 12, "validate_every": 6}
    frame = train(tiny, tiny_registry, tmp_path, figures=True)

    assert list(frame.columns[: len(FIXED_COLUMNS)]) == FIXED_COLUMNS
    assert list(frame["decoder"]) == ["loop", "ctc", "attention"]
    assert set(frame["status"]) == {"done"}
    assert set(frame["frames"]) == {8}
    assert set(frame["num_test"]) == {20}
    assert (frame["gmacs"] > 0).all()
    assert (frame[["train_samples_per_sec", "infer_samples_per_sec", "latency_ms", "train_seconds"]] > 0).all(axis=None)
    assert observer.started == ["loop", "ctc", "attention"]
    assert frame[["train_peak_memory_mb", "infer_peak_memory_mb"]].isna().all(axis=None)  # on a CPU
    assert observer.validated == [6, 11, 12] * 3
    pd.testing.assert_frame_equal(frame, load_frame(tmp_path))

    tested = set()
    for cell_id in frame["cell_id"]:
        folder = tmp_path / "cells" / cell_id
        predictions = pd.read_parquet(folder / "predictions.parquet")
        tested.add(tuple(zip(predictions["sample"], predictions["reference"], strict=True)))
        row = frame[frame["cell_id"] == cell_id].iloc[0]
        assert (predictions["reference"] == predictions["hypothesis"]).mean() == row["exact_match"]
        assert predictions["edit_distance"].sum() / predictions["reference"].str.len().sum() == pytest.approx(
            row["cer"]
        )
        assert nats_per_character(predictions["nll"], predictions["reference"]) == pytest.approx(row["nats_per_char"])
        assert_read_texts_are_described(folder)
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        assert sum(w.numel() for w in weights.values()) / 1e6 == pytest.approx(row["param_count"])
        assert json.loads((folder / "cell.json").read_text())["seed"] == 0
    assert len(tested) == 1  # all decoders are scored on the same samples
    for file in ("report.md", "tables/cells.csv", "tables/main.tex", "figures/accuracy_vs_steps.svg"):
        assert (tmp_path / file).stat().st_size > 0


def test_second_run_of_the_same_experiment_trains_nothing(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    first = train(tiny, tiny_registry, tmp_path)
    observer = observe(tiny_registry)
    second = train(tiny, tiny_registry, tmp_path)
    assert observer.started == []
    pd.testing.assert_frame_equal(first, second)


def test_weights_are_reproducible_on_the_cpu(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["augmentation"] = {"rotate": 5, "noise": 0.1}
    for name in ("a", "b"):
        train(tiny, tiny_registry, tmp_path / name)
    one, other = sorted(tmp_path.glob("a/cells/*")), sorted(tmp_path.glob("b/cells/*"))
    assert len(one) == 3
    for left, right in zip(one, other, strict=True):
        assert left.name == right.name
        assert (left / "weights.safetensors").read_bytes() == (right / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.steps", 7),
        ("training.learning_rate", 0.001),
        ("augmentation.rotate", 3.0),
        ("evaluation.beam_size", 2),
        ("image.width", 40),
        ("dataset.seed", 1),
        ("grid.seeds", [1]),
        ("grid.decoder.ctc.hidden_dim", 9),
    ],
)
def test_cell_id_changes_with_every_decisive_option(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, key: str, value: Any
) -> None:
    from decoderbench.config.merging import merge

    def ctc_cell_id(data: dict[str, Any]) -> str:
        cells = prepare(Experiment(**data), registry=tiny_registry, base_dir=tmp_path).cells
        (cell,) = [cell for cell in cells if cell.decoder.label == "ctc"]
        return cell.cell_id

    change = value
    for part in reversed(key.split(".")):
        change = {part: change}
    assert ctc_cell_id(tiny) != ctc_cell_id(merge(tiny, change))
    assert ctc_cell_id(tiny) == ctc_cell_id(merge(tiny, {"name": "renamed"}))


def test_all_decoders_are_trained_on_the_same_batches_and_initial_encoder(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["augmentation"] = {"rotate": 10, "translate": 0.1, "noise": 0.1}
    recorded: dict[str, list[torch.Tensor]] = {}

    class RecordsTrainingImages:
        @hookimpl(wrapper=True)
        def run_cell(self, cell: Any, context: Any) -> Any:
            from decoderbench.model.recognizer import Recognizer

            tensors = recorded.setdefault(cell.decoder.label, [])
            original = Recognizer.loss

            def loss(recognizer: Any, images: Any, *rest: Any) -> Any:
                if not tensors:
                    tensors.extend(w.detach().clone() for w in recognizer.encoder.parameters())
                tensors.append(images.clone())
                return original(recognizer, images, *rest)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Recognizer, "loss", loss)
                return (yield)

    tiny_registry.plugins.add(RecordsTrainingImages(), "records training images")
    train(tiny, tiny_registry, tmp_path)
    assert len(recorded) == 3
    loop, *others = recorded.values()
    assert len(loop) == 2 + 6  # weight and bias of the encoder, and the images of six steps
    assert not torch.equal(loop[2], loop[3])
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(loop, other, strict=True))


def test_run_audits_labels_and_opens_images_once(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decoderbench.data import audit, image_cache
    from decoderbench.planning import inputs

    counts: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return counted

    monkeypatch.setattr(inputs, "audit", counting("audit of labels", audit.audit))
    monkeypatch.setattr(inputs, "open_store", counting("opening of images", image_cache.open_store))
    monkeypatch.setattr(audit.Audit, "with_images", counting("audit of images", audit.Audit.with_images))
    once = {"audit of labels": 1, "opening of images": 1, "audit of images": 1}
    for resize in ("stretch", "keep"):
        counts.clear()
        tiny["image"]["resize"] = resize
        tiny["name"] = resize
        train(tiny, tiny_registry, tmp_path / resize, select="ctc")
        assert counts == once
    counts.clear()
    tiny["image"]["resize"] = "stretch"
    prepare(Experiment(**tiny), registry=tiny_registry)
    assert counts == {"audit of labels": 1}  # a plan of images of one size decodes none


def test_select_trains_only_the_selected_cells(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["grid"]["seeds"] = [0, 1]
    observer = observe(tiny_registry)
    train(tiny, tiny_registry, tmp_path, select="ctc and not seed 1 or LOOP and seed 1", report=True)
    assert observer.started == ["loop", "ctc"]
    assert "pending: 4 of 6 cells" in (tmp_path / "report.md").read_text()
    with pytest.raises(ConfigError, match="'transformer' matches none of 6 cells"):
        train(tiny, tiny_registry, tmp_path, select="transformer")


def test_select_seed_1_excludes_seed_10(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["grid"]["seeds"] = [1, 10]
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    assert list(train(tiny, tiny_registry, tmp_path, select="seed 1")["seed"]) == [1]


def test_name_of_a_combination_and_question_of_the_experiment_retrain_nothing(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    train(tiny, tiny_registry, tmp_path)
    observer = observe(tiny_registry)
    tiny["grid"]["names"] = [{"name": "CRNN", "decoder": "ctc"}]
    tiny["question"] = "Does a name\ncost a run?"
    frame = train(tiny, tiny_registry, tmp_path, report=True)
    assert observer.started == []
    assert frame["name"].tolist() == ["", "CRNN", ""]
    assert (tmp_path / "report.md").read_text().count("| CRNN ") == 1
    assert "\n\nDoes a name cost a run?\n\n" in (tmp_path / "report.md").read_text()
    assert "<bdi>Does a name cost a run?</bdi>" in html_report(load_report(tmp_path), command="decoderbench report")


def test_plan_table_shows_names_and_rectifiers_only_if_there_are_any(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    def rows(**grid: Any) -> list[list[str]]:
        experiment = Experiment(**tiny | {"grid": tiny["grid"] | grid})
        prepared = prepare(experiment, registry=tiny_registry, base_dir=tmp_path, cache_dir=tmp_path)
        lines = plan_table(prepared.cells).splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]

    assert rows()[0][:4] == ["encoder", "bridge", "decoder", "T"]
    decoder = {"007": tiny["grid"]["decoder"]["ctc"]}
    rectifier = {"none": "none", "thin plate": "tps"}
    names = [{"name": "1e3", "rectifier": "thin plate"}]
    table = rows(decoder=decoder, rectifier=rectifier, names=names)
    assert table[0][:6] == ["name", "rectifier", "encoder", "bridge", "decoder", "T"]
    assert [row[:5] for row in table[2:]] == [
        ["", "none", "tiny", "columns", "007"],
        ["1e3", "thin plate", "tiny", "columns", "007"],
    ]


def test_infeasible_cell_is_a_row_with_its_reason(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["encoder"]["coarse"] = {"use": "tiny_cnn", "stride": 16}
    frame = train(tiny, tiny_registry, tmp_path).set_index(["encoder", "decoder"])
    assert frame.loc[("coarse", "ctc"), "status"] == "infeasible"
    assert "CTC needs T >= 3" in frame.loc[("coarse", "ctc"), "reason"]
    assert frame.loc[("coarse", "ctc"), "frames"] == 2
    assert (frame["status"] == "done").sum() == 5


def test_run_refuses_grid_without_feasible_cells(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["grid"]["encoder"] = {"coarse": {"use": "tiny_cnn", "stride": 16}}
    tiny["grid"]["decoder"] = {"ctc": {"use": "lstm_ctc"}}
    with pytest.raises(InfeasibleError, match="coarse / columns / ctc: CTC needs T >= 3") as caught:
        train(tiny, tiny_registry, tmp_path / "none")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "none").exists()


def test_run_refuses_results_of_another_experiment(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny, tiny_registry, tmp_path)
    with pytest.raises(ConfigError, match="holds results of experiment 'tiny', not 'other'"):
        train(tiny | {"name": "other"}, tiny_registry, tmp_path)
    with caplog.at_level("INFO"):
        train(tiny | {"training": tiny["training"] | {"steps": 5}}, tiny_registry, tmp_path, select="ctc")
    assert re.search(r"results of earlier settings in .* that are not in this table: 3$", caplog.text, re.MULTILINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        train(tiny, tiny_registry, tmp_path / "file")
