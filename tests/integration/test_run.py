"""`run`: a grid from its description to its records, whatever happens to single cells."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from helpers.running import TINY_PLUGIN, start_command, to_toml

from decoderbench import Experiment, hookimpl, load_frame, run
from decoderbench.errors import ConfigError, InfeasibleError
from decoderbench.metrics import Metric, nats_per_character
from decoderbench.planning.grid import plan_table
from decoderbench.planning.prepare import prepare
from decoderbench.records import read_lines
from decoderbench.registry.registry import Registry

CONTRACTUAL_COLUMNS = [
    "experiment", "dataset", "rectifier", "encoder", "bridge", "decoder", "seed", "status", "reason",
    "exact_match", "cer", "one_minus_ned", "nats_per_char", "num_test", "param_count", "gmacs",
    "train_samples_per_sec", "infer_samples_per_sec", "latency_ms", "peak_memory_mb", "train_seconds",
    "frames", "device", "cell_id", "name",
]  # fmt: skip


class Witness:
    """An observer that remembers which cells were started and finished."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: dict[str, str] = {}
        self.validated: list[int] = []

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        self.started.append(cell.decoder.label)

    @hookimpl
    def cell_validated(self, cell: Any, step: int, scores: Any) -> None:
        self.validated.append(step)

    @hookimpl
    def cell_finished(self, cell: Any, record: Any) -> None:
        self.finished[cell.decoder.label] = record.status


def train(tiny: dict[str, Any], registry: Registry, results: Path, **options: Any) -> pd.DataFrame:
    return run(Experiment(**tiny), registry=registry, results=results, device="cpu", **options)


