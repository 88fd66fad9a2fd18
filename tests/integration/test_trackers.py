"""Trackers: the data of a run in TensorBoard, W&B and MLflow, read back with each library."""

import importlib
import json
import math
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import training
from helpers.commands import call
from helpers.running import TINY_PLUGIN

from decoderbench import hookimpl, load_frame
from decoderbench.records.schema import read_lines
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry

pytestmark = pytest.mark.filterwarnings("default")  # these libraries raise warnings internally

CURVES = {
    "train_loss",
    "val_exact_match",
    "val_cer",
    "val_one_minus_ned",
    "val_nats_per_char",
    "learning_rate",
    "seconds",
}
NUMBERS = {"test/exact_match", "test/cer", "cost/latency_ms", "cost/train_seconds"}


@dataclass
class Tracked:
    """The data that a tracker has of one attempt to train a cell."""

    status: str = ""
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


def read_tensorboard(results: Path) -> Iterator[Tracked]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    for folder in sorted((results / "tensorboard").iterdir()):
        assert len(list(folder.iterdir())) == 1  # one attempt, one file
        events = EventAccumulator(str(folder)).Reload()
        tracked = Tracked()
        for tag in events.Tags()["scalars"]:
            points = [(event.step, event.value) for event in events.Scalars(tag)]
            if "/" in tag:
                ((_, tracked.numbers[tag]),) = points
            else:
                tracked.points[tag] = points
        content = events.summary_metadata
        if metadata.SESSION_START_INFO_TAG in content:
            started = metadata.parse_session_start_info_plugin_data(
                content[metadata.SESSION_START_INFO_TAG].plugin_data.content
            )
            tracked.options = {
                name: value.string_value or value.number_value for name, value in started.hparams.items()
            }
            declared = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG].plugin_data.content)
            assert {metric.name.tag for metric in declared.metric_infos} == set(tracked.numbers)
            tracked.status = "done"
        for tag in events.Tags()["tensors"]:
            if tag.endswith("/text_summary"):
                (event,) = events.Tensors(tag)
                tracked.status, tracked.reason = tag.partition("/")[0], event.tensor_proto.string_val[0].decode()
        yield tracked


