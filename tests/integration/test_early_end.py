"""Runs that end before all cells have a result: the time is up, or a cell has left the device unusable."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.commands import call
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import add_variant, observe, train

from decoderbench import Experiment, deadline, hookimpl, load_frame
from decoderbench.errors import DeviceLostError, PendingCellsError
from decoderbench.execution import cell_runner
from decoderbench.planning.prepare import prepare
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry


class Clock:
    """A clock that an observer sets: it stands still, and leaps when a cell reaches a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, decoder: str, step: int) -> None:
        self.now, self.decoder, self.step = 0.0, decoder, step
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: self.now))

    @hookimpl
    def cell_validated(self, cell: Any, step: int) -> None:
        if (cell.decoder.label, step) == (self.decoder, self.step):
            self.now += 1000.0


def test_run_stops_within_a_cell_and_the_same_command_finishes_the_grid(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(tiny, tiny_registry, tmp_path / "uninterrupted")
    observer = observe(tiny_registry)
    clock = Clock(monkeypatch, "ctc", 3)
    tiny_registry.plugins.add(clock, "clock")
    results = tmp_path / "results"
    with pytest.raises(PendingCellsError) as caught:
        train(tiny, tiny_registry, results, stop_after=60, report=True)
    assert str(caught.value) == (
        "stopped after 60 s; tiny / columns / ctc / seed 0 is saved at step 3 of 6; 1 of 3 cells have results; give "
        "the same command again to go on"
    )
    assert caught.value.exit_code == 4
    assert observer.started == ["loop", "ctc"]
    assert list(load_frame(results)["decoder"]) == ["loop"]
    assert "- pending: 2 of 3 cells" in (results / "report.md").read_text()

    clock.decoder = "none"
    frame = train(tiny, tiny_registry, results, stop_after=60)
    assert observer.started == ["loop", "ctc", "ctc", "attention"]
    assert list(frame["nats_per_char"]) == list(expected["nats_per_char"])
    assert train(tiny, tiny_registry, results, stop_after=60).equals(frame)


def test_message_says_if_a_call_has_gained_nothing(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_registry.plugins.add(Clock(monkeypatch, "loop", 6), "clock")
    with pytest.raises(PendingCellsError) as caught:
        train(tiny, tiny_registry, tmp_path, stop_after=60, checkpoint_every=None)
    assert str(caught.value) == (
        "stopped after 60 s in an evaluation of tiny / columns / loop / seed 0; 0 of 3 cells have results, none is "
        "new: allow more time; give the same command again to go on"
    )


def test_run_that_stops_with_a_failed_cell_exits_with_1(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failing(tiny_registry)
    tiny["grid"]["decoder"] = {"bad": {"use": "failing"}, **tiny["grid"]["decoder"]}
    tiny_registry.plugins.add(Clock(monkeypatch, "loop", 6), "clock")
    with pytest.raises(PendingCellsError, match="; 1 of 4 cells have results, 1 of them failed; give") as caught:
        train(tiny, tiny_registry, tmp_path, stop_after=60)
    assert caught.value.exit_code == 1


def test_trainer_that_wraps_exceptions_does_not_turn_the_end_of_a_run_into_a_failed_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wraps:
        @hookimpl(wrapper=True)
        def run_cell(self, cell: Any, context: Any) -> Any:
            try:
                return (yield)
            except Exception:  # noqa: BLE001
                raise ValueError("training failed")  # noqa: B904

    tiny_registry.plugins.add(Wraps(), "wraps exceptions")
    tiny_registry.plugins.add(Clock(monkeypatch, "loop", 3), "clock")
    with pytest.raises(
        PendingCellsError, match="stopped after 60 s; tiny / columns / loop / seed 0 is saved at step 3"
    ):
        train(tiny, tiny_registry, tmp_path, stop_after=60)
    assert load_frame(tmp_path).empty


def test_run_stops_while_it_waits_for_a_cell_of_another_process(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    (cell,) = prepare(Experiment(**tiny), registry=tiny_registry).cells
    with ResultsDirectory(tmp_path).lease(cell), pytest.raises(PendingCellsError, match="waiting for tiny / columns"):
        train(tiny, tiny_registry, tmp_path, stop_after=2)


def test_command_stops_in_time_with_exit_status_4(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny["training"] |= {"steps": 100_000, "validate_every": 50_000}
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny))
    arguments = [str(file), "-p", str(TINY_PLUGIN)]
    status, out, err = call(capfd, "prepare", *arguments)
    printed = out + err
    assert status == 0, printed
    assert "samples  64 train, 16 val, 20 test" in printed
    assert "3 cells, 0 of them infeasible; images: " in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]  # nothing is trained or written

    results = ["--results", str(tmp_path / "results"), "--device", "cpu"]
    status, out, err = call(capfd, "run", *arguments, *results, "--stop-after", "0.1s")
    printed = out + err
    assert status == 4, printed
    assert "stopped after 0.1 s; 0 of 3 cells have results, none is new: allow more time" in printed
    assert printed.endswith("give the same command again to go on\n")
    assert "Traceback" not in printed


def test_failed_cell_is_freed_before_the_next_one_is_built(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decoderbench.training.trainer import Trainer

    trainers: list[weakref.ref[Any]] = []
    alive: list[list[bool]] = []
    create = Trainer.__init__

    def recording(self: Any, cell: Any, context: Any) -> None:
        alive.append([trainer() is not None for trainer in trainers])
        create(self, cell, context)
        parameter = next(self.recognizer.parameters())
        trainers.extend(map(weakref.ref, (self, self.recognizer, self.optimizer, parameter)))

    monkeypatch.setattr(Trainer, "__init__", recording)
    add_failing(tiny_registry)
    tiny["grid"]["decoder"] = {"bad": {"use": "failing"}, "ctc": {"use": "lstm_ctc"}}
    gc.disable()  # as if the collector did not happen to run
    try:
        frame = train(tiny, tiny_registry, tmp_path)
    finally:
        gc.enable()
    assert list(frame["status"]) == ["failed", "done"]
    assert alive == [[], [False] * 4]


def test_cell_that_leaves_the_device_unusable_has_a_row_and_ends_the_run(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failing(tiny_registry)
    tiny["grid"]["decoder"] = {
        "ctc": {"use": "lstm_ctc"}, "bad": {"use": "failing"}, "loop": {"use": "lstm_cell"},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(cell_runner, "still_works", lambda device: False)
        with pytest.raises(DeviceLostError) as caught:
            train(tiny, tiny_registry, tmp_path, report=True)
    assert str(caught.value) == (
        "tiny / columns / bad / seed 0 failed and left cpu unusable for this process; 2 of 3 cells have results, 1 of "
        "them failed; give the same command again to go on"
    )
    assert caught.value.exit_code == 1
    assert list(load_frame(tmp_path)["status"]) == ["done", "failed"]
    assert "RuntimeError: device-side assert" in (tmp_path / "report.md").read_text()

    observer = observe(tiny_registry)
    frame = train(tiny, tiny_registry, tmp_path)
    assert observer.started == ["loop"]
    assert list(frame["status"]) == ["done", "failed", "done"]


def test_record_states_how_float32_was_computed_and_the_process_keeps_its_setting(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    seen: list[bool] = []

    class Observer:
        @hookimpl
        def cell_validated(self) -> None:
            seen.append(torch.backends.cudnn.conv.fp32_precision == "ieee")  # type: ignore[attr-defined]

    tiny["grid"]["decoder"] = {"ctc": {"use": "lstm_ctc"}}
    tiny_registry.plugins.add(Observer(), "observer of float32")
    with preserving_global_state():
        torch.backends.cudnn.allow_tf32 = True
        frame = train(tiny, tiny_registry, tmp_path)
        assert torch.backends.cudnn.allow_tf32
    assert seen == [True, True, True]
    (file,) = tmp_path.glob("cells/*/result.json")
    assert '"float32": "ieee"' in file.read_text()
    assert list(frame["status"]) == ["done"]


def add_failing(registry: Registry) -> None:
    """Add the decoder `failing`, whose loss raises."""
    from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC

    def nll(self: Any, memory: Any, labels: Any) -> Any:
        raise RuntimeError("device-side assert triggered")

    add_variant(registry, "decoder", LSTMCTC, "failing", nll=nll)
