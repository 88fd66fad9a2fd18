"""An executor that starts a process for each cell: what somebody might write for a cluster."""

import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from decoderbench import CellEvent, CellOutcome, CellTask, Executor, hookimpl

PROGRAM = """
import os, pickle, signal, sys

def send(message):
    pickle.dump(message, messages)
    messages.flush()

messages = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
work, task = pickle.load(sys.stdin.buffer)
send(work.open(lambda: "stopped" if stopped else "").run(task, send))
"""


class BySubprocess(Executor):
    """One process per cell, one at a time."""

    name = "by_subprocess"

    def submit(self, tasks: Sequence[CellTask]) -> Iterator[CellOutcome]:
        for task in tasks:
            if self.stopping():
                return
            yield self._run(task)

    def _run(self, task: CellTask) -> CellOutcome:
        started = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        with started as process:
            with process.stdin, open(process.stdin.fileno(), "wb", closefd=False) as file:  # buffered: all is written
                pickle.dump((self.work, task), file)
            for message in self._messages(process):
                if isinstance(message, CellOutcome):
                    return message
                assert isinstance(message, CellEvent)
                self.report(message)
            status = process.wait()
        return self.work.publish_failure(task, "crashed", f"its process ended with status {status}")

    def _messages(self, process: Any) -> Iterator[object]:
        asked = False
        while True:
            ready = select.select([process.stdout], [], [], 0.1)[0]
            if self.stopping() and not asked:
                process.send_signal(signal.SIGTERM)
                asked = True
            if ready:
                try:
                    yield pickle.load(process.stdout)
                except EOFError:
                    return


@hookimpl
def register_executors() -> list[type[BySubprocess]]:
    return [BySubprocess]