def read_wandb(results: Path) -> Iterator[Tracked]:
    """Read W&B's files, which it has no Python reader for: records in blocks of 32 KiB, as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted((results / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        tracked, data, at, record = Tracked(status="open"), file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            record += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind not in (1, 4):  # a whole record, or the last part of one
                continue
            parsed, record = Record.FromString(record), b""
            if parsed.HasField("run"):
                tracked.options |= {item.key: json.loads(item.value_json) for item in parsed.run.config.update}
                tracked.options |= {"name": parsed.run.display_name, "group": parsed.run.run_group}
                tracked.options |= {"project": parsed.run.project}
            elif parsed.HasField("history"):
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in parsed.history.item}
                for name, value in row.items():
                    if not name.startswith("_"):
                        tracked.points.setdefault(name, []).append((parsed.history.step.num or row["_step"], value))
            elif parsed.HasField("summary"):
                for item in parsed.summary.update:
                    value = json.loads(item.value_json)
                    key = item.key or item.nested_key[0]
                    if key in ("status", "reason"):
                        setattr(tracked, key, value)
                    elif "/" in key:
                        tracked.numbers[key] = value
            elif parsed.HasField("exit"):
                assert (parsed.exit.exit_code == 0) == (tracked.status == "done")
                tracked.status = "interrupted" if tracked.status == "open" else tracked.status
        yield tracked


def read_mlflow(_: Path) -> Iterator[Tracked]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    for found in reversed(client.search_runs([experiment.experiment_id])):
        tracked = Tracked(found.data.tags.get("status", ""), found.data.tags.get("reason", ""), dict(found.data.params))
        tracked.options |= {"name": found.info.run_name}
        for name in found.data.metrics:
            points = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, name)]
            if "/" in name:
                ((_, tracked.numbers[name]),) = points
            else:
                tracked.points[name] = points
        expected = {"done": "FINISHED", "": "KILLED"}.get(tracked.status, "FAILED")
        assert found.info.status == expected
        tracked.status = tracked.status or "interrupted"
        yield tracked


READERS: dict[str, Callable[[Path], Iterator[Tracked]]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


@pytest.fixture(params=list(READERS))
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    library: str = request.param
    pytest.importorskip(library, reason=f"{library} is not installed; install decoderbench[{library}]")
    for name in ("WANDB_SILENT", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return library


class Saboteur:
    """Makes one decoder fail, and interrupts another after its first validation, like Ctrl-C."""

    def __init__(self, *, failing: str = "", interrupted: str = "") -> None:
        self.failing, self.interrupted = failing, interrupted

    @hookimpl
    def run_cell(self, cell: Any) -> None:
        if cell.decoder.label == self.failing:
            raise RuntimeError("failed on purpose")

    @hookimpl
    def cell_validated(self, cell: Any) -> None:
        if cell.decoder.label == self.interrupted:
            raise KeyboardInterrupt


def train(tiny: dict[str, Any], results: Path, tracker: str | None, **sabotage: str) -> None:
    named = [str(TINY_PLUGIN)] + ([f"decoderbench_plugins.trackers.{tracker}"] if tracker else [])
    registry = Registry(build_plugin_manager(named))
    registry.plugins.add(Saboteur(**sabotage), "saboteur")
    training.train(tiny, registry, results)


def test_trackers_are_not_loaded_by_default() -> None:
    names = [name for name, _ in build_plugin_manager().manager.list_name_plugin()]
    assert "decoderbench_plugins.decoders.ctc" in names
    assert not [name for name in names if "trackers" in name]


def test_tracker_shows_curves_and_outcome_of_every_cell(
    tiny: dict[str, Any], tmp_path: Path, tracker: str, caplog: pytest.LogCaptureFixture
) -> None:
    tiny["grid"]["encoder"]["coarse"] = {"use": "tiny_cnn", "stride": 16}  # CTC needs more than two frames
    tiny["grid"]["exclude"] = [{"encoder": "coarse", "decoder": "loop"}, {"encoder": "coarse", "decoder": "attention"}]
    train(tiny, tmp_path / "out", tracker, failing="attention")
    assert "raised in" not in caplog.text
    everything = list(READERS[tracker](tmp_path / "out"))
    assert sorted(one.status for one in everything) == ["done", "done", "failed", "infeasible"]
    frame = load_frame(tmp_path / "out").set_index("status")
    reasons = {one.status: one.reason for one in everything}
    assert frame.loc["failed", "reason"] in reasons["failed"]
    assert "failed on purpose" in reasons["failed"]
    assert "CTC needs T >= 3" in reasons["infeasible"]

    done = [one for one in everything if one.status == "done"]
    for one in done:
        assert set(one.points) == CURVES
        assert {step for points in one.points.values() for step, _ in points} == {3, 5, 6}
        assert set(one.numbers) >= NUMBERS
    rates = sorted(one.numbers["test/cer"] for one in done)
    assert rates == pytest.approx(sorted(frame.loc["done", "cer"]))
    history = read_lines(next((tmp_path / "out" / "cells").glob("*lstm-cell*/history.jsonl")))
    losses = [(row["step"], pytest.approx(row["train_loss"])) for row in history]
    assert losses in [one.points["train_loss"] for one in done]
    if tracker == "tensorboard":
        assert {one.options["decoder"] for one in done} == {"loop", "ctc"}
    else:
        assert {one.options["name"] for one in everything} >= {"tiny / columns / loop / seed 0"}
        assert len({one.options["data_hash"] for one in everything}) == 1


def test_interrupted_cell_is_closed_and_its_next_attempt_is_complete(
    tiny: dict[str, Any], tmp_path: Path, tracker: str
) -> None:
    del tiny["grid"]["decoder"]["loop"]
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tmp_path / "out", tracker, interrupted="attention")
    train(tiny, tmp_path / "out", tracker)
    everything = list(READERS[tracker](tmp_path / "out"))
    done = [one for one in everything if one.status == "done"]
    assert len(done) == 2
    for one in done:
        assert [[step for step, _ in points] for points in one.points.values()] == [[3, 5, 6]] * len(CURVES)
    # TensorBoard has one folder per cell, so the interrupted attempt is deleted, like its history.
    rest = [one.status for one in everything if one.status != "done"]
    assert rest == ([] if tracker == "tensorboard" else ["interrupted"])
    train(tiny, tmp_path / "out", tracker)
    assert len(list(READERS[tracker](tmp_path / "out"))) == len(everything)


def test_mlflow_closes_runs_that_a_killed_process_left_open(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed; install decoderbench[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    module = importlib.import_module("decoderbench_plugins.trackers.mlflow")
    for folder in ("here", "there"):
        with monkeypatch.context() as patch:
            patch.setattr(module.MLflowTracker, "close", lambda *_: None)  # a killed process closes nothing
            with pytest.raises(KeyboardInterrupt):
                train(tiny, tmp_path / folder, "mlflow", interrupted="ctc")
    train(tiny, tmp_path / "here", "mlflow")
    runs = module.MlflowClient().search_runs(["1"])
    assert {(Path(run.data.tags["results"]).name, run.info.status) for run in runs} == {
        ("here", "FINISHED"),
        ("here", "KILLED"),
        ("there", "RUNNING"),  # may belong to another machine that is still training
    }


def test_tracker_changes_no_result(tiny: dict[str, Any], tmp_path: Path, tracker: str) -> None:
    del tiny["grid"]["decoder"]["ctc"]
    for name in (None, tracker):
        train(tiny, tmp_path / str(name), name)
    one, other = (sorted((tmp_path / str(name) / "cells").glob("*/weights.safetensors")) for name in (None, tracker))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]
    assert len(one) == 2


def test_tracker_that_cannot_open_is_reported_once_per_cell(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed; install decoderbench[tensorboard]")

    def full(_: str) -> None:
        raise OSError("no space left on device")

    module = importlib.import_module("decoderbench_plugins.trackers.tensorboard")
    monkeypatch.setattr(module, "SummaryWriter", full)
    train(tiny, tmp_path / "out", "tensorboard")
    assert set(load_frame(tmp_path / "out")["status"]) == {"done"}
    assert caplog.text.count("raised in") == caplog.text.count("raised in cell_started: OSError: no space left") == 3


def test_undefined_number_keeps_its_column_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed; install decoderbench[tensorboard]")
    from types import SimpleNamespace

    from decoderbench.records.schema import Cost

    module = importlib.import_module("decoderbench_plugins.trackers.tensorboard")
    cell = SimpleNamespace(cell_id="one", variant=("none", "a", "b", "c", ""), seed=7, scored_split="test")
    record = SimpleNamespace(cell=cell, status="done", metrics={"cer": 0.5, "rare": None}, cost=Cost(), kept_step=3)
    (tracker,) = module.register_observers()
    tracker.run_started(directory=tmp_path)
    tracker.cell_started(cell=cell)
    tracker.cell_validated(step=3, scores={"step": 3, "val_rare": None, "val_cer": 0.5})
    tracker.cell_finished(cell=cell, record=record)
    (tracked,) = read_tensorboard(tmp_path)
    assert tracked.points == {"val_cer": [(3, 0.5)]}
    assert tracked.numbers["test/cer"] == 0.5
    assert math.isnan(tracked.numbers["test/rare"])
    assert tracked.options["seed"] == 7


@pytest.mark.parametrize("library", list(READERS))
def test_missing_library_gives_an_error_that_names_the_extra(
    library: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = f"decoderbench_plugins.trackers.{library}"
    for name in (tracker, "torch.utils.tensorboard"):  # imported by other tests, with the library
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    status, _, err = call(capfd, "plugins", "-p", tracker)
    assert status == 2
    (line,) = err.splitlines()
    assert f"install decoderbench[{library}]" in line
