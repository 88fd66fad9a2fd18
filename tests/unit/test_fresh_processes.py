"""The two fresh worker processes of the conformance kit survive misbehaving components."""

import multiprocessing
import os
import signal
import sys
import time
from typing import Any

import pytest
from helpers.support import SmallCTC
from planted.metrics import Bootstrap, FirstRight

from decoderbench.testing import ConformanceError, RuleSkipped, fresh_processes
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.kits import subject_of


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


def check(cls: Any, kind: str = "metric") -> None:
    fresh_processes_agree(subject_of(kind, cls, {}))


@pytest.mark.parametrize("cls", [FirstRight, ReadsItsInput, LeavesAProcess])
def test_correct_component_passes(cls: Any) -> None:
    check(cls)


@pytest.mark.parametrize(
    ("cls", "message"), [(Exits, "got SystemExit: 3"), (Dies, "got a crash"), (Bootstrap, "two diff")]
)
def test_failure_is_reported_and_next_component_passes(cls: Any, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        check(cls)
    check(FirstRight)


def test_interrupt_does_not_mix_up_answers() -> None:
    check(FirstRight)
    before = list(fresh_processes._workers)
    assert len(before) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_processes, "_send_to_all", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            check(Slow)
    assert all(worker.poll() is not None for worker in before)
    with pytest.raises(ConformanceError, match="two different results"):
        check(Bootstrap)
    check(FirstRight)


@pytest.mark.slow
def test_killed_worker_is_replaced() -> None:
    check(FirstRight)
    os.kill(fresh_processes._workers[0].pid, signal.SIGKILL)
    fresh_processes._workers[0].wait()
    check(FirstRight)


def test_rule_is_skipped_if_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_processes, "_workers", [])
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(RuleSkipped, match="no fresh process can be started"):
        check(FirstRight)


def test_workers_see_no_accelerator() -> None:
    check(SmallCTC, "decoder")
    if sys.platform == "linux":
        with open(f"/proc/{fresh_processes._workers[0].pid}/environ", "rb") as file:  # noqa: PTH123
            assert b"CUDA_VISIBLE_DEVICES=\x00" in file.read()
