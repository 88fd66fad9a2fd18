"""StopSignals: the first SIGINT or SIGTERM asks a run to save and end, the second one ends the process at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from decoderbench.deadline import NO_DEADLINE, Deadline

logger = logging.getLogger("decoderbench")

SAME_SECONDS = 0.3
"""Signals this close together are one request: `timeout` sends one to the process and one to its group."""

WATCHED = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Why a run is to stop: a signal, or its deadline. A context manager that handles the signals in its block.

    Signals are handled in the main thread only, which Python allows alone; in other threads, such as those of some
    notebooks, Ctrl-C raises `KeyboardInterrupt` in the main thread as usual.

    Attributes:
        received: the first signal; None until then.
    """

    def __init__(self, deadline: Deadline = NO_DEADLINE) -> None:
        self.deadline = deadline
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._ended = self._announced = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # nohup and the like: ignored on purpose
                    self._before[number] = before
                    signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def reason(self) -> str:
        """Return why the run is to stop, as in "stopped by SIGTERM"; an empty string if it is not."""
        return self.request() or ("the run ends" if self._ended else "")

    def request(self) -> str:
        """Return the signal or the deadline that stops the run, as `reason` does; an empty string if there is none."""
        if self.received is not None:
            if not self._announced:  # not in the handler, which may interrupt something that prints
                self._announced = True
                logger.warning("%s: saving the cells under way; again to end at once", self.received.name)
            return f"stopped by {self.received.name}"
        return f"stopped after {self.deadline.seconds:g} s" if self.is_out_of_time() else ""

    def is_out_of_time(self) -> bool:
        """Return whether the deadline has passed and no signal came before."""
        return self.received is None and self.deadline.remaining() <= 0

    def end(self) -> None:
        """Let the run stop because one of its cells cannot go on."""
        self._ended = True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), now
        elif now - self._received_at > SAME_SECONDS:
            # By the signal itself, so that the parent process knows; workers die with this one.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
