"""An encoder that does to its process what its option says, in its second training step."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from decoderbench import ComponentConfig, Encoder, FeatureMapSpec, ImageSpec, hookimpl


def print_much() -> None:
    for _ in range(12):
        os.write(1, b"x" * 2**20)
    sys.stderr.write("the end\n")


def change_process() -> None:
    """Leave behind what no guard restores: threads, a closed descriptor, another umask."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    os.close(1)
    os.umask(0o077)
    torch.set_default_dtype(torch.float64)


def leave_a_child() -> None:
    """Leave a child process, then crash."""
    if (child := os.fork()) == 0:
        time.sleep(600)
    os.write(1, f"child {child}\n".encode())
    os.abort()


def raise_in_a_child() -> None:
    """Fork a child process that raises, and go on after its end."""
    if (child := os.fork()) == 0:
        raise RuntimeError("in the child")
    os.waitpid(child, 0)


def print_for_ever() -> None:
    """Leave a thread that prints for as long as the process lives."""

    def print_on() -> None:
        while True:
            os.write(1, b"x" * 2**15)

    threading.Thread(target=print_on, daemon=True).start()


def log_from_threads() -> None:
    """Log messages that are larger than the buffer of a socket, from threads, and wait for their end."""
    logger = logging.getLogger("decoderbench")

    def log() -> None:
        for number in range(10):
            logger.warning("%s of a thread, %d characters", "x" * 300_000, number)

    threads = [threading.Thread(target=log) for _ in range(3)]
    for thread in threads:
        thread.start()
    handler = logging.getLogger().handlers[0]
    for _ in range(10):
        handler.emit(logger.makeRecord("decoderbench", logging.WARNING, "", 0, "y" * 300_000, (), None))
    for thread in threads:
        thread.join()


def spin() -> None:
    while True:
        pass


def sleep_in_c() -> None:
    """Sleep, again after each signal, with the interpreter's lock held."""
    while True:
        ctypes.PyDLL(None).sleep(600)


FAULTS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: sys.exit(0),
    "os_exit": lambda: os._exit(0),
    "exec": lambda: os.execv("/bin/sleep", ["sleep", "600"]),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "spin": spin,
    "sleep": lambda: time.sleep(600),
    "libc_sleep": sleep_in_c,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "print": print_much,
    "change": change_process,
    "child": leave_a_child,
    "memory": lambda: bytearray(2**62),
    "fork": raise_in_a_child,
    "print_for_ever": print_for_ever,
    "log": log_from_threads,
    "default_sigterm": lambda: (signal.signal(signal.SIGTERM, signal.SIG_DFL), time.sleep(600)),
    "ignore_signals": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), time.sleep(600)),
}


class Hostile(Encoder):
    """A convolution, and a fault."""

    name = "hostile"

    class Config(ComponentConfig):
        """Options of `hostile`."""

        fault: str = "none"
        """What happens, a key of `FAULTS`."""

        at_step: int = Field(default=2, ge=1)
        """In which training step."""

    def __init__(self, config: Config, image: ImageSpec) -> None:
        super().__init__(config, image)
        self.conv = nn.Conv2d(image.channels, 8, 4, 4)
        self.features = FeatureMapSpec(channels=8, height=image.height // 4, width=image.width // 4)
        self.config, self.steps = config, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type != "meta":
            self.steps += 1
            if self.steps == self.config.at_step:
                FAULTS[self.config.fault]()
        return self.conv(images).relu()


@hookimpl
def register_encoders() -> list[type[Hostile]]:
    return [Hostile]
