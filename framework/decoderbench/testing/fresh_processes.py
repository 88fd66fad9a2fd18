"""Two fresh worker processes that use a component in the same way, with different hash seeds; their results must agree.

The workers import torch once and fork for each component, so no component meets the leftovers of another.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from decoderbench.testing.assertions import RuleSkipped, expect
from decoderbench.testing.subjects.base import Subject

WORKER = "decoderbench.testing.fresh_process_worker"
HASH_SEEDS = (1, 2)
TIME_LIMIT = 120  # seconds per component

_workers: list[subprocess.Popen[str]] = []


def fresh_processes_agree(subject: Subject) -> None:
    """Two fresh processes that use the component in the same way get bitwise equal results."""
    job = json.dumps(_describe_job(subject))
    start_workers()
    try:
        answers = [json.loads(answer) for answer in _send_to_all(job)]
    except BaseException:
        _stop_workers()  # otherwise their next answer would be the one to this job
        raise
    if reason := next((answer["not_found"] for answer in answers if "not_found" in answer), None):
        raise RuleSkipped(reason)
    digests = [answer.get("digest") for answer in answers]
    timeout = f"a crash, or no result within {TIME_LIMIT} s"
    error = next((answer["error"] for answer in answers if "error" in answer), timeout)
    expect(None not in digests, got=error, do="make it work in a process that has imported its own file only")
    expect(
        len(set(digests)) == 1,
        got="two different results from one seed",
        do="depend on torch's seed only: not on hash(), the order of a set, the time, or other random generators",
    )


def start_workers() -> None:
    """Start both workers, which import torch while the caller goes on; do nothing if they are running.

    Raises:
        RuleSkipped: this Python cannot start another process.
    """
    if any(worker.poll() is not None for worker in _workers):
        _stop_workers()
    if _workers:
        return
    # Hide accelerators: the rule compares CPU kernels, and autograd refuses to work in a fork if it has seen one.
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"), "")
    environment = os.environ | hidden | {"PYTHONPATH": os.pathsep.join(str(place) for place in sys.path if place)}
    try:
        _workers.extend(_start_worker(environment | {"PYTHONHASHSEED": str(seed)}) for seed in HASH_SEEDS)
    except OSError as error:
        _stop_workers()
        raise RuleSkipped(f"no fresh process can be started: {error}") from None
    atexit.register(_stop_workers)


def _start_worker(environment: dict[str, str]) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # A session of its own: Ctrl-C interrupts the caller only. -P: do not import torch.py from the working directory.
    return subprocess.Popen([sys.executable, "-P", "-m", WORKER], env=environment, start_new_session=True, **pipes)


def _send_to_all(job: str) -> list[str]:
    """Send a job to both workers, and return their answers."""
    for worker in _workers:
        assert worker.stdin is not None
        worker.stdin.write(job + "\n")
        worker.stdin.flush()
    return [worker.stdout.readline() or "{}" for worker in _workers if worker.stdout is not None]


def _stop_workers() -> None:
    for worker in _workers:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)  # includes the forked child
        else:
            worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    _workers.clear()


def _describe_job(subject: Subject) -> dict[str, Any]:
    module = sys.modules.get(subject.cls.__module__)
    file = getattr(module, "__file__", None)
    if "<locals>" in subject.cls.__qualname__ or file is None:
        raise RuleSkipped("it is defined inside a function or a notebook, where a fresh process cannot find it")
    options = subject.options if subject.kind == "metric" else subject.config.model_dump(mode="json")
    return {
        "kind": subject.kind,
        "module": subject.cls.__module__,
        "file": str(Path(file).resolve()),
        "class": subject.cls.__qualname__,
        "options": options,
        "base_dir": str(subject.base_dir.resolve()),
    }
