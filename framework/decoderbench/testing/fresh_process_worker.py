"""The program of a worker of `fresh_processes`: reads jobs from standard input and writes one answer per line."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from decoderbench.registry.plugin_loading import import_file
from decoderbench.testing.fresh_processes import TIME_LIMIT
from decoderbench.testing.kits import subject_of


def serve() -> None:
    """Answer jobs until standard input ends."""
    torch.set_num_threads(1)
    # A component may read standard input or print: move the pipes to other file descriptors.
    jobs, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in jobs:
        answers.write(_answer_in_fork(json.loads(line)) + "\n")
        answers.flush()


def _answer_in_fork(job: dict[str, Any]) -> str:
    """Return the answer to a job as JSON, computed by a forked child if that is safe; "{}" if the child crashes."""
    if sys.platform != "linux":
        return json.dumps(_answer(job))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(TIME_LIMIT)  # also ends the child if its parent is gone
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(_answer(job)) + "\n")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.readline()  # not `read`: processes that the child leaves running hold the pipe open
    os.waitpid(child, 0)
    return answer.strip() or "{}"


def _answer(job: dict[str, Any]) -> dict[str, str]:
    try:
        found: Any = _load_module(job["module"], job["file"])
        for name in job["class"].split("."):
            found = getattr(found, name)
    except Exception as error:  # noqa: BLE001 - plugin code may raise anything
        return {"not_found": f"a fresh process cannot load it: {type(error).__name__}: {error}"}
    digest = hashlib.sha256()
    try:
        for outcome in subject_of(job["kind"], found, job["options"], Path(job["base_dir"])).outcomes():
            digest.update(outcome)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        return {"error": f"{type(error).__name__}: {error}"}
    return {"digest": digest.hexdigest()}


def _load_module(name: str, file: str) -> ModuleType:
    """Import a module by name if the name leads to the file, else from the file."""
    try:
        module = importlib.import_module(name)
        found = getattr(module, "__file__", None)
        if found is not None and Path(found).resolve() == Path(file):
            return module
    except ImportError:
        pass
    return import_file(name, Path(file))


if __name__ == "__main__":
    serve()
