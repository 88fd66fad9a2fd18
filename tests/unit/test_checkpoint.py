"""The files of checkpoints: what is written, what is read again, and what is not used."""

import json
import math
import random
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cut_off import digest
from helpers.recording import make_cell, make_record
from torch import nn

from decoderbench.errors import DivergedError, PendingCellsError
from decoderbench.files.storage import StorageError
from decoderbench.model.module_state import difference, load_state, state_of
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.training import checkpoint
from decoderbench.training.attempt import Attempt
from decoderbench.training.checkpoint import Checkpoints
from decoderbench.training.packing import PackingError, pack, unpack
from decoderbench.training.random_states import read_random_states, write_random_states

CPU = torch.device("cpu")
ENVIRONMENT = {"machine": "a machine", "threads": "1", "torch": "2.15"}


def checkpoints_in(folder: Path, **changes: Any) -> Checkpoints:
    return Checkpoints(**{"folder": folder, "cell": make_cell(), "environment": ENVIRONMENT, "every": 60.0} | changes)


def step_of(state: Any) -> int | None:
    return None if state is None else state["step"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 5 and 6."""
    checkpoints = checkpoints_in(tmp_path)
    for step in (4, 5, 6):
        checkpoints.save({"step": step, "weights": torch.full((300,), float(step))})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.checkpoint", "previous.checkpoint"]
    return tmp_path


def flip(position: float) -> Callable[[bytes], bytes]:
    def flipped(content: bytes) -> bytes:
        index = round(position * (len(content) - 1))
        return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]

    return flipped


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "empty"),
        (lambda content: content[:800], r"\d+ of 1,\d+ bytes"),
        (lambda content: content[:30], "not a checkpoint"),
        (lambda content: content + b"x", r"1,\d+ of 1,\d+ bytes"),
        (lambda content: content[:900] + bytes(512) + content[1412:], "sha256 mismatch"),
        (lambda content: bytes(len(content)), "not a checkpoint"),
        *[(flip(position), "damaged") for position in np.linspace(0, 1, 40)],
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: Callable[[bytes], bytes], words: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = saved / "current.checkpoint"
    damaged = damage(current.read_bytes())
    current.write_bytes(damaged)
    assert step_of(checkpoints_in(saved).load()) == 5
    (line,) = caplog.messages
    assert line.startswith(f"{current}: damaged: ")
    assert line.endswith("; renamed to current.checkpoint.damaged")
    assert re.search(words, line)
    assert (saved / "current.checkpoint.damaged").read_bytes() == damaged
    assert not current.exists()


def test_no_checkpoint_is_used_if_all_are_damaged(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    (saved / "current.checkpoint").write_bytes(b"{}\n")
    (saved / "previous.checkpoint").unlink()
    (saved / "previous.checkpoint").mkdir()
    assert checkpoints_in(saved).load() is None
    assert ["a folder" in line for line in caplog.messages] == [False, True]
    checkpoints_in(saved).save({"step": 1})
    assert step_of(checkpoints_in(saved).load()) == 1


def test_checkpoint_of_another_cell_is_not_used(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints_in(saved, cell=make_cell("attention")).save({"step": 20})
    assert step_of(checkpoints_in(saved).load()) == 6
    assert f"damaged: a checkpoint of cell {make_cell('attention').cell_id}; renamed to" in caplog.text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threads": "2"}, "threads 1, now 2"),
        ({"torch": "2.16"}, "torch 2.15, now 2.16"),
        ({"machine": "another"}, "device a machine, now another"),
        ({"sources": "abc"}, "decoderbench sources none, now abc"),
    ],
)
def test_checkpoint_of_other_conditions_is_kept_and_not_used(
    changed: dict[str, str], words: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoints_in(saved, environment=ENVIRONMENT | changed).load() is None
    (line,) = caplog.messages
    assert line.endswith(f"made under other conditions ({words}); it is not used")
    assert step_of(checkpoints_in(saved, environment=ENVIRONMENT | {"commit": "1234567"}).load()) == 6


def test_failed_write_leaves_the_checkpoint_before(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise StorageError(f"cannot write {path}")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", fail)
        for _ in range(3):
            with pytest.raises(StorageError):
                checkpoints_in(saved).save({"step": 7})
    assert step_of(checkpoints_in(saved).load()) == 6


def test_leftover_of_a_killed_process_is_deleted(saved: Path) -> None:
    (saved / ".current.checkpoint.1.tmp").write_bytes(b"half")
    assert step_of(checkpoints_in(saved).load()) == 6
    assert len(list(saved.iterdir())) == 2


def test_interval_stretches_where_writing_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, write, seconds = [0.0], checkpoint.write_atomically, [0.1]

    def write_slowly(path: Path, content: bytes) -> None:
        now[0] += seconds[0]
        write(path, content)

    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(checkpoint, "write_atomically", write_slowly)
    checkpoints = checkpoints_in(tmp_path)
    for seconds[0], interval in ((0.1, 60.0), (3.0, 150.0)):
        now[0] += 200.0
        checkpoints.save({"step": 1})
        now[0] += interval - 0.5
        assert not checkpoints.is_due()
        now[0] += 1.0
        assert checkpoints.is_due()
    assert checkpoints.seconds == pytest.approx(3.1)
    assert not checkpoints_in(tmp_path, every=None).is_due()
    assert not checkpoints_in(tmp_path, every=0.0).is_due()


def test_state_is_read_as_it_was_written() -> None:
    shared = torch.randn(3)
    state = {
        "numbers": [1, -0.0, 1e-310, math.inf, True, None, 2**70],
        "texts": ("a\nb", "\udc80", ""),
        3: {"nested": {(1, "a"): []}},
        "tensors": [torch.zeros(0, 2), torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor([True]), shared, shared],
        "layouts": [
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.randn(4, 6).T,
            torch.randn(4, 6)[:, ::2],
            torch.randn(3, 1).expand(3, 4),
            nn.Parameter(torch.randn(2)),
        ],
    }
    read = unpack(pack(state))
    assert digest(read) == digest(state)
    assert list(read) == list(state)
    assert math.copysign(1, read["numbers"][1]) == -1
    assert [type(value) for value in read["numbers"]] == [int, float, float, float, bool, type(None), int]
    assert read["layouts"][0].is_contiguous(memory_format=torch.channels_last)
    assert read["layouts"][1].stride() == (1, 6)
    assert read["tensors"][3] is read["tensors"][4]


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64, np.random.Philox])
def test_random_states_go_on_where_they_were_read(generator: Any) -> None:
    with preserving_global_state():
        original = np.random.get_bit_generator()
        np.random.set_bit_generator(generator(3))
        try:
            states = unpack(pack(read_random_states(CPU)))
            drawn = [float(torch.rand(())), random.random(), np.random.random()]
            write_random_states(states, CPU)
            assert [float(torch.rand(())), random.random(), np.random.random()] == drawn
        finally:
            np.random.set_bit_generator(original)


def test_tied_weights_are_written_once_and_versions_of_modules_are_kept() -> None:
    weight = nn.Parameter(torch.zeros(1000))
    tied = nn.ParameterDict({"a": weight, "b": weight})
    assert len(pack(tied.state_dict())) < 6000
    weights = nn.BatchNorm1d(2).state_dict()
    read = unpack(pack(weights))
    assert type(read) is OrderedDict
    assert read._metadata == weights._metadata


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, r"state\['x'\]\[0\] is of type set, which is neither a tensor nor JSON"),
        (np.float64(1), "is of type float64"),
        (b"bytes", "is of type bytes"),
        (torch.ones(2, dtype=torch.complex128), "cannot be written: torch.complex128"),
        (torch.eye(2).to_sparse(), "a tensor of a special kind"),
        (torch.ones(1, device="meta"), "a tensor of a special kind"),
    ],
)
def test_other_values_are_refused(value: Any, words: str) -> None:
    with pytest.raises(PackingError, match=words):
        pack({"x": [value]})


def test_state_of_a_module_built_otherwise_is_not_loaded() -> None:
    small, large = nn.Linear(2, 3), nn.Linear(4, 3)
    assert difference(small, state_of(nn.Linear(2, 3))) == ""
    assert difference(small, state_of(large)) == "its weight has shape (3, 4), that of the model (3, 2)"
    assert difference(small, state_of(nn.Linear(2, 3, bias=False))) == "it has no bias, which the model has"
    assert difference(nn.Linear(2, 3, bias=False), state_of(small)) == "it has bias, which the model does not have"
    assert difference(nn.ReLU(), state_of(nn.BatchNorm1d(2, affine=False))).startswith("it has num_batches_tracked")


def test_buffers_become_as_they_were() -> None:
    def build() -> nn.Module:
        module = nn.Module()
        for name, value in (("created", None), ("resized", torch.zeros(2)), ("removed", torch.ones(1))):
            module.register_buffer(name, value, persistent=name != "resized")
        return module

    trained, fresh = build(), build()
    trained.created, trained.resized, trained.removed = torch.ones(3), torch.ones(5), None
    assert difference(fresh, state_of(trained)) == ""
    load_state(fresh, state_of(trained))
    assert digest(state_of(fresh)) == digest(state_of(trained))
    assert fresh.removed is None


class Counter:
    """A trainer that counts."""

    def __init__(self, *, state: Any = None, diverged: bool = False) -> None:
        self.step, self.state, self.diverged = 0, state, diverged

    def state_dict(self) -> dict[str, Any]:
        if self.diverged:
            raise DivergedError("loss is nan at step 3")
        return {"step": self.step, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def end_at_step(step: int, trainer: Counter, folder: Path) -> int | None:
    """Train up to a step, at which the run ends, and return the step that was saved."""
    attempt = Attempt(checkpoints_in(folder / "checkpoint"), folder / "history.jsonl", CPU)
    attempt.begin()
    try:
        with attempt.resuming(trainer):
            trainer.step = step
            attempt.add_row({"step": step})
            raise PendingCellsError("stopped")
    except PendingCellsError as end:
        return end.saved_step


def test_history_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    assert end_at_step(3, Counter(), tmp_path) == 3
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"st')  # by a process that was killed before its next checkpoint
    trainer = Counter()
    assert end_at_step(5, trainer, tmp_path) == 5
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == [{"step": 3}, {"step": 5}]


def test_cell_at_step_0_is_not_saved(tmp_path: Path) -> None:
    assert end_at_step(0, Counter(), tmp_path) is None
    assert not (tmp_path / "checkpoint").exists()


def test_state_that_is_not_finite_is_never_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert end_at_step(2, Counter(), tmp_path) == 2
    assert end_at_step(3, Counter(diverged=True), tmp_path) is None
    assert "not saved, loss is nan at step 3" in caplog.text
    trainer = Counter()
    with Attempt(checkpoints_in(tmp_path / "checkpoint"), tmp_path / "history.jsonl", CPU).resuming(trainer):
        assert trainer.step == 2


def test_state_that_needs_pickle_is_not_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert end_at_step(3, Counter(state={1, 2}), tmp_path) is None
    assert "no more checkpoints of this cell, because state['trainer']['state'] is of type set" in caplog.text


def test_published_or_superseded_result_deletes_the_checkpoints_of_its_cell(tmp_path: Path) -> None:
    directory, cell = ResultsDirectory(tmp_path), make_cell()
    folder = directory.cell_directory(cell) / "checkpoint"
    checkpoints_in(folder).save({"step": 5})
    directory.delete_result(cell)  # there is none: the cell goes on
    assert step_of(checkpoints_in(folder).load()) == 5
    (folder / "previous.checkpoint.damaged").write_bytes(b"kept to be looked at")
    directory.publish(make_record(cell))
    assert [path.name for path in folder.iterdir()] == ["previous.checkpoint.damaged"]
    checkpoints_in(folder).save({"step": 6})  # by a process that was killed between the two
    directory.delete_result(cell)
    assert checkpoints_in(folder).load() is None
