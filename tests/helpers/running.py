"""The command line, started in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TINY_PLUGIN = Path(__file__).parents[1] / "plugins" / "tiny.py"

# Background jobs of a shell ignore SIGINT, and their child processes inherit that.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from decoderbench.cli import main
main()
"""


def start_command(arguments: list[str], cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start `decoderbench` with these arguments; stderr is merged into stdout."""
    return subprocess.Popen(
        [sys.executable, "-c", START, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def to_toml(data: dict[str, Any]) -> str:
    """Return data as TOML. JSON's strings, numbers and arrays are valid TOML, so only tables are converted."""
    lines, tables = [], []
    for key, value in data.items():
        if isinstance(value, dict):
            tables.append((key, value))
        else:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    for key, value in tables:
        inner = to_toml(value).replace("\n[", f"\n[{json.dumps(key)}.")
        inner = inner.replace("[", f"[{json.dumps(key)}.", 1) if inner.startswith("[") else inner
        lines.append(f"[{json.dumps(key)}]\n{inner}" if not inner.startswith("[") else inner)
    return "\n".join(lines)
