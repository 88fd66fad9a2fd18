"""The form in which every benchmark reports: one figure per line of JSON, on disk before the next one is measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from decoderbench.training.devices import choose_device, device_name, start_device, synchronize


@dataclass
class Figures:
    """Prints the figures of one part of a benchmark, and appends them to a file if there is one.

    Attributes:
        part: the name of the part, such as `smoke`.
        device: where it measures.
        path: the `.jsonl` file; None to print only.
    """

    part: str
    device: torch.device
    path: Path | None = None
    failed: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def add(
        self,
        name: str,
        value: float | str | bool | None,
        unit: str = "",
        *,
        n: int = 1,
        spread: float | None = None,
        ok: bool | None = None,
    ) -> None:
        """Record a figure.

        Args:
            name: what was measured, unique within the part.
            value: the number, a short text, or None if it could not be measured.
            unit: such as `ms`, `images/s` or `1` for a ratio.
            n: number of repetitions behind the value.
            spread: half the range or the standard deviation of these repetitions, in the same unit.
            ok: whether the figure meets its rule; None if there is no rule.
        """
        line = {
            "part": self.part, "name": name, "value": value, "unit": unit, "n": n, "spread": spread, "ok": ok,
            "seconds": round(time.monotonic() - self._started, 2), "versions": versions(),
            "device": device_name(self.device),
        }  # fmt: skip
        if ok is False:
            self.failed.append(name)
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{self.part:12} {name:60} {shown} {unit} {'' if ok is None else 'pass' if ok else 'FAIL'}", flush=True)
        if self.path is not None:
            append_synced(self.path, line)


def append_synced(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON object as a line; it is on disk when this returns."""
    with path.open("ab") as file:
        file.write((json.dumps(line) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def versions() -> str:
    """Return the versions that a figure depends on."""
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return f"Python {platform.python_version()}, torch {torch.__version__}{cuda}, timm {timm.__version__}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every benchmark has; the caller may add its own."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--device", help="cpu, cuda or cuda:N; default: the accelerator if there is one")
    found.add_argument("--out", type=Path, help="a .jsonl file to append figures to")
    found.add_argument("--small", action="store_true", help="small sizes and few repetitions, to test the script itself")
    return found


def start(part: str, given: argparse.Namespace) -> Figures:
    """Start the device and return the writer of a part's figures."""
    device = choose_device(given.device)
    start_device(device)
    return Figures(part, device, given.out)


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Return the seconds that a function takes, with the device synchronized before and after."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin
