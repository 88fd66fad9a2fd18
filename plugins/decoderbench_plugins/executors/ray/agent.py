"""Agent: the Ray actor of one slot. It runs one cell after the other on its machine, and sends what happens.

The cell itself runs in a process of its own, as with `local`: one that crashes or hangs costs neither the agent nor the
cells of other slots.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from decoderbench import CellOutcome, CellTask, DecoderBenchError, Node, PendingCellsError, PluginError, TravelingWork


@dataclass(frozen=True)
class Arrived:
    """The agent is on a machine.

    Attributes:
        host: the name of the machine.
        sees_results: whether it sees the results folder.
        missing: the files that it needs.
    """

    host: str
    sees_results: bool
    missing: tuple[Path, ...]


@dataclass(frozen=True)
class Broken:
    """No cell can be run on this machine.

    Attributes:
        reason: why.
        exit_code: exit status of the run.
    """

    reason: str
    exit_code: int


@dataclass(frozen=True)
class Ended:
    """A task has ended.

    Attributes:
        outcome: what became of it.
        files: those of its result or of its state, where the machine does not see the results folder.
    """

    outcome: CellOutcome
    files: dict[str, bytes] | None


class Agent:
    """Runs cells on the machine that Ray has chosen. Two calls run at a time: a long one, and `stop`."""

    def __init__(self, traveling: TravelingWork) -> None:
        """Do nothing yet: an exception here would be reported as the death of the actor."""
        self._traveling = traveling
        self._node: Node | None = None
        self._stopping = ""
        self._messages: SimpleQueue[object] = SimpleQueue()

    def arrive(self) -> Arrived | Broken:
        """Find what is missing here."""
        _log_to(self._messages)
        try:
            self._node = Node(self._traveling)
        except (DecoderBenchError, OSError) as error:
            return _broken(error)
        return Arrived(socket.gethostname(), self._node.sees_results, self._node.missing)

    def put(self, file: Path, content: bytes, last: bool) -> Broken | None:
        """Receive a piece of a file; `last` completes it."""
        assert self._node is not None
        try:
            self._node.put(file, content, last=last)
        except (DecoderBenchError, OSError) as error:
            return _broken(error)
        return None

    def open(self, cell_timeout: float | None) -> dict[str, str] | Broken:
        """Load plugins and images, and return the conditions that cells run under here."""
        assert self._node is not None
        try:
            return self._node.open(self._messages.put, cell_timeout=cell_timeout, stopping=lambda: self._stopping)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything when it is loaded
            return _broken(error)

    def run(self, task: CellTask, files: dict[str, bytes]) -> Iterator[object]:
        """Run a cell; yield events and log records as they come, and `Ended` or `Broken` at the end.

        Args:
            task: its task.
            files: what an earlier attempt has left, where the machine does not see the results folder.
        """
        thread = Thread(target=partial(self._run, task, files), daemon=True)
        thread.start()
        while not isinstance(message := self._messages.get(), Ended | Broken):
            yield message
        thread.join()
        yield message

    def stop(self) -> None:
        """Let the cell under way save its state and end."""
        self._stopping = "stopped"

    def close(self) -> None:
        """Delete what was only for this run."""
        if self._node is not None:
            self._node.close()

    def _run(self, task: CellTask, files: dict[str, bytes]) -> None:
        assert self._node is not None
        try:
            self._node.put_files(task.cell, files)
            outcome = self._node.run(task)
            made = (outcome.new or outcome.ended is not None) and not self._node.sees_results
            self._messages.put(Ended(outcome, self._node.take_files(task.cell) if made else None))
        except Exception as error:  # noqa: BLE001 - the run has to know of whatever happens here
            self._messages.put(_broken(error))


def _broken(error: Exception) -> Broken:
    if isinstance(error, PendingCellsError):
        return Broken(error.reason, error.exit_code)
    if isinstance(error, DecoderBenchError):
        return Broken(str(error), error.exit_code)
    if isinstance(error, OSError):  # such as a full disk
        return Broken(f"{type(error).__name__}: {error}", PendingCellsError.exit_code)
    return Broken(f"{type(error).__name__}: {error}", PluginError.exit_code)


def _log_to(messages: SimpleQueue[object]) -> None:
    """Send log records to the run, in the order of the events."""
    root = logging.getLogger()
    root.handlers[:] = [QueueHandler(messages)]
    root.setLevel(logging.WARNING)
    logging.getLogger("decoderbench").setLevel(logging.INFO)
