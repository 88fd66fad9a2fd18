"""A cell that is cut off and goes on equals an uninterrupted one to the last bit, and each saved piece is needed."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from helpers.cut_off import DECODERS, STEPS, MicroCell, Outcome, StopAt

from decoderbench import PendingCellsError
from decoderbench.model.module_state import state_of
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.training import timing
from decoderbench.training.checkpoint import Checkpoints
from decoderbench.training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def _short_timing() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LATENCY_RUNS", 1)
        patch.setattr(timing, "LATENCY_WARM_UPS", 0)
        yield


@pytest.fixture(scope="module")
def micro_cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MicroCell]:
    registry = Registry(build_plugin_manager())
    return cache(lambda decoder: MicroCell(registry, decoder, tmp_path_factory.mktemp(decoder)))


@pytest.fixture(scope="module")
def uninterrupted(micro_cell: Callable[[str], MicroCell]) -> Callable[[str], Outcome]:
    return cache(lambda decoder: micro_cell(decoder).run("uninterrupted"))


@pytest.mark.parametrize(("decoder", "first"), [("loop", 1), ("ctc", 2), ("attention", 1), ("averaged", 2)])
def test_cell_that_is_cut_off_again_and_again_equals_the_uninterrupted_one(
    decoder: str, first: int, micro_cell: Callable[[str], MicroCell], uninterrupted: Callable[[str], Outcome]
) -> None:
    # Every two steps, before and within each validation, within the test.
    outcome = micro_cell(decoder).run("again and again", first, *[2] * 18)
    assert outcome == uninterrupted(decoder)
    assert [step for step, _ in outcome.batches] == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
def test_cell_that_was_cut_off_anywhere_equals_the_uninterrupted_one(
    decoder: str, micro_cell: Callable[[str], MicroCell], uninterrupted: Callable[[str], Outcome]
) -> None:
    cell, expected = micro_cell(decoder), uninterrupted(decoder)
    places = cell.places()
    assert sum(place.startswith("at step") for place in places) == STEPS
    for number in range(len(places)):
        assert cell.run(f"anywhere {number}", number) == expected, places[number]


class Killed(BaseException):
    """Ends a process without giving it time to save."""


class KilledAt(StopAt):
    """Kills the process at a check."""

    def check(self, where: str) -> None:
        try:
            super().check(where)
        except PendingCellsError:
            raise Killed from None


def test_cell_of_a_killed_process_goes_on_from_its_last_checkpoint(
    micro_cell: Callable[[str], MicroCell], uninterrupted: Callable[[str], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, outcome, due = micro_cell("loop"), Outcome(), iter([False] * 9 + [True] + [False] * 50)
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: next(due))
    with pytest.raises(Killed):
        cell.attempt("killed", KilledAt(14), outcome, 0)  # within the step after the second batch of a validation
    assert len(outcome.batches) == 12
    del outcome.batches[9:]
    assert cell.complete("killed", outcome, 1) == uninterrupted("loop")


@pytest.mark.parametrize("position", [0.001, 0.3, 0.999])
def test_cell_with_a_damaged_checkpoint_goes_on_from_the_one_before(
    position: float,
    micro_cell: Callable[[str], MicroCell],
    uninterrupted: Callable[[str], Outcome],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cell, outcome, name = micro_cell("loop"), Outcome(), f"damaged at {position}"
    assert cell.interrupt(name, 5, outcome, 0)
    assert cell.interrupt(name, 5, outcome, 1)
    file = cell.folder / name / "checkpoint" / "current.checkpoint"
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 4
    file.write_bytes(content)
    del outcome.batches[5:]
    assert cell.complete(name, outcome, 2) == uninterrupted("loop")
    assert f"{file}: damaged: " in caplog.text


def forget(*keys: str | int) -> Callable[[Any, Any], None]:
    """Return a function that gives a part of a saved state, found by these keys, the value that it has at step 0."""

    def mutate(state: Any, initial: Any) -> None:
        for key in keys[:-1]:
            state, initial = state[key], initial[key]
        state[keys[-1]] = initial[keys[-1]]

    return mutate


def drop(kind: str) -> Callable[[Any, Any], None]:
    """Return a function that removes a random state."""
    return lambda state, _: state["random"].pop(kind)


WEIGHTS = ("recognizers", 0, "weights")
BUFFERS = ("recognizers", 0, "buffers")
PIECES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "weights": (forget(*WEIGHTS, "encoder.conv.weight"), "at step 21"),
    "weights that are not contiguous": (forget(*WEIGHTS, "encoder.transposed"), "at step 21"),
    "BatchNorm": (forget(*WEIGHTS, "encoder.norm.running_var"), "at step 21"),
    "extra state": (forget(*WEIGHTS, "encoder._extra_state"), "at step 21"),
    "buffer that is not persistent": (forget(*BUFFERS, "encoder.drift"), "at step 21"),
    "buffer that training creates": (
        lambda state, _: state["recognizers"][0]["buffers"].pop("encoder.first"),
        "at step 21",
    ),
    "first moments": (
        lambda state, _: [moments["exp_avg"].zero_() for moments in state["trainer"]["optimizer"]["state"].values()],
        "at step 21",
    ),
    "number of steps of the optimizer": (
        lambda state, _: [moments["step"].zero_() for moments in state["trainer"]["optimizer"]["state"].values()],
        "at step 21",
    ),
    "step": (forget("trainer", "step"), "at step 21"),
    "validated step": (forget("trainer", "validated"), "at step 17"),
    "best weights": (forget("trainer", "kept"), "in the test"),
    "average": (forget("trainer", "average"), "at step 21"),
    "loss": (forget("trainer", "loss"), "in the validation of step 16"),
    "random state of torch": (drop("torch"), "at step 21"),
    "random state of Python": (drop("python"), "at step 21"),
    "random state of NumPy": (drop("numpy"), "at step 21"),
    "history": (forget("history"), "at step 21"),
}  # fmt: skip


@pytest.fixture(scope="module")
def interrupted(micro_cell: Callable[[str], MicroCell]) -> Callable[[str, str], Outcome]:
    """Runs a cell up to a place, in a folder of that name, once for all tests."""

    @cache
    def interrupt(place: str, decoder: str) -> Outcome:
        cell, outcome = micro_cell(decoder), Outcome()
        assert cell.interrupt(place, number_of(place, cell.places()), outcome)
        return outcome

    return interrupt


@pytest.mark.parametrize("piece", PIECES)
def test_forgetting_a_piece_of_state_is_noticed(
    piece: str,
    micro_cell: Callable[[str], MicroCell],
    uninterrupted: Callable[[str], Outcome],
    interrupted: Callable[[str, str], Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutate, place = PIECES[piece]
    decoder = "averaged" if piece == "average" else "ctc"
    cell, load, outcome = micro_cell(decoder), Checkpoints.load, deepcopy(interrupted(place, decoder))
    shutil.copytree(cell.folder / place, cell.folder / piece)

    def load_without(self: Checkpoints) -> Any:
        state = load(self)
        if state is not None:
            context = cell.context("fresh", StopAt())
            trainer = Trainer(cell.cell, context)
            initial = {
                "trainer": trainer.state_dict(), "recognizers": [state_of(trainer.recognizer)], "history": [],
            }  # fmt: skip
            mutate(state, initial)
        return state

    monkeypatch.setattr(Checkpoints, "load", load_without)
    if piece == "best weights":
        with pytest.raises(AssertionError):
            cell.complete(piece, outcome, seed=1)
    else:
        assert cell.complete(piece, outcome, seed=1) != uninterrupted(decoder)


def number_of(place: str, places: list[str]) -> int:
    """Return the number of a check: at a step, or at the second batch of an evaluation."""
    if place.startswith("at"):
        return places.index(f"{place} of {STEPS}")
    if place == "in the test":
        return len(places) - 1
    return places.index(f"at step {place.split()[-1]} of {STEPS}") + 2
