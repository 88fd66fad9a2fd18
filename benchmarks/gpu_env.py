"""The machine of a GPU check: versions, settings, and three rates that bound what a recognizer can reach.

    python benchmarks/gpu_env.py [--device cuda] [--out FILE.jsonl] [--json env.json] [--small]

Rates are medians of rounds after a warm-up, on random data: bytes read and written by a copy on the device, and
multiply-accumulates of a large matrix product, counted as two operations, in bfloat16 and in float32. The errors of a
float32 product and convolution show whether they are computed in float32: TF32 rounds to 10 bits, some 1e-4.
`nvidia-smi` is only read.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from figures import Figures, parser, seconds, start
from torch import Tensor

from decoderbench.files.storage import write_atomically
from decoderbench.training.devices import use_ieee_float32
from decoderbench.training.provenance import describe_arithmetic, describe_environment

ROOT = Path(__file__).parents[1]
ROUNDS, SMALL_ROUNDS = 7, 3
CALLS = 4  # of a round, so that the wait at its end counts little
LARGEST_ERROR = 1e-5
QUERY = (
    "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,"
    "power.draw,power.limit,compute_mode,mig.mode.current,ecc.mode.current"
)


def measure(figures: Figures, name: str, call: Callable[[], object], amount: float, unit: str, small: bool) -> None:
    """Record the rate of a function that moves or computes `amount` (10^9 bytes or 10^12 operations) in a call."""

    def some_calls() -> None:
        for _ in range(CALLS):
            call()

    some_calls()  # warm-up
    rounds = SMALL_ROUNDS if small else ROUNDS
    rates = [CALLS * amount / seconds(figures.device, some_calls) for _ in range(rounds)]
    figures.add(name, statistics.median(rates), unit, n=rounds, spread=(max(rates) - min(rates)) / 2)


def measure_copy(figures: Figures, small: bool) -> None:
    """Record the rate of a copy."""
    source = torch.rand(2**20 if small else 2**28, device=figures.device)
    target = torch.empty_like(source)
    gigabytes = 2 * source.numel() * source.element_size() / 1e9
    measure(figures, "copy, bytes read and written", partial(target.copy_, source), gigabytes, "GB/s", small)


def measure_products(figures: Figures, small: bool) -> None:
    """Record the rates of matrix products."""
    size = 256 if small else 8192
    left, right = (torch.randn(size, size, device=figures.device) for _ in range(2))
    for dtype in (torch.bfloat16, torch.float32):
        product = partial(torch.mm, left.to(dtype), right.to(dtype))
        name = f"matrix product, {size}, {str(dtype).removeprefix('torch.')}"
        measure(figures, name, product, 2 * size**3 / 1e12, "TFLOP/s", small)


def check_float32(figures: Figures) -> None:
    """Record the errors of a float32 product and convolution, relative to float64 on the CPU."""

    def record(name: str, call: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor) -> None:
        exact = call(*(value.double() for value in inputs))
        found = call(*(value.to(figures.device) for value in inputs)).cpu().double()
        error = float((found - exact).norm() / exact.norm())
        figures.add(f"{name} in float32, relative error", error, "1", ok=error < LARGEST_ERROR)

    draws = torch.Generator().manual_seed(0)
    square = (512, 512)
    record("matrix product", torch.mm, torch.randn(square, generator=draws), torch.randn(square, generator=draws))
    images, weights = torch.randn(8, 64, 32, 32, generator=draws), torch.randn(64, 64, 3, 3, generator=draws)
    record("convolution", F.conv2d, images, weights)


def nvidia_smi(*arguments: str) -> str:
    """Return what nvidia-smi prints, or the reason why it prints nothing."""
    try:
        finished = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=8)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not available: {error}"
    return finished.stdout.strip() or finished.stderr.strip()


def query(index: int) -> dict[str, str]:
    """Return clocks, memory and modes of a device as nvidia-smi names them."""
    printed = nvidia_smi(f"--id={index}", f"--query-gpu={QUERY}", "--format=csv,noheader")
    values = [value.strip() for value in printed.split(",")]
    names = QUERY.split(",")
    return dict(zip(names, values, strict=True)) if len(values) == len(names) else {"error": printed}


def without_numbers_of_the_device(lines: list[str]) -> list[str]:
    """Return the lines that may be published: without serial numbers and the like."""
    return [line for line in lines if not re.search("serial|uuid|board", line, re.IGNORECASE)]


def describe_cuda(device: torch.device) -> dict[str, Any]:
    """Return what PyTorch and nvidia-smi say of the device."""
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    return {
        "multiprocessors": properties.multi_processor_count,
        "free_mb": free / 1e6,
        "total_mb": total / 1e6,
        "architectures": torch.cuda.get_arch_list(),
        "processes": nvidia_smi("--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"),
        "before": query(device.index or 0),
        "nvidia_smi": without_numbers_of_the_device(nvidia_smi("-q", f"--id={device.index or 0}").splitlines()),
    }


def commit() -> str:
    """Return the commit of this checkout, or an empty string if it is none."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=8).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def write(found: dict[str, Any], path: Path | None) -> None:
    """Write versions and settings to a file, if there is one."""
    if path is not None:
        write_atomically(path, json.dumps(found, indent=1).encode())


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--json", type=Path, help="a file for versions and settings")
    given = arguments.parse_args()
    figures = start("env", given)
    device = figures.device
    use_ieee_float32()
    found: dict[str, Any] = {
        "environment": describe_environment(device),
        "arithmetic": describe_arithmetic(device),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "checkout": commit(),
    }
    if device.type == "cuda":
        found["device"] = describe_cuda(device)
    write(found, given.json)  # in case what follows does not end
    measure_copy(figures, given.small)
    measure_products(figures, given.small)
    if device.type == "cuda":
        found["device"]["after"] = query(device.index or 0)
        for name in ("memory.used", "clocks.sm", "power.draw"):
            for when in ("before", "after"):
                figures.add(f"{name} {when} the products", found["device"][when].get(name, "unknown"))
    check_float32(figures)
    write(found, given.json)
    for name in ("python", "torch", "cuda", "cudnn", "driver", "timm", "commit"):
        if value := found["environment"].get(name):
            figures.add(name, value)
    for name, value in found["arithmetic"].items():
        figures.add(name, value)
    raise SystemExit(bool(figures.failed))


if __name__ == "__main__":
    main()
