"""Processes forked from this one, which has imported everything, so that a run starts in milliseconds."""

import faulthandler
import multiprocessing.util
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Child:
    """A forked process, leader of a process group of its own.

    Attributes:
        pid: its number.
        output: the file that receives what it prints.
        status: its exit status, minus the signal that ended it; None while it runs.
    """

    pid: int
    output: Path
    status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds: float = 120.0) -> int:
        """Wait until it ends and return its exit status; kill it and raise TimeoutError if it does not."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill_group()
                raise TimeoutError(f"still running after {seconds} s:\n{self.printed()}")
            time.sleep(0.002)
        assert self.status is not None
        return self.status

    def kill(self) -> bool:
        """Kill the process alone; return False if it had ended."""
        return self._kill(os.kill)

    def kill_group(self) -> bool:
        """Kill the process and those that it has started; return False if it had ended."""
        return self._kill(os.killpg)

    def printed(self) -> str:
        """Return what it has printed."""
        return self.output.read_text(errors="replace")

    def _kill(self, kill: Callable[[int, int], None]) -> bool:
        if self.poll() is not None:
            return False
        kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def fork(function: Callable[[], int], output: Path) -> Child:
    """Run a function in a forked process, which exits with the status that it returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of pytest hold no lock that a run needs
        pid = os.fork()
    if pid:
        return Child(pid, output)
    status = 70
    try:
        os.setsid()
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        status = function()
    except BaseException:  # noqa: BLE001 - nothing may return into pytest
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def spawn_by_fork() -> None:
    """Let `multiprocessing` fork the processes that it would start anew, which takes seconds of imports each."""

    def spawn(path: object, arguments: Sequence[str], descriptors: Iterable[int]) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            kept = {0, 1, 2, *descriptors}
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
                if int(name) not in kept:
                    with suppress(OSError):
                        os.close(int(name))
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            exec(arguments[-1], {"__name__": "__main__"})
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may return into the run
            traceback.print_exc()
        finally:
            os._exit(status)

    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[assignment]


def descendants_of(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started, as far as they still run."""
    found, queue = [], [parent]
    while queue:
        children = children_of(queue.pop())
        found += children
        queue += children
    return found


def wait_for_end(processes: Sequence[int], seconds: float = 20.0) -> list[int]:
    """Wait until processes have ended, and return those that still run after some seconds."""
    end = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.005)
    return [pid for pid in processes if is_alive(pid)]


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended but was not waited for does not."""
    return _state_of(pid) not in "ZX"


def is_stopped(pid: int) -> bool:
    """Return whether a process was stopped, as by SIGSTOP."""
    return _state_of(pid) == "T"


def _state_of(pid: int) -> str:
    """Return the letter of the state of a process; X if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