def test_a_grid_becomes_records_and_a_table(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    frame = train(tiny, tiny_registry, tmp_path)

    assert list(frame.columns[: len(CONTRACTUAL_COLUMNS)]) == CONTRACTUAL_COLUMNS
    assert list(frame["decoder"]) == ["loop", "ctc", "attention"]
    assert set(frame["status"]) == {"done"}
    assert set(frame["frames"]) == {8}
    assert set(frame["num_test"]) == {20}
    assert (frame["gmacs"] > 0).all()
    assert (frame[["train_samples_per_sec", "infer_samples_per_sec", "latency_ms", "train_seconds"]] > 0).all(axis=None)
    assert witness.started == ["loop", "ctc", "attention"]
    assert witness.validated == [3, 6] * 3
    pd.testing.assert_frame_equal(frame, load_frame(tmp_path))

    for cell_id in frame["cell_id"]:
        folder = tmp_path / "cells" / cell_id
        predictions = pd.read_parquet(folder / "predictions.parquet")
        row = frame[frame["cell_id"] == cell_id].iloc[0]
        assert (predictions["reference"] == predictions["hypothesis"]).mean() == row["exact_match"]
        assert predictions["edit_distance"].sum() / predictions["reference"].str.len().sum() == pytest.approx(
            row["cer"]
        )
        assert nats_per_character(predictions["nll"], predictions["reference"]) == pytest.approx(row["nats_per_char"])
        assert [line["step"] for line in read_lines(folder / "history.jsonl")] == [3, 6]
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        assert sum(w.numel() for w in weights.values()) / 1e6 == pytest.approx(row["param_count"])
        assert json.loads((folder / "cell.json").read_text())["seed"] == 0
    for file in ("cells.csv", "report.md", "table.tex", "accuracy_vs_steps.svg", "accuracy_vs_latency.svg"):
        assert (tmp_path / file).stat().st_size > 0


def test_the_same_command_again_trains_nothing(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    first = train(tiny, tiny_registry, tmp_path)
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    second = train(tiny, tiny_registry, tmp_path)
    assert witness.started == []
    pd.testing.assert_frame_equal(first, second)


def test_a_cell_is_reproducible_on_the_cpu(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
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
def test_whatever_decides_a_result_names_another_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, key: str, value: Any
) -> None:
    from decoderbench.config.overrides import merge

    def ids(data: dict[str, Any]) -> set[str]:
        experiment = Experiment(**data)
        cells = prepare(experiment, registry=tiny_registry, base_dir=tmp_path).cells
        return {cell.cell_id for cell in cells if cell.decoder.label == "ctc"}

    change = value
    for part in reversed(key.split(".")):
        change = {part: change}
    assert ids(tiny).isdisjoint(ids(merge(tiny, change)))
    assert ids(tiny) == ids(merge(tiny, {"name": "renamed"}))


def test_one_bad_decoder_costs_only_its_own_cell(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    broken = type("Broken", (LSTMCTC,), {"name": "broken", "nll": _raise, "__module__": __name__})
    tiny_registry["decoder"].add(broken, "test", "test")
    tiny["grid"]["decoder"] = {"bad": {"use": "broken"}, **tiny["grid"]["decoder"]}
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert frame.loc["bad", "status"] == "failed"
    assert "ZeroDivisionError: a fault in nll (test_run.py" in frame.loc["bad", "reason"]
    assert pd.isna(frame.loc["bad", "exact_match"])
    assert list(frame["status"])[1:] == ["done"] * 3
    story = (tmp_path / "cells" / frame.loc["bad", "cell_id"] / "traceback.txt").read_text()
    assert "in _raise" in story

    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    train(tiny, tiny_registry, tmp_path)
    assert witness.started == []
    train(tiny, tiny_registry, tmp_path, retry_failed=True)
    assert witness.started == ["bad"]


def _raise(*unused: Any) -> None:
    raise ZeroDivisionError("a fault in nll")


@pytest.mark.parametrize(
    ("where", "said"), [("loss", "loss is nan at step 2"), ("gradient", "gradient is not finite at step 2")]
)
def test_a_number_that_is_not_finite_fails_the_cell_with_its_step(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, where: str, said: str
) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    calls = SimpleNamespace(count=0)

    def nll(self: Any, memory: Any, labels: Any) -> Any:
        calls.count += 1
        value = LSTMCTC.nll(self, memory, labels)
        if calls.count != 2:
            return value
        # sqrt has an infinite slope at 0: a finite loss with a gradient that is not.
        return value * float("nan") if where == "loss" else value + (value - value.detach()).abs().sqrt()

    tiny_registry["decoder"].add(
        type("Diverging", (LSTMCTC,), {"name": "diverging", "nll": nll, "__module__": __name__}), "test", "test"
    )
    tiny["grid"]["decoder"] = {"diverging": {"use": "diverging"}, "ctc": {"use": "lstm_ctc"}}
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert frame.loc["diverging", "status"] == "diverged"
    assert said in frame.loc["diverging", "reason"]
    assert frame.loc["diverging", ["exact_match", "cer", "nats_per_char"]].isna().all()
    assert frame.loc["ctc", "status"] == "done"


def test_nan_weights_are_no_accuracy_of_zero(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM

    def transcribe(self: Any, memory: Any, *, beam_size: int = 1) -> Any:
        return AttentionLSTM.transcribe(self, memory * float("nan"), beam_size=beam_size)

    tiny_registry["decoder"].add(
        type("NaN", (AttentionLSTM,), {"name": "nan", "transcribe": transcribe, "__module__": __name__}), "test", "test"
    )
    tiny["grid"]["decoder"] = {"nan": {"use": "nan"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert frame.loc[0, "status"] == "diverged"
    assert "at the validation of step 3" in frame.loc[0, "reason"]
    assert pd.isna(frame.loc[0, "exact_match"])


def test_naming_a_row_trains_nothing(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    train(tiny, tiny_registry, tmp_path)
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    tiny["grid"]["names"] = [{"name": "CRNN", "decoder": "ctc"}]
    frame = train(tiny, tiny_registry, tmp_path)
    assert witness.started == []
    assert frame["name"].tolist() == ["", "CRNN", ""]
    assert (tmp_path / "report.md").read_text().count("| CRNN ") == 1


def test_the_table_of_a_plan_shows_names_and_rectifiers_where_there_are_any(
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


def test_an_infeasible_cell_is_a_row_with_its_reason(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["encoder"]["coarse"] = {"use": "tiny_cnn", "stride": 16}
    frame = train(tiny, tiny_registry, tmp_path).set_index(["encoder", "decoder"])
    assert frame.loc[("coarse", "ctc"), "status"] == "infeasible"
    assert "CTC needs T >= 3" in frame.loc[("coarse", "ctc"), "reason"]
    assert frame.loc[("coarse", "ctc"), "frames"] == 2
    assert (frame["status"] == "done").sum() == 5


def test_a_grid_that_cannot_be_trained_at_all_is_refused(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["encoder"] = {"coarse": {"use": "tiny_cnn", "stride": 16}}
    tiny["grid"]["decoder"] = {"ctc": {"use": "lstm_ctc"}}
    with pytest.raises(InfeasibleError, match="coarse / columns / ctc: CTC needs T >= 3") as caught:
        train(tiny, tiny_registry, tmp_path / "none")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "none").exists()


def test_all_decoders_see_the_same_data_and_the_same_encoder(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["augmentation"] = {"rotate": 10, "translate": 0.1, "noise": 0.1}
    seen: dict[str, list[torch.Tensor]] = {}

    class Spy:
        @hookimpl(wrapper=True)
        def run_cell(self, cell: Any, context: Any) -> Any:
            from decoderbench.model.recognizer import Recognizer

            pixels = seen.setdefault(cell.decoder.label, [])
            original = Recognizer.nll

            def nll(recognizer: Any, images: Any, labels: Any) -> Any:
                if not pixels:
                    pixels.extend(w.detach().clone() for w in recognizer.encoder.parameters())
                pixels.append(images.clone())
                return original(recognizer, images, labels)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Recognizer, "nll", nll)
                return (yield)

    tiny_registry.plugins.add(Spy(), "spy")
    train(tiny, tiny_registry, tmp_path)
    assert len(seen) == 3
    loop, *others = seen.values()
    assert len(loop) == 2 + 6  # weight and bias of the encoder, and the images of six steps
    assert not torch.equal(loop[2], loop[3])
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(loop, other, strict=True))


def test_cells_are_selected_by_name(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["grid"]["seeds"] = [0, 1]
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    train(tiny, tiny_registry, tmp_path, select="ctc and not seed 1 or LOOP and seed 1")
    assert witness.started == ["loop", "ctc"]
    assert "pending: 4 of 6 cells" in (tmp_path / "report.md").read_text()
    with pytest.raises(ConfigError, match="'transformer' matches none of 6 cells"):
        train(tiny, tiny_registry, tmp_path, select="transformer")


def test_observers_cannot_harm_a_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy:
        @hookimpl
        def cell_started(self) -> None:
            raise RuntimeError("fell over")

    witness = Witness()
    tiny_registry.plugins.add(Clumsy(), "clumsy")
    tiny_registry.plugins.add(witness, "witness")
    frame = train(tiny, tiny_registry, tmp_path)
    assert set(frame["status"]) == {"done"}
    assert len(witness.started) == 3
    assert "plugin clumsy raised in cell_started: RuntimeError: fell over" in caplog.text


def test_plugins_add_metrics_and_columns(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    class Always(Metric):
        """The share of texts that are texts."""

        name = "always_one"

        def score(self, references: Any, hypotheses: Any) -> float:
            return float(np.mean([isinstance(text, str) for text in hypotheses]))

    class Columns:
        @hookimpl
        def report_columns(self, record: Any) -> dict[str, object]:
            return {"hidden": record.cell.decoder.options["hidden_dim"]}

    tiny_registry["metric"].add(Always, "test", "test")
    tiny_registry.plugins.add(Columns(), "columns")
    frame = train(tiny, tiny_registry, tmp_path)
    assert list(frame["always_one"]) == [1.0] * 3
    assert list(frame["hidden"]) == [8] * 3


def test_corrupt_result_is_renamed_and_run_again(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = train(tiny, tiny_registry, tmp_path)
    victim = tmp_path / "cells" / before.loc[1, "cell_id"] / "result.json"
    victim.write_bytes(victim.read_bytes()[:100])
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    after = train(tiny, tiny_registry, tmp_path)
    assert witness.started == ["ctc"]
    assert victim.with_suffix(".json.damaged").exists()
    assert "corrupt, not a record" in caplog.text
    assert list(after["exact_match"]) == list(before["exact_match"])


HOLD_AND_PUBLISH = """
import sys
from decoderbench.config.cell import Cell
from decoderbench.records import ResultsDirectory, RunRecord
cell, directory = Cell.model_validate_json(sys.argv[1]), ResultsDirectory(sys.argv[2])
with directory.lease(cell) as held:
    print("held" if held else "refused", flush=True)
    sys.stdin.readline()
    directory.publish(RunRecord(cell=cell, status="done", metrics={"exact_match": 0.125}, num_test=20))
"""


def test_run_leaves_a_cell_to_the_process_that_holds_it_and_waits_for_its_record(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = prepare(Experiment(**tiny), registry=tiny_registry).cells[0]
    command = [sys.executable, "-c", HOLD_AND_PUBLISH, held.model_dump_json(), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        stdin = other.stdin
        assert other.stdout.readline() == "held\n"

        class Witness:
            started: ClassVar[list[str]] = []

            @hookimpl
            def cell_started(self, cell: Any) -> None:
                self.started.append(cell.decoder.label)

            @hookimpl
            def cell_finished(self) -> None:
                if len(self.started) == 2:  # every cell that is free is done: now the other process finishes
                    stdin.write("\n")
                    stdin.flush()

        tiny_registry.plugins.add(Witness(), "witness")
        with caplog.at_level("INFO"):
            frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert Witness.started == ["ctc", "attention"]
    assert f"waiting for {held.title}, which another process is training" in caplog.text
    assert list(frame["status"]) == ["done"] * 3
    assert frame.loc["loop", "exact_match"] == 0.125  # the record of the other process


def test_infeasible_cell_is_started_before_it_is_finished(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["encoder"]["coarse"] = {"use": "tiny_cnn", "stride": 16}
    witness = Witness()
    tiny_registry.plugins.add(witness, "witness")
    train(tiny, tiny_registry, tmp_path, select="coarse")
    assert witness.finished["ctc"] == "infeasible"
    assert witness.started == list(witness.finished) == ["loop", "ctc", "attention"]


def test_observers_are_created_once_per_run_and_see_nothing_of_another_run(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    created: list[Witness] = []

    class Plugin:
        @hookimpl
        def register_observers(self) -> list[object]:
            created.append(Witness())
            return [created[-1]]

    class Broken:
        @hookimpl
        def register_observers(self) -> list[object]:
            raise OSError("no connection")

    tiny_registry.plugins.add(Plugin(), "tracker")
    tiny_registry.plugins.add(Broken(), "broken")
    train(tiny, tiny_registry, tmp_path / "one", select="ctc")
    train(tiny, tiny_registry, tmp_path / "two", select="loop")
    assert [witness.started for witness in created] == [["ctc"], ["loop"]]
    assert "plugin broken raised in register_observers: OSError: no connection" in caplog.text


def test_labels_are_read_and_images_opened_once_per_run(
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


def test_kill_at_any_moment_loses_at_most_the_cell_under_way(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["training"] |= {"steps": 400, "validate_every": 200}
    tiny["grid"]["decoder"] = {key: tiny["grid"]["decoder"][key] for key in ("ctc", "loop")}
    results = tmp_path / "results"
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny))
    arguments = ["run", str(file), "--results", str(results), "-p", str(TINY_PLUGIN), "--device", "cpu"]
    process = start_command(arguments)
    deadline = time.monotonic() + 120
    while not list(results.glob("cells/*ctc*/result.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while not list(results.glob("cells/*lstm-cell*/lock")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (done,) = results.glob("cells/*/result.json")
    before = done.read_bytes()

    again = start_command(arguments)
    printed, _ = again.communicate(timeout=120)
    assert again.returncode == 0, printed
    assert "1 of 2 cells have results already" in printed
    assert done.read_bytes() == before
    assert list(load_frame(results)["status"]) == ["done", "done"]
    assert not list(results.rglob("*.tmp"))


def test_results_of_another_experiment_are_not_replaced(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny, tiny_registry, tmp_path)
    with pytest.raises(ConfigError, match="holds results of experiment 'tiny', not 'other'"):
        train(tiny | {"name": "other"}, tiny_registry, tmp_path)
    with caplog.at_level("INFO"):
        train(tiny | {"training": tiny["training"] | {"steps": 5}}, tiny_registry, tmp_path, select="ctc")
    assert "3 results of earlier settings in" in caplog.text
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        train(tiny, tiny_registry, tmp_path / "file")


def test_what_one_component_switches_reaches_no_other_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def switching(self: Any, config: Any, memory: Any, labels: Any) -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        LSTMCTC.__init__(self, config, memory, labels)

    tiny_registry["decoder"].add(
        type("Switching", (LSTMCTC,), {"name": "switching", "__init__": switching, "__module__": __name__}), "t", "t"
    )
    alone = train(tiny, tiny_registry, tmp_path / "alone")
    tiny["grid"]["decoder"] = {"bad": {"use": "switching"}, **tiny["grid"]["decoder"]}
    beside = train(tiny, tiny_registry, tmp_path / "beside").set_index("decoder")
    assert list(beside.loc[alone["decoder"], "status"]) == ["done"] * 3
    assert list(beside.loc[alone["decoder"], "nats_per_char"]) == list(alone["nats_per_char"])
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda read: (read.ids - 1, read.lengths + 1, read.log_prob), "a transcription must have ids from 0 to 1"),
        (lambda read: (read.ids, read.lengths + 100, read.log_prob), "lengths from 0 to"),
        (lambda read: (read.ids[:1], read.lengths, read.log_prob), "the decoder must return ids (B, S)"),
    ],
)
def test_a_transcription_that_is_none_fails_its_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, fault: Any, said: str
) -> None:
    from decoderbench import Hypotheses
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def transcribe(self: Any, memory: Any, *, beam_size: int = 1) -> Any:
        return Hypotheses(*fault(LSTMCTC.transcribe(self, memory, beam_size=beam_size)))

    tiny_registry["decoder"].add(
        type("Odd", (LSTMCTC,), {"name": "odd", "transcribe": transcribe, "__module__": __name__}), "test", "test"
    )
    tiny["grid"]["decoder"] = {"odd": {"use": "odd"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert frame.loc[0, "status"] == "failed"
    assert said in frame.loc[0, "reason"]


def test_an_encoder_that_lies_about_its_map_fails_its_cells(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny_cnn = tiny_registry["encoder"]["tiny_cnn"].component

    def lying(self: Any, config: Any, image: Any) -> None:
        from dataclasses import replace

        tiny_cnn.__init__(self, config, image)
        self.features = replace(self.features, width=99)

    tiny_registry["encoder"].add(
        type("Lying", (tiny_cnn,), {"name": "lying", "__init__": lying, "__module__": __name__}), "test", "test"
    )
    tiny["grid"]["encoder"] = {"lying": {"use": "lying"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert set(frame["status"]) == {"failed"}
    assert "the encoder declares (8, 4, 99) per image and returns (8, 4, 8)" in frame.loc[0, "reason"]


def test_numbers_of_a_selection_are_whole(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["grid"]["seeds"] = [1, 10]
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    assert list(train(tiny, tiny_registry, tmp_path, select="seed 1")["seed"]) == [1]


def test_plugins_that_answer_nonsense_lose_nothing(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Nonsense:
        @hookimpl
        def run_cell(self, cell: Any) -> Any:
            return "done" if cell.decoder.label == "loop" else None

        @hookimpl
        def report_columns(self) -> Any:
            raise KeyError("column")

        @hookimpl
        def cell_finished(self) -> None:
            raise SystemExit(9)

    tiny_registry.plugins.add(Nonsense(), "nonsense")
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert list(frame["status"]) == ["failed", "done", "done"]
    assert "run_cell returned 'done' instead of this cell's record" in frame.loc["loop", "reason"]
    assert "plugin nonsense raised in report_columns" in caplog.text
    assert "plugin nonsense raised in cell_finished: SystemExit: 9" in caplog.text
