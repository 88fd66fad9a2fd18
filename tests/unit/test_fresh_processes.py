"""The two fresh worker processes of the conformance kit survive misbehaving components."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from helpers.small_decoders import SmallCTC
from planted.metrics import Bootstrap, FirstRight

from decoderbench.testing import ConformanceError, RuleSkipped, fresh_processes
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.kits import subject_of


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


def test_interrupt_ends_the_workers_whose_answers_would_be_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(["cat"], start_new_session=True, **pipes) for _ in range(2)]  # they start at once
    monkeypatch.setattr(fresh_processes, "_workers", list(workers))

    def send(job: str) -> None:
        for worker in fresh_processes._workers:
            assert worker.stdin is not None
            worker.stdin.write(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(fresh_processes, "_send_to_all", send)
    with pytest.raises(KeyboardInterrupt):
        check(FirstRight)
    assert [worker.poll() for worker in workers] == [-signal.SIGKILL] * 2
    assert fresh_processes._workers == []  # the next check starts new ones


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
