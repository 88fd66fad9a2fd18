"""Where a result comes from: machine, versions and commit, for its record."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from decoderbench.training.devices import device_name

PACKAGE = Path(__file__).parents[1]


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return machine, system, threads, versions and commit, by name."""
    return {
        "machine": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "decoderbench")},
        "commit": _commit(),
    }


def _commit() -> str:
    """Return the commit of the source tree that contains this package, or an empty string if there is none."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        finished = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=10)
        return finished.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # a virtual environment may be inside another project's tree
        changed = git("status", "--porcelain", "--", "..", "../../plugins")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
