"""`run` with failing cells, corrupt files, other processes and a kill: each costs at most its own cell."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.commands import call
from helpers.running import TINY_PLUGIN, start_command, to_toml
from helpers.training import add_variant, observe, train

from decoderbench import Experiment, hookimpl, load_frame
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry


def test_failing_decoder_fails_only_its_own_cell(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def nll(self: Any, memory: Any, labels: Any) -> Any:
        raise ZeroDivisionError("a fault in nll")

    add_variant(tiny_registry, "decoder", LSTMCTC, "broken", nll=nll)
    tiny["grid"]["decoder"] = {"bad": {"use": "broken"}, **tiny["grid"]["decoder"]}
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert frame.loc["bad", "status"] == "failed"
    assert "ZeroDivisionError: a fault in nll (test_run_faults.py" in frame.loc["bad", "reason"]
    assert pd.isna(frame.loc["bad", "exact_match"])
    assert list(frame["status"])[1:] == ["done"] * 3
    traceback = (tmp_path / "cells" / frame.loc["bad", "cell_id"] / "traceback.txt").read_text()
    assert "in nll" in traceback

    observer = observe(tiny_registry)
    train(tiny, tiny_registry, tmp_path)
    assert observer.started == []
    train(tiny, tiny_registry, tmp_path, retry_failed=True)
    assert observer.started == ["bad"]


@pytest.mark.parametrize(
    ("where", "message"), [("loss", "loss is nan at step 2"), ("gradient", "gradient is not finite at step 2")]
)
def test_non_finite_loss_or_gradient_ends_the_cell_as_diverged_with_its_step(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, where: str, message: str
) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    calls = SimpleNamespace(count=0)

    def loss(self: Any, memory: Any, labels: Any) -> Any:
        calls.count += 1
        value = LSTMCTC.loss(self, memory, labels)
        if calls.count != 2:
            return value
        # sqrt has an infinite slope at 0: a finite loss with a gradient that is not.
        return value * float("nan") if where == "loss" else value + (value - value.detach()).abs().sqrt()

    add_variant(tiny_registry, "decoder", LSTMCTC, "diverging", loss=loss)
    tiny["grid"]["decoder"] = {"diverging": {"use": "diverging"}, "ctc": {"use": "lstm_ctc"}}
    frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert frame.loc["diverging", "status"] == "diverged"
    assert message in frame.loc["diverging", "reason"]
    assert frame.loc["diverging", ["exact_match", "cer", "nats_per_char"]].isna().all()
    assert frame.loc["ctc", "status"] == "done"


def test_nan_scores_in_validation_end_the_cell_as_diverged(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM

    def transcribe(self: Any, memory: Any, *, beam_size: int = 1) -> Any:
        unknown = replace(memory, frames=memory.frames * float("nan"))
        return AttentionLSTM.transcribe(self, unknown, beam_size=beam_size)

    add_variant(tiny_registry, "decoder", AttentionLSTM, "nan", transcribe=transcribe)
    tiny["grid"]["decoder"] = {"nan": {"use": "nan"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert frame.loc[0, "status"] == "diverged"
    assert "at the validation of step 3" in frame.loc[0, "reason"]
    assert pd.isna(frame.loc[0, "exact_match"])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda read: (read.ids - 1, read.lengths + 1, read.log_prob), "a transcription must have ids from 0 to 1"),
        (lambda read: (read.ids, read.lengths + 100, read.log_prob), "lengths from 0 to"),
        (lambda read: (read.ids[:1], read.lengths, read.log_prob), "the decoder must return ids (B, S)"),
    ],
)
def test_invalid_transcription_fails_its_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, fault: Any, message: str
) -> None:
    from decoderbench import Hypotheses
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def transcribe(self: Any, memory: Any, *, beam_size: int = 1) -> Any:
        return Hypotheses(*fault(LSTMCTC.transcribe(self, memory, beam_size=beam_size)))

    add_variant(tiny_registry, "decoder", LSTMCTC, "invalid", transcribe=transcribe)
    tiny["grid"]["decoder"] = {"invalid": {"use": "invalid"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert frame.loc[0, "status"] == "failed"
    assert message in frame.loc[0, "reason"]


def test_encoder_with_wrong_declared_features_fails_its_cells(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny_cnn = tiny_registry["encoder"]["tiny_cnn"].component

    def declare_wrong_width(self: Any, config: Any, image: Any) -> None:
        tiny_cnn.__init__(self, config, image)
        self.features = replace(self.features, width=99)

    add_variant(tiny_registry, "encoder", tiny_cnn, "wrong_width", __init__=declare_wrong_width)
    tiny["grid"]["encoder"] = {"wrong": {"use": "wrong_width"}}
    frame = train(tiny, tiny_registry, tmp_path)
    assert set(frame["status"]) == {"failed"}
    assert "the encoder declares (8, 4, 99) per image and returns (8, 4, 8)" in frame.loc[0, "reason"]


def test_global_state_changed_by_a_component_is_restored_for_other_cells(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def change_global_state(self: Any, config: Any, memory: Any, labels: Any) -> None:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        LSTMCTC.__init__(self, config, memory, labels)

    add_variant(tiny_registry, "decoder", LSTMCTC, "changes_state", __init__=change_global_state)
    alone = train(tiny, tiny_registry, tmp_path / "alone")
    tiny["grid"]["decoder"] = {"bad": {"use": "changes_state"}, **tiny["grid"]["decoder"]}
    beside = train(tiny, tiny_registry, tmp_path / "beside").set_index("decoder")
    assert list(beside.loc[alone["decoder"], "status"]) == ["done"] * 3
    assert list(beside.loc[alone["decoder"], "nats_per_char"]) == list(alone["nats_per_char"])
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1


def test_corrupt_result_is_renamed_and_its_cell_trained_again(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = train(tiny, tiny_registry, tmp_path)
    file = tmp_path / "cells" / before.loc[1, "cell_id"] / "result.json"
    file.write_bytes(file.read_bytes()[:100])
    observer = observe(tiny_registry)
    after = train(tiny, tiny_registry, tmp_path)
    assert observer.started == ["ctc"]
    assert file.with_suffix(".json.damaged").exists()
    assert f"{file}: damaged: not JSON, 100 bytes; renamed to result.json.damaged" in caplog.text
    assert list(after["nats_per_char"]) == list(before["nats_per_char"])


HOLD_AND_PUBLISH = """
import sys
from decoderbench.config.cell import Cell
from decoderbench.records.schema import RunRecord
from decoderbench.records.results_directory import ResultsDirectory
cell, directory = Cell.model_validate_json(sys.argv[1]), ResultsDirectory(sys.argv[2])
with directory.lease(cell) as held:
    print("held" if held else "refused", flush=True)
    sys.stdin.readline()
    directory.publish(RunRecord(cell=cell, status="done", metrics={"exact_match": 0.125}, num_test=20))
