"""A Ray cluster of processes of this computer, each of which is a machine: it may lack files, and may lose power."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def can_isolate() -> bool:
    """Return whether this process may start others that see other files."""
    try:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


class Machines:
    """A cluster whose first machine, on which runs are started, runs no cell.

    Attributes:
        address: for `RAY_ADDRESS`.
    """

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        options = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
        self._head = self._start([*RAY, "start", "--block", *options])
        self._machines: list[subprocess.Popen[Any]] = []
        self._wait_for(1)

    def add(self, *, hide: Sequence[Path] = (), **environment: str) -> int:
        """Add a machine with one CPU, which sees nothing in the folders to hide; return its number."""
        mounts = "".join(f"mount -t tmpfs none {shlex.quote(str(folder))} && " for folder in hide)
        join = shlex.join([*RAY, "start", "--block", f"--address={self.address}", "--num-cpus=1"])
        self._machines.append(self._start([*NAMESPACE, "sh", "-c", f"{mounts}cd / && exec {join}"], **environment))
        self._wait_for(1 + sum(machine.poll() is None for machine in self._machines))
        return len(self._machines) - 1

    def kill(self, number: int) -> None:
        """End a machine with everything on it, as a power failure does."""
        self._machines[number].kill()
        self._machines[number].wait()

    def close(self) -> None:
        """End all machines."""
        for machine in self._machines:
            machine.kill()
            machine.wait()
        self._head.terminate()
        self._head.wait()

    def _start(self, command: list[str], **environment: str) -> subprocess.Popen[Any]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, **quiet, env=os.environ | settings | environment, start_new_session=True)

    def _wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until the cluster has so many machines."""
        program = (
            "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); "
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        command = [sys.executable, "-c", program, self.address]
        end, found = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            asked = subprocess.run(
                command, capture_output=True, text=True, check=False, env=os.environ | {"RAY_AUTH_MODE": "disabled"}
            )
            found = asked.stdout.strip() or asked.stderr[-500:]
            if found.isdigit() and int(found) >= count:
                return
        raise AssertionError(f"the cluster has {found} machines, not {count}")


def kill_agents() -> list[int]:
    """Kill the processes of all actors that run cells, and return their numbers."""
    killed = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if re.match(r"ray::Agent", title):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
    return killed
