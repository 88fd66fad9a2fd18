"""Runs parts of a check one after the other within a budget of seconds. No torch here, and no CUDA.

Every part is a process in a group of its own, so a part that hangs, crashes or poisons its CUDA context costs only
itself. A part writes its figures itself, by `append_synced`, to the `results.jsonl` that the driver also writes to:
a figure called `part` states how each part ended. Exit status 0 of a part means done, 4 that there is work left for the
next call.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from figure_file import append_synced, cut_incomplete_line, installed_versions
from figure_table import print_table

from decoderbench.records.schema import read_lines

ROOT = Path(__file__).parents[1]
GRACE = 5.0  # seconds from SIGINT to SIGKILL
RESERVE = 2.0  # seconds for the table
UNFINISHED = 4  # exit status of a part, or of all, that the next call goes on with
DONE = "done"
LINES_OF_A_FAILURE = 15

RESULTS, LOG, TABLE = "results.jsonl", "log.txt", "table.txt"


@dataclass(frozen=True)
class Part:
    """A part of a check.

    Attributes:
        name: as its figures call it.
        command: returns the command line for a limit in seconds.
        seconds: its share of the budget, relative to those of the other parts. What the parts before it have not used
            of theirs is added to its limit.
        background: runs beside the others from the start, and takes no share.
        after: a part in the background that must have ended first.
    """

    name: str
    command: Callable[[float], Sequence[str]]
    seconds: float
    background: bool = False
    after: str = ""


class Running:
    """A part that runs, and afterwards how it ended."""

    def __init__(self, part: Part, limit: float, log: Path, temporary: str) -> None:
        self.part, self.limit, self.log = part, limit, log
        self.outcome: str | None = None
        self.ok: bool | None = None
        with log.open("ab") as file:
            file.write(f"\n=== {part.name}, limit {limit:.0f} s\n".encode())
            file.flush()
            self._offset = file.tell()
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                part.command(limit), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "TMPDIR": temporary},
            )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def poll(self) -> bool:
        """Return whether it has ended; at its limit, end it."""
        code = self._process.poll()
        if self.outcome is None and code is not None:
            self.signal(signal.SIGKILL)  # what it left running
            known: dict[int, tuple[str, bool | None]] = {0: (DONE, True), UNFINISHED: ("unfinished", None)}
            failed = f"signal {-code}" if code < 0 else f"exit status {code}"
            self.outcome, self.ok = known.get(code, (failed, False))
        elif self.outcome is None and self.seconds >= self.limit:
            stop([self], f"killed at its limit of {self.limit:.0f} s", ok=False)
        return self.outcome is not None

    def last_lines(self) -> str:
        """Return the end of what was printed since its start."""
        with self.log.open("rb") as file:
            file.seek(self._offset)
            printed = file.read().decode(errors="replace")
        return "".join(f"    {line}\n" for line in printed.rstrip().splitlines()[-LINES_OF_A_FAILURE:])

    def signal(self, number: int) -> None:
        """Send a signal to all processes of its group."""
        with suppress(ProcessLookupError, PermissionError):  # all of them have ended
            os.killpg(self._process.pid, number)

    def wait(self, seconds: float) -> None:
        """Wait until its first process has ended, at most so long."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0, seconds))


def stop(parts: Sequence[Running], outcome: str, *, ok: bool | None) -> None:
    """Interrupt the processes of parts, and kill those that are left `GRACE` seconds later."""
    for number in (signal.SIGINT, signal.SIGKILL):
        for part in parts:
            part.signal(number)
        deadline = time.monotonic() + GRACE
        for part in parts:
            part.wait(deadline - time.monotonic())
    for part in parts:
        part.outcome, part.ok = outcome, ok


