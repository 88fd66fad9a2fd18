"""Two fresh processes that do the same with a component, each with its own order of sets: do they agree?

They import torch once and fork for each component, so that none meets what another left behind.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from decoderbench.registry.plugin_loading import import_file
from decoderbench.testing.checks import Subject
from decoderbench.testing.rules import NotAskedError, require

SERVE = "from decoderbench.testing.processes import serve; serve()"
HASH_SEEDS = (1, 2)
LONGEST = 120  # seconds for one component

_workers: list[subprocess.Popen[str]] = []


def agrees_between_processes(subject: Subject) -> None:
    """Two fresh processes that do the same with it get the same, to the last bit."""
    job = json.dumps(_job(subject))
    start_workers()
    try:
        answers = [json.loads(answer) for answer in _ask_both(job)]
    except BaseException:
        _stop_workers()  # their next answer would be to this job
        raise
    if reason := next((answer["not_found"] for answer in answers if "not_found" in answer), None):
        raise NotAskedError(reason)
    digests = [answer.get("digest") for answer in answers]
    error = next((answer["error"] for answer in answers if "error" in answer), f"no end within {LONGEST} s, or a crash")
    require(None not in digests, got=error, do="let it work in a process that has imported nothing but its own file")
    require(
        len(set(digests)) == 1,
        got="two different outcomes of one seed",
        do="depend on torch's seed alone: not on hash() or the order of a set, the time, or random numbers of your own",
    )


def start_workers() -> None:
    """Start both, which then import torch while the caller goes on; once is enough.

    Raises:
        NotAskedError: this Python cannot start another one.
    """
    if any(worker.poll() is not None for worker in _workers):
        _stop_workers()
    if _workers:
        return
    # No accelerator: what is compared are CPU kernels, and autograd refuses to work in a fork where it saw one.
    hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"), "")
    environment = os.environ | hidden | {"PYTHONPATH": os.pathsep.join(str(place) for place in sys.path if place)}
    try:
        _workers.extend(_start(environment | {"PYTHONHASHSEED": str(seed)}) for seed in HASH_SEEDS)
    except OSError as error:
        _stop_workers()
        raise NotAskedError(f"no fresh process can be started: {error}") from None
    atexit.register(_stop_workers)


def serve() -> None:
    """Answer jobs, one a line, until there are no more."""
    import torch

    torch.set_num_threads(1)
    # What torch imports at the first step of an optimizer is imported here, for all children.
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.SGD([parameter], lr=1.0).step()
    # A component may read its standard input, and what it prints is no reply.
    jobs, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in jobs:
        replies.write(_forked(json.loads(line)) + "\n")
        replies.flush()


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Apart from the caller, whose interruption it is, and from files of the working directory such as torch.py.
    return subprocess.Popen([sys.executable, "-P", "-c", SERVE], env=environment, start_new_session=True, **pipes)


def _ask_both(job: str) -> list[str]:
    for worker in _workers:
        assert worker.stdin is not None
        worker.stdin.write(job + "\n")
        worker.stdin.flush()
    return [worker.stdout.readline() or "{}" for worker in _workers if worker.stdout is not None]


def _stop_workers() -> None:
    for worker in _workers:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)  # and the child that is at work
        else:
            worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    _workers.clear()


def _job(subject: Subject) -> dict[str, Any]:
    module = sys.modules.get(subject.cls.__module__)
    file = getattr(module, "__file__", None)
    if "<locals>" in subject.cls.__qualname__ or file is None:
        raise NotAskedError("it is defined inside a function or a notebook, where a fresh process cannot find it")
    options = subject.options if subject.kind == "metric" else subject.config.model_dump(mode="json")
    return {
        "kind": subject.kind,
        "module": subject.cls.__module__,
        "file": str(Path(file).resolve()),
        "class": subject.cls.__qualname__,
        "options": options,
        "base_dir": str(subject.base_dir.resolve()),
    }


def _forked(job: dict[str, Any]) -> str:
    """Return the answer to a job, made by a child where that is safe; an empty one if the child gives none."""
    if sys.platform != "linux":
        return json.dumps(_answer(job))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(LONGEST)  # also where nobody is left to wait
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(_answer(job)) + "\n")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.readline()  # and not all: what the child leaves running holds the pipe, too
    os.waitpid(child, 0)
    return answer.strip() or "{}"


def _answer(job: dict[str, Any]) -> dict[str, str]:
    from decoderbench.testing import subject_of

    try:
        found: Any = _load(job["module"], job["file"])
        for name in job["class"].split("."):
            found = getattr(found, name)
    except Exception as error:  # noqa: BLE001 - whatever foreign code raises
        return {"not_found": f"a fresh process cannot load it: {type(error).__name__}: {error}"}
    digest = hashlib.sha256()
    try:
        for part in subject_of(job["kind"], found, job["options"], Path(job["base_dir"])).outcome():
            digest.update(part)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        return {"error": f"{type(error).__name__}: {error}"}
    return {"digest": digest.hexdigest()}


def _load(name: str, file: str) -> ModuleType:
    """Import a module by its name if that leads to its file, else from the file."""
    try:
        module = importlib.import_module(name)
        found = getattr(module, "__file__", None)
        if found is not None and Path(found).resolve() == Path(file):
            return module
    except ImportError:
        pass
    return import_file(name, Path(file))
