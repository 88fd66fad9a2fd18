"""The file of figures: one line of JSON each, on disk before the next figure is measured. No torch here."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


class FigureWriter:
    """Prints the figures of one part of a benchmark, and appends them to a file if there is one.

    Attributes:
        part: the name of the part, such as `smoke`.
        path: the `.jsonl` file; None to print only.
        measured_on: the device, as its figures name it.
        versions: the versions that the figures depend on.
        failed: the names of figures that do not meet their rule.
    """

    def __init__(self, part: str, path: Path | None, measured_on: str, versions: str) -> None:
        self.part, self.path, self.measured_on, self.versions = part, path, measured_on, versions
        self.failed: list[str] = []
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started

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
            name: what was measured, unique within the part. The same rule has the same name in every run, since the
                latest line of a name counts.
            value: the number, a short text, or None if it could not be measured.
            unit: such as `ms`, `images/s` or `1` for a ratio.
            n: number of repetitions behind the value.
            spread: half the range or the standard deviation of these repetitions, in the same unit.
            ok: whether the figure meets its rule; None if there is no rule.
        """
        line = {
            "part": self.part, "name": name, "value": _finite(value), "unit": unit, "n": n, "spread": _finite(spread),
            "ok": ok, "seconds": round(self.elapsed, 2), "versions": self.versions, "device": self.measured_on,
        }  # fmt: skip
        if ok is False:
            self.failed.append(name)
        shown = f"{self.part:12} {name:60} {text_of(line['value'])} {unit} {VERDICTS[ok]}"
        print(shown.rstrip(), flush=True)
        if self.path is not None:
            append_synced(self.path, line)


def with_threads(device: str, threads: object, kind: str) -> str:
    """Return the name of a device, on a CPU with the number of threads."""
    return f"{device}, {threads} thread{'s' * (str(threads) != '1')}" if kind == "cpu" else device


VERDICTS = {None: "", True: "pass", False: "FAIL"}


def text_of(value: object) -> str:
    """Return a figure's value as people read it: four digits of a fraction, whole numbers in full."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def installed_versions() -> str:
    """Return the versions that figures depend on, without an import of torch."""
    return f"Python {platform.python_version()}, torch {version('torch')}, timm {version('timm')}"


def append_synced(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON object as a line; it is on disk when this returns."""
    with path.open("ab") as file:
        file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def cut_incomplete_line(path: Path) -> None:
    """Remove a last line that was not written to its end, so that the next one starts a line."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every benchmark has; the caller may add its own."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--device", help="cpu, cuda or cuda:N; default: CUDA if there is a device")
    found.add_argument("--out", type=Path, help="a .jsonl file to append figures to")
    found.add_argument(
        "--small", action="store_true", help="small sizes and few repetitions, to test the script itself"
    )
    return found


def _finite(value: float | str | bool | None) -> float | str | bool | None:
    """Return a number that is not finite as text, since JSON has none."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