class Driver:
    """Runs parts within a budget and records how each ended."""

    def __init__(self, folder: Path, budget: float, device: str, interruptions: Collection[int]) -> None:
        self.folder, self.budget, self.device, self.interruptions = folder, budget, device, interruptions
        self.failed = self.has_left_work = False
        self._running: list[Running] = []
        self._started = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds left of the budget in which a part can run."""
        return self.budget - self.used - GRACE - RESERVE

    def run(self, parts: Sequence[Part], temporary: str) -> None:
        """Run parts in order. Each may use its share of the budget and what those before it have left of theirs.

        Raises:
            KeyboardInterrupt: a signal has asked for the end.
        """
        if not parts:
            print("all parts are done; --only runs parts again", flush=True)
            return
        foreground = [part for part in parts if not part.background]
        scale = self.budget / sum(part.seconds for part in foreground or parts)
        for part in parts:
            share = part.seconds * scale
            if part.background:
                self._start(part, share, min(share, self.left), temporary)
        until = 0.0
        for part in foreground:
            self._wait(part.after)
            share, left = part.seconds * scale, self.left
            until += share
            limit = left if part is foreground[-1] else min(max(share, until - self.used), left)
            self._start(part, share, limit, temporary)
            self._wait(part.name)
        while self._running:
            self._wait(self._running[0].part.name)

    def interrupt(self) -> None:
        """Stop what is running."""
        running = tuple(self._running)
        stop(running, "interrupted", ok=None)
        for part in running:
            self._end(part)

    def _start(self, part: Part, share: float, limit: float, temporary: str) -> None:
        """Start a part, unless its limit is less than half of its share."""
        if limit < share / 2:
            self.has_left_work = True
            self._record(part.name, f"not started: {max(0, limit):.0f} s left, its share is {share:.0f} s", None, 0)
            return
        self._running.append(Running(part, limit, self.folder / LOG, temporary))
        print(f"{part.name}: started, limit {limit:.0f} s", flush=True)

    def _wait(self, name: str) -> None:
        """Wait until no part of this name is running."""
        while True:
            if self.interruptions:
                raise KeyboardInterrupt
            if all(running.part.name != name for running in self._running):
                return
            for running in tuple(self._running):
                if running.poll():
                    self._end(running)
            time.sleep(0.05)

    def _end(self, running: Running) -> None:
        assert running.outcome is not None
        self._running.remove(running)
        self._record(running.part.name, running.outcome, running.ok, running.seconds)
        self.has_left_work |= running.ok is None
        if running.ok is False:
            self.failed = True
            print(running.last_lines(), end="", flush=True)

    def _record(self, part: str, outcome: str, ok: bool | None, seconds: float) -> None:
        print(f"{part}: {outcome}, {seconds:.1f} s", flush=True)
        append_synced(self.folder / RESULTS, {
            "part": part, "name": "part", "value": outcome, "unit": "", "n": 1, "spread": None, "ok": ok,
            "seconds": round(seconds, 2), "versions": installed_versions(), "device": self.device,
        })  # fmt: skip


@contextmanager
def recorded_interruptions() -> Iterator[list[int]]:
    """Keep SIGINT and SIGTERM from ending this process at any place, and yield a list that they are appended to."""
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check(
    parts: Sequence[Part], folder: Path, *, budget: float, only: Collection[str] = (), device: str = "cuda"
) -> int:
    """Run the parts that are not done yet, print the table of all figures, and return the exit status.

    Args:
        parts: all of them, in order.
        folder: where files go, and where those of an earlier call are, which is continued.
        budget: seconds for this call.
        only: names of the parts to run, whether they are done or not; default: those that are not done.
        device: where the parts measure. Parts that were done on another device are run again.

    Returns:
        0 if all parts passed, 1 if one failed, 4 if some are left for another call, 130 if interrupted by SIGINT or
        SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut_incomplete_line(folder / RESULTS)
    (folder / TABLE).unlink(missing_ok=True)
    with (
        recorded_interruptions() as interruptions,
        tempfile.TemporaryDirectory(prefix="decoderbench-gpu-check-", ignore_cleanup_errors=True) as temporary,
    ):
        driver = Driver(folder, budget, device, interruptions)
        try:
            driver.run(_chosen(parts, read_lines(folder / RESULTS), only, device), temporary)
            status = 1 if driver.failed else UNFINISHED if driver.has_left_work else 0
        except KeyboardInterrupt:
            driver.interrupt()
            status = 130
    print_table(read_lines(folder / RESULTS), [part.name for part in parts], folder / TABLE)
    return status


def _chosen(
    parts: Sequence[Part], lines: Sequence[dict[str, object]], only: Collection[str], device: str
) -> list[Part]:
    """Return the parts to run. A part in the background runs for those after it: its files stay on the machine."""
    if only:
        return [part for part in parts if part.name in only]
    ends = {line["part"]: line for line in lines if line["name"] == "part" and line["device"] == device}
    pending = [part for part in parts if ends.get(part.name, {}).get("value") != DONE]
    needed = {part.after for part in pending}
    return [part for part in parts if part in pending or part.name in needed]
