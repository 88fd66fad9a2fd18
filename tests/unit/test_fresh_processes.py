"""The two fresh processes of the kit survive what components do to them."""

import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import pytest
from helpers.support import SmallCTC
from planted.metrics import Bootstrap, FirstRight

from decoderbench.testing import ConformanceError, NotAskedError, processes, subject_of
from decoderbench.testing.processes import agrees_between_processes


class Slow(FirstRight):
    def score(self, references: Any, hypotheses: Any) -> float | None:
        time.sleep(30)
        return super().score(references, hypotheses)


class ReadsItsInput(FirstRight):
    def score(self, references: Any, hypotheses: Any) -> float | None:
        assert sys.stdin.read() == ""
        sys.stdout.write("x" * 100_000)
        return super().score(references, hypotheses)


class LeavesAProcess(FirstRight):
    def score(self, references: Any, hypotheses: Any) -> float | None:
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,), daemon=True).start()
        return super().score(references, hypotheses)


class Exits(FirstRight):
    def score(self, references: Any, hypotheses: Any) -> float | None:
        sys.exit(3)


class Dies(FirstRight):
    def score(self, references: Any, hypotheses: Any) -> float | None:
        os._exit(3)


def ask(cls: Any, kind: str = "metric") -> None:
    agrees_between_processes(subject_of(kind, cls, {}))


@pytest.mark.parametrize("cls", [FirstRight, ReadsItsInput, LeavesAProcess])
def test_an_honest_component_is_asked(cls: Any) -> None:
    ask(cls)


@pytest.mark.parametrize(("cls", "said"), [(Exits, "got SystemExit: 3"), (Dies, "or a crash"), (Bootstrap, "two diff")])
def test_what_went_wrong_is_said_and_the_next_one_is_asked(cls: Any, said: str) -> None:
    with pytest.raises(ConformanceError, match=said):
        ask(cls)
    ask(FirstRight)


def test_an_interruption_does_not_mix_up_the_answers() -> None:
    ask(FirstRight)
    before = list(processes._workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_ask_both", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ask(Slow)
    assert all(worker.poll() is not None for worker in before)
    with pytest.raises(ConformanceError, match="two different outcomes"):
        ask(Bootstrap)
    ask(FirstRight)


def test_a_worker_that_was_killed_is_replaced() -> None:
    ask(FirstRight)
    os.kill(processes._workers[0].pid, signal.SIGKILL)
    processes._workers[0].wait()
    ask(FirstRight)


def test_where_no_process_can_be_started_the_rule_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    processes._stop_workers()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(NotAskedError, match="no fresh process can be started"):
        ask(FirstRight)


def test_the_processes_see_no_accelerator() -> None:
    processes._stop_workers()
    ask(SmallCTC, "decoder")
    if sys.platform == "linux":
        with open(f"/proc/{processes._workers[0].pid}/environ", "rb") as file:  # noqa: PTH123
            assert b"CUDA_VISIBLE_DEVICES=\x00" in file.read()
