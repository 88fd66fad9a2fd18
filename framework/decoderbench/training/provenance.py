"""Where a result comes from: machine, versions and commit, for its record."""

from __future__ import annotations

import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import torch

from decoderbench.sources import package_digest
from decoderbench.training.devices import autocast_dtype, device_name

PACKAGE = Path(__file__).parents[1]


def describe_environment(device: torch.device) -> dict[str, str]:
    """Return machine, system, threads, versions, commit and a digest of this package's sources, by name.

    Also the number format that `training.precision = "auto"` means there, the instruction set that PyTorch uses on a
    CPU, and on CUDA the versions of CUDA and its parts.
    """
    return {
        "machine": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "decoderbench")},
        "commit": _commit(),
        "sources": package_digest(),
        "auto_precision": str(autocast_dtype(device, "auto") or torch.float32).removeprefix("torch."),
        **(_describe_cuda(device) if device.type == "cuda" else {"cpu_capability": _cpu_capability()}),
    }


def describe_arithmetic(device: torch.device) -> dict[str, str]:
    """Return the settings, as they are now, that decide how float32 is computed: `ieee`, or the parts that are not.

    The number of threads is one of them, because it decides the order of sums; a component may have changed it.
    """
    on_cuda = device.type == "cuda"
    product, library = ("cuda.matmul", "cudnn") if on_cuda else ("mkldnn.matmul", "mkldnn")
    backends = {"products": product, "convolutions": f"{library}.conv", "recurrences": f"{library}.rnn"}
    formats = {part: attrgetter(f"{path}.fp32_precision")(torch.backends) for part, path in backends.items()}
    others = [f"{part} in {name}" for part, name in formats.items() if name not in ("ieee", "none")]
    settings = {"float32": ", ".join(others) or "ieee", "threads": str(torch.get_num_threads())}
    if on_cuda:
        settings["cudnn_benchmark"] = str(torch.backends.cudnn.benchmark)
        settings["cudnn_deterministic"] = str(torch.backends.cudnn.deterministic)
    return settings


def _cpu_capability() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _describe_cuda(device: torch.device) -> dict[str, str]:
    return {
        "cuda": str(torch.version.cuda or torch.version.hip),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "driver": _driver_version(),
        "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
    }


def _driver_version() -> str:
    """Return the version of NVIDIA's driver, or an empty string if it cannot be found."""
    for file in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version"):
        with suppress(OSError):
            if numbers := re.findall(r"\d+\.\d+(?:\.\d+)?", Path(file).read_text(encoding="utf-8", errors="replace")):
                return str(numbers[0])
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        finished = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
        return finished.stdout.partition("\n")[0].strip()
    return ""


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
