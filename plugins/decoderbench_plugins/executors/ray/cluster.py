"""The Ray cluster of a run: that at `$RAY_ADDRESS`, else one that is started on this machine and ends with the run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from decoderbench import ConfigError

logger = logging.getLogger("decoderbench")

ANSWER_SECONDS = 20.0
"""How long a cluster may take to answer."""

CLIENT = "ray://"


def import_ray() -> Any:
    """Return the library; raise `ConfigError` if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError([f"--executor ray needs a library: pip install 'decoderbench[ray]' ({error})"]) from None
    return ray


@dataclass(frozen=True)
class Need:
    """What one slot asks Ray for.

    Attributes:
        cpus: logical CPUs.
        gpus: GPUs; a fraction shares one.
        memory: bytes.
    """

    cpus: float
    gpus: float
    memory: int

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU{'s' * (self.gpus > 1)}" * (self.gpus > 0)
        return f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}{gpus} and {self.memory / 1e9:.1f} GB of memory"

    def count_in(self, resources: dict[str, float]) -> int:
        """Return how many slots fit into the resources of a machine."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0)


class Cluster:
    """A connection to Ray.

    Attributes:
        ray: the library.
        is_own: whether `close` ends the connection: it was made here.
    """

    def __init__(self) -> None:
        """Connect, or start a cluster of this machine.

        Raises:
            ConfigError: Ray is not installed, or no cluster answers within 20 s.
        """
        self.ray = import_ray()
        self.is_own = not self.ray.is_initialized()
        if not self.is_own:
            return
        address = os.environ.get("RAY_ADDRESS", "local")
        if address == "local":
            logger.info("starting a Ray of this machine, which takes some seconds")
        else:
            _refuse_silent(address)
        logging.getLogger("ray").setLevel(logging.ERROR)
        options = {"include_dashboard": False} if address == "local" else {}
        try:
            with _keeping_signal_handlers():
                self.ray.init(address=address, log_to_driver=False, configure_logging=False, **options)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = f"{type(error).__name__}: {' '.join(lines[:1])}"
            raise ConfigError([f"--executor ray: Ray cannot be used ({reason})"]) from error

    def count_slots(self, need: Need) -> int:
        """Return how many slots the machines of the cluster have room for, if nothing else runs there."""
        return sum(need.count_in(node["Resources"]) for node in self.ray.nodes() if node["Alive"])

    def describe_largest(self) -> str:
        """Return the resources of the largest machine."""
        resources = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        sizes = [(one.get("GPU", 0.0), one.get("CPU", 0.0), one.get("memory", 0.0)) for one in resources]
        gpus, cpus, memory = max(sizes, default=(0.0, 0.0, 0.0))
        return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory / 1e9:.1f} GB"

    def close(self) -> None:
        """End the connection, and the cluster if it was started here."""
        if self.is_own:
            with _keeping_signal_handlers():
                self.ray.shutdown()


@contextmanager
def _keeping_signal_handlers() -> Iterator[None]:
    """Restore the handlers of signals behind the block: Ray replaces them, and the run could not save its cells."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # one that is not of Python
                    signal.signal(number, handler)


def _refuse_silent(address: str) -> None:
    """Raise unless a cluster answers; `ray.init` would wait for minutes, or end the process."""
    given = f"RAY_ADDRESS={address}"
    if address.startswith(CLIENT):
        raise ConfigError(
            [
                f"{given}: is an address of Ray Client; start the run on a machine of the cluster, with "
                "RAY_ADDRESS=auto, or with `ray job submit`"
            ]
        )
    program = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"
    command = [sys.executable, "-c", program, address]
    try:
        finished = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ANSWER_SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        output, problem = error.stdout or b"", f"no Ray cluster has answered within {ANSWER_SECONDS:g} s"
    else:
        if finished.returncode == 0:
            return
        output = finished.stdout
        lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        problem = f"no Ray cluster answers there ({' '.join(lines[-1:])})"
    move = "start one with `ray start --head`, or unset RAY_ADDRESS for this machine"
    if b"InvalidAuthToken" in output:
        problem, move = "the Ray cluster there refuses the token", "set RAY_AUTH_MODE=token, as on its machines"
    raise ConfigError([f"{given}: {problem}; {move}"])
