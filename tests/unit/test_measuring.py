"""Taking turns: while one process measures, no other takes a step; nobody waits for the dead or, for ever, the hung."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.training import train

from decoderbench.execution import cell_runner
from decoderbench.registry.registry import Registry
from decoderbench.training import measuring
from decoderbench.training.lock_files import LockFile, LockFiles, open_lock_files
from decoderbench.training.measuring import ALONE, BESIDE_OTHERS, POLL_SECONDS, SIGN_SECONDS, UNLOCKED, MachineTurn

FORK = multiprocessing.get_context("fork")
SHORT = 2.5 * POLL_SECONDS  # a patience


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@pytest.fixture
def others(folder: Path) -> Iterator[LockFiles]:
    """Returns the lock files as another process has them."""
    files = open_lock_files(folder)
    yield files
    for file in files:
        file.close()


class Sleeps:
    """A clock that only sleeping moves; `acts[n]` is called in the n-th sleep, from 1."""

    def __init__(self) -> None:
        self.now, self.count = 100.0, 0
        self.acts: dict[int, Callable[[], object]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.count += 1
        assert self.count < 5000, "waits for ever"
        self.acts.pop(self.count, lambda: None)()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    sleeps = Sleeps()
    monkeypatch.setattr(measuring, "time", SimpleNamespace(monotonic=sleeps.monotonic, sleep=sleeps.sleep))
    return sleeps


_signs = itertools.count(1)


def give_sign(folder: Path) -> None:
    """Give a sign as another process does; the clock of the file system is too coarse for two in a row."""
    number = next(_signs)
    os.utime(folder / "turnstile", ns=(number, number))


def is_free(file: LockFile) -> bool:
    """Return whether a lock can be had, and leave it."""
    found = file.try_lock(shared=False)
    if found:
        file.unlock()
    return found


# Training


def test_trainer_gives_the_room_away_only_while_another_process_measures(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    room_was_free: list[bool] = []
    trainer = MachineTurn(folder)
    with trainer.training():
        assert not is_free(others.room)
        trainer.between_steps()
        assert not is_free(others.room)
        assert others.turnstile.try_lock(shared=False)
        sleeps.acts[1] = lambda: room_was_free.append(is_free(others.room))
        sleeps.acts[3] = others.turnstile.unlock
        trainer.between_steps()
        assert room_was_free == [True]
        assert sleeps.count == 3
        assert trainer.waited_seconds == pytest.approx(3 * POLL_SECONDS)
        assert not is_free(others.room)
        assert is_free(others.turnstile)
    assert is_free(others.room)


def test_training_begins_once_nobody_measures(folder: Path, sleeps: Sleeps, others: LockFiles) -> None:
    assert others.turnstile.try_lock(shared=False)
    assert others.room.try_lock(shared=False)
    sleeps.acts[2] = lambda: [file.unlock() for file in others]
    with MachineTurn(folder).training():
        assert sleeps.count == 2
        assert not is_free(others.room)


def test_nothing_is_locked_outside_of_training(folder: Path, others: LockFiles) -> None:
    MachineTurn(folder).between_steps()
    assert is_free(others.room)


def test_interrupted_trainer_holds_no_lock(folder: Path, others: LockFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(file: LockFile) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(LockFile, "unlock", interrupt)
    with pytest.raises(KeyboardInterrupt), MachineTurn(folder).training():
        pass
    assert is_free(others.turnstile)
    assert is_free(others.room)


def test_device_finishes_its_work_before_the_room_is_given_away(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    room_was_free: list[bool] = []
    trainer = MachineTurn(folder, synchronize=lambda: room_was_free.append(is_free(others.room)))
    with trainer.training():
        trainer.between_steps()
        assert room_was_free == []
        assert others.turnstile.try_lock(shared=False)
        sleeps.acts[1] = others.turnstile.unlock
        trainer.between_steps()
    assert room_was_free == [False]


def test_request_to_stop_ends_the_wait_of_a_trainer(folder: Path, sleeps: Sleeps, others: LockFiles) -> None:
    trainer = MachineTurn(folder, must_stop=lambda: sleeps.count >= 5)
    with trainer.training():
        assert others.turnstile.try_lock(shared=False)
        trainer.between_steps()
    assert sleeps.count == 5


def test_trainer_waits_for_a_process_that_gives_signs_however_long(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    trainer = MachineTurn(folder, patience=SHORT)
    with trainer.training():
        assert others.turnstile.try_lock(shared=False)
        sleeps.acts = dict.fromkeys(range(2, 200, 2), lambda: give_sign(folder))
        sleeps.acts[200] = others.turnstile.unlock
        trainer.between_steps()
        assert sleeps.count == 200
        assert not is_free(others.room)


def test_trainer_waits_once_for_a_hung_process_and_again_for_the_next(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    trainer = MachineTurn(folder, patience=SHORT)
    with trainer.training():
        assert others.turnstile.try_lock(shared=False)
        trainer.between_steps()
        assert trainer.waited_seconds > SHORT
        waits = sleeps.count
        trainer.between_steps()
        assert sleeps.count == waits
        give_sign(folder)
        sleeps.acts[waits + 1] = others.turnstile.unlock
        trainer.between_steps()
        assert sleeps.count == waits + 1
        assert not is_free(others.room)


# Measuring


def test_measurement_begins_once_the_steps_of_others_have_ended(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    assert others.room.try_lock(shared=True)
    turnstile_was_free: list[bool] = []
    sleeps.acts[1] = lambda: turnstile_was_free.append(is_free(others.turnstile))
    sleeps.acts[4] = others.room.unlock
    turn = MachineTurn(folder)
    with turn.training():
        sleeps.count = 0
        with turn.alone() as measurement:
            assert sleeps.count == 4
            assert not any(map(is_free, others))
            turn.between_steps()  # as its own measurement does
            assert sleeps.count == 4
    assert turnstile_was_free == [False], "others take another step"
    assert measurement.how == ALONE
    assert turn.waited_seconds == pytest.approx(4 * POLL_SECONDS)
    assert all(map(is_free, others))


def test_two_measurements_come_one_after_the_other(folder: Path, sleeps: Sleeps, others: LockFiles) -> None:
    room_was_free: list[bool] = []
    turn = MachineTurn(folder)
    sleeps.acts[1] = lambda: room_was_free.append(is_free(others.room))  # or they would wait for each other for ever
    sleeps.acts[2] = others.turnstile.unlock
    with turn.training():
        assert others.turnstile.try_lock(shared=False)
        with turn.alone() as measurement:
            assert sleeps.count == 2
    assert room_was_free == [True]
    assert measurement.how == ALONE


def test_measurement_beside_a_hung_step_says_so_and_waits_less_the_next_time(
    folder: Path, sleeps: Sleeps, others: LockFiles
) -> None:
    assert others.room.try_lock(shared=True)
    turn = MachineTurn(folder)
    waits = []
    for _ in range(2):
        before = turn.waited_seconds
        with turn.alone() as measurement:
            pass
        assert measurement.how == BESIDE_OTHERS
        waits.append(turn.waited_seconds - before)
        sleeps.count = 0
    assert waits[0] > measuring.PATIENCE > measuring.PATIENCE_AGAIN + 1 > waits[1]
    others.room.unlock()
    with turn.alone() as measurement:
        pass
    assert measurement.how == ALONE


def test_measurement_beside_a_hung_measurement_says_so(folder: Path, sleeps: Sleeps, others: LockFiles) -> None:
    assert others.turnstile.try_lock(shared=False)
    before = (folder / "turnstile").stat().st_mtime_ns
    turn = MachineTurn(folder, patience=SHORT)
    with turn.alone() as measurement:
        turn.between_steps()
    assert measurement.how == BESIDE_OTHERS
    assert (folder / "turnstile").stat().st_mtime_ns == before, "the sign of another process that is hung"
    third = open_lock_files(folder)
    assert not is_free(third.turnstile), "a lock of another process"
    for file in third:
        file.close()


def test_measurement_that_gave_no_sign_for_too_long_says_that_others_went_on(folder: Path, sleeps: Sleeps) -> None:
    turn = MachineTurn(folder, patience=5.0)
    for silence, how in ((4.5, ALONE), (5.5, BESIDE_OTHERS)):
        with turn.alone() as measurement:
            sleeps.now += silence
            turn.between_steps()
            sleeps.now += 4.5
        assert measurement.how == how


def test_measuring_process_gives_a_sign_about_every_second(folder: Path, sleeps: Sleeps) -> None:
    turn = MachineTurn(folder)
    with turn.alone():
        for seconds, expected in ((0.5 * SIGN_SECONDS, False), (0.6 * SIGN_SECONDS, True)):
            give_sign(folder)
            before = (folder / "turnstile").stat().st_mtime_ns
            sleeps.now += seconds
            turn.between_steps()
            assert ((folder / "turnstile").stat().st_mtime_ns != before) == expected


def test_error_in_a_measurement_releases_the_locks(folder: Path, others: LockFiles) -> None:
    turn = MachineTurn(folder)
    with pytest.raises(ValueError, match="mine"), turn.training(), turn.alone():
        raise ValueError("mine")
    assert all(map(is_free, others))


# Without locks


@pytest.mark.parametrize("kind", ["link", "file", "open to others"])
def test_folder_that_others_could_have_made_is_not_used_which_is_logged_once(
    folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    turn = MachineTurn(folder)
    with caplog.at_level(logging.WARNING, "decoderbench"), turn.training():
        turn.between_steps()
        with turn.alone() as measurement:
            turn.between_steps()
    assert measurement.how == UNLOCKED
    (line,) = caplog.messages
    assert line.startswith("latency and throughput are measured without waiting for other cells on this machine: ")
    assert str(folder) in line
    assert not list((tmp_path / "elsewhere").iterdir())


def test_lock_file_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "room").symlink_to(tmp_path / "elsewhere")
    with MachineTurn(folder).alone() as measurement:
        pass
    assert measurement.how == UNLOCKED
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("good", [0, 1, 2, 3])
def test_file_system_without_locks_fails_no_cell(folder: Path, monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    calls = itertools.count()
    lock = LockFile.try_lock

    def try_lock(file: LockFile, *, shared: bool) -> bool:
        if next(calls) >= good:
            raise OSError(37, "No locks available")
        return lock(file, shared=shared)

    monkeypatch.setattr(LockFile, "try_lock", try_lock)
    turn = MachineTurn(folder)
    with turn.training():
        turn.between_steps()
        with turn.alone() as measurement:
            turn.between_steps()
        turn.between_steps()
    assert measurement.how == UNLOCKED


# Several processes


def run_in_processes(*targets: Callable[[], None]) -> list[multiprocessing.process.BaseProcess]:
    processes: list[multiprocessing.process.BaseProcess] = [FORK.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    return processes


def test_no_step_falls_into_a_measurement_of_4_trainers_and_4_that_measure(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()

    def write(event: str) -> None:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(file, f"{event} {os.getpid()}\n".encode())
        os.close(file)

    def train() -> None:
        turn = MachineTurn(folder)
        with turn.training():
            for _ in range(60):
                turn.between_steps()
                write("step")
                time.sleep(0.002)
                write("end")

    def measure() -> None:
        turn = MachineTurn(folder)
        for _ in range(2):
            with turn.training():
                turn.between_steps()
                write("step")
                write("end")
                with turn.alone() as measurement:
                    write("measure")
                    for _ in range(5):
                        turn.between_steps()
                        time.sleep(0.002)
                    write("end")
                assert measurement.how == ALONE

    processes = run_in_processes(*[train, measure] * 4)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sum(event == "measure" for event, _ in lines) == 8
    assert sum(event == "step" for event, _ in lines) == 4 * 60 + 8
    under_way: dict[str, str] = {}
    for event, process in lines:
        if event == "end":
            del under_way[process]
        else:
            assert "measure" not in under_way.values()
            assert event == "step" or not under_way
            under_way[process] = event


@pytest.mark.parametrize("holder", ["trainer", "measurer", "trainer with a child", "measurer with a child"])
def test_killed_process_is_not_waited_for(folder: Path, holder: str) -> None:
    reader, writer = FORK.Pipe(duplex=False)

    def hold(writer: Connection) -> None:
        turn = MachineTurn(folder)
        with turn.alone() if "measurer" in holder else turn.training():
            child = os.fork() if "child" in holder else 0
            if child or "child" not in holder:
                writer.send(child)
            time.sleep(60)

    process = FORK.Process(target=hold, args=(writer,))
    process.start()
    child = reader.recv()
    process.kill()
    process.join()
    try:
        turn = MachineTurn(folder, patience=10)
        with turn.training():
            turn.between_steps()
            with turn.alone() as measurement:
                pass
        assert measurement.how == ALONE
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


def test_locks_are_taken_without_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from decoderbench.training.measuring import MachineTurn\n"
        f"with MachineTurn(Path({str(folder)!r})).alone() as m: pass\n"
        "print(m.how, 'torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["alone", "False"]


# A cell


@pytest.mark.parametrize("how", [ALONE, BESIDE_OTHERS])
def test_record_and_report_of_a_cell_say_how_latency_was_measured(
    how: str, tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    files = open_lock_files()
    assert how == ALONE or files.room.try_lock(shared=True)
    monkeypatch.setattr(cell_runner, "MachineTurn", partial(MachineTurn, patience=0.01 if how == BESIDE_OTHERS else 60))
    frame = train(tiny, tiny_registry, tmp_path, report=True)
    for file in files:
        file.close()
    assert frame["measured"].tolist() == [how]
    assert ("measured beside other cells" in (tmp_path / "report.md").read_text()) == (how == BESIDE_OTHERS)
