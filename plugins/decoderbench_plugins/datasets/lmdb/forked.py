"""Calls of functions that may end the process, in a forked process of their own."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from decoderbench import DataError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")
Report = Callable[[int, int], None]
"""Called with the number of items done and their total."""

SECONDS_BETWEEN_REPORTS = 0.1


def call_forked(function: Callable[..., Result], *arguments: object, report: Report, what: str) -> Result:
    """Call a function in a forked process, which it may end, and return its result; outside of Linux call it here.

    Args:
        function: called with the arguments and with a `Report` of its own, which it may call for every item.
        arguments: its positional arguments.
        report: called here with what the function reports, a few times per second; what it raises ends the process.
        what: what the function reads, for the message.

    Raises:
        DataError: the process ended. What the function raises is raised here.
    """
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return function(*arguments, report)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, *arguments), daemon=True)
    with warnings.catch_warnings():
        # This process may have threads, such as those of torch; the forked process does not use them.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        process.start()
    sender.close()
    try:
        while isinstance(message := receiver.recv(), _Progress):
            report(*message)
    except EOFError as end:
        process.join()
        raise DataError(
            f"{what} is corrupt: reading it ended a process (status {process.exitcode}); copy it again"
        ) from end
    finally:
        receiver.close()
        process.kill()
        process.join()
    result, error = message
    if error is not None:
        raise error
    return cast("Result", result)


class _Progress(tuple[int, int]):
    """The arguments of a report, on the way to the process that asked."""


def _send_result(sender: Connection, function: Callable[..., object], *arguments: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    faulthandler.disable()  # the parent reports the error
    sent = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal sent
        if time.monotonic() - sent >= SECONDS_BETWEEN_REPORTS:
            sent = time.monotonic()
            sender.send(_Progress((done, total)))

    try:
        sender.send((function(*arguments, report), None))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        sender.send((None, error))
