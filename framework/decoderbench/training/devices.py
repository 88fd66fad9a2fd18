"""The device to train on: choice, name, synchronization, number format, peak memory."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import torch

from decoderbench.errors import ConfigError


def choose_device(name: str | None) -> torch.device:
    """Return the named device, or the accelerator if there is one and the CPU if not.

    Raises:
        ConfigError: the device is unknown or absent.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"--device {name}: cannot be used here ({reason}); try --device cpu"]) from None
    return device


def device_name(device: torch.device) -> str:
    """Return the model name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {torch.get_num_threads()} threads"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    """Wait until all work on the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """Return bfloat16 if `precision` is bfloat16, or auto and the hardware supports it; else None."""
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    on_cuda = device.type == "cuda"
    native = torch.cuda.get_device_capability(device) >= (8, 0) if on_cuda else "bf16" in _cpu_flags()
    return torch.bfloat16 if native else None


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return  # the peak is then that of the whole process


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak since `reset_peak_memory`: the allocator's on CUDA, resident memory of the process on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def _cpu_flags() -> str:
    """Return the CPU flags for bfloat16 instructions that PyTorch's kernels use."""
    if sys.platform != "linux":
        return ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return " ".join(flag for flag in line.split() if flag in {"avx512_bf16", "amx_bf16"})
        if line.startswith("Features"):  # 64-bit Arm
            return " ".join(flag for flag in line.split() if flag == "bf16")
    return ""
