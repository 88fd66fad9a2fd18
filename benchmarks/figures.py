"""The form in which every benchmark reports: one figure per line of JSON, on disk before the next one is measured."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from figure_file import append_synced, figure_line, parser, show

from decoderbench.training.devices import choose_device, device_name, start_device, synchronize

__all__ = ["Figures", "append_synced", "parser", "seconds", "start", "versions"]


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
        line = figure_line(
            self.part, name, value, unit, n=n, spread=spread, ok=ok,
            seconds=time.monotonic() - self._started, versions=versions(), device=device_name(self.device),
        )  # fmt: skip
        if ok is False:
            self.failed.append(name)
        show(line)
        if self.path is not None:
            append_synced(self.path, line)


def versions() -> str:
    """Return the versions that a figure depends on."""
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return f"Python {platform.python_version()}, torch {torch.__version__}{cuda}, timm {timm.__version__}"


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