"""


def test_run_waits_for_the_record_of_a_cell_that_another_process_holds(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell = prepare(Experiment(**tiny), registry=tiny_registry).cells[0]
    command = [sys.executable, "-c", HOLD_AND_PUBLISH, cell.model_dump_json(), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        stdin = other.stdin
        assert other.stdout.readline() == "held\n"

        class LetsTheOtherProcessFinish:
            @hookimpl
            def cell_finished(self) -> None:
                if len(observer.started) == 2:  # all other cells are done
                    stdin.write("\n")
                    stdin.flush()

        observer = observe(tiny_registry)
        tiny_registry.plugins.add(LetsTheOtherProcessFinish(), "lets the other process finish")
        with caplog.at_level("INFO"):
            frame = train(tiny, tiny_registry, tmp_path).set_index("decoder")
    assert observer.started == ["ctc", "attention"]
    assert f"waiting for {cell.title}, which another process holds" in caplog.text
    assert list(frame["status"]) == ["done"] * 3
    assert frame.loc["loop", "exact_match"] == 0.125  # the record of the other process


@pytest.mark.slow  # tests/chaos kills forked runs, which import nothing
def test_killed_run_loses_only_the_cell_in_training(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tiny["training"] |= {"steps": 200, "validate_every": 100}
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

    status, out, err = call(capfd, *arguments)
    assert status == 0, out + err
    assert "1 of 2 cells have results already" in caplog.text
    assert done.read_bytes() == before
    assert list(load_frame(results)["status"]) == ["done", "done"]
    assert not list(results.rglob("*.tmp"))
