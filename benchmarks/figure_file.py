"""The file of figures: one line of JSON each, on disk before the next figure is measured. No torch here."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any


def figure_line(
    part: str,
    name: str,
    value: float | str | bool | None,
    unit: str = "",
    *,
    n: int = 1,
    spread: float | None = None,
    ok: bool | None = None,
    seconds: float,
    versions: str,
    device: str,
) -> dict[str, Any]:
    """Return a figure as it is written; `Figures.add` describes the arguments.

    Numbers that are not finite become text, since JSON has none.
    """
    return {
        "part": part, "name": name, "value": _finite(value), "unit": unit, "n": n, "spread": _finite(spread), "ok": ok,
        "seconds": round(seconds, 2), "versions": versions, "device": device,
    }  # fmt: skip


def show(line: dict[str, Any]) -> None:
    """Print a figure as one line of text."""
    verdict = {None: "", True: "pass", False: "FAIL"}[line["ok"]]
    print(f"{line['part']:12} {line['name']:60} {text_of(line['value'])} {line['unit']} {verdict}".rstrip(), flush=True)


def text_of(value: object) -> str:
    """Return a figure's value as people read it: four digits of a fraction, whole numbers in full."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


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
    found.add_argument("--device", help="cpu, cuda or cuda:N; default: the accelerator if there is one")
    found.add_argument("--out", type=Path, help="a .jsonl file to append figures to")
    found.add_argument(
        "--small", action="store_true", help="small sizes and few repetitions, to test the script itself"
    )
    return found


def _finite(value: float | str | bool | None) -> float | str | bool | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
