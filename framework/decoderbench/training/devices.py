"""The device to train on: choice, start, name, synchronization, number formats, and whether it still works."""

from __future__ import annotations

import gc
import platform
import sys
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from decoderbench.errors import ConfigError

SUPPORTED = ("cpu", "cuda")


def choose_device(name: str | None) -> torch.device:
    """Return the named device, or the accelerator if there is one and the CPU if not. CUDA is not started.

    Raises:
        ConfigError: the device is unknown, absent or not supported.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError([f"--device {name}: is not a device; use cpu, cuda or cuda:N"]) from None
    if device.type not in SUPPORTED:
        raise ConfigError([f"--device {name}: is not supported, because nobody has tested it; use cpu or cuda"])
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    index: int | None = device.index
    if index is None:
        started = device.type == "cuda" and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        index = torch.cuda.current_device() if started else 0
    if index >= count:
        have = f"devices 0 to {count - 1}" if count > 1 else "one device" if count else "no CUDA device"
        raise ConfigError([f"--device {name}: PyTorch finds {have} here; choose another, or --device cpu"])
    return torch.device("cuda", index) if device.type == "cuda" else torch.device("cpu")


def start_device(device: torch.device) -> None:
    """Start CUDA on a device and make it the current one, which pinned memory and the like refer to.

    PyTorch keeps workspaces of cuBLAS for each thread from its first product on. They are made here, for this thread
    and that of backward passes, so that the first cell does not seem to need more memory than the others.

    Call it after processes have been forked: a child keeps the descriptors of a CUDA context, and with them its memory.

    Raises:
        ConfigError: CUDA cannot be started on it.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.set_device(device)
        weight = torch.ones(8, 8, device=device, requires_grad=True)
        torch.autograd.backward(F.linear(weight, weight, weight[0]).sum())
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError([f"--device {device}: cannot be used here ({reason}); try --device cpu"]) from None


def use_ieee_float32() -> None:
    """Compute float32 products, convolutions and recurrences in float32 on CUDA, not in TF32.

    cuDNN uses TF32 (10 bits of mantissa) by default, cuBLAS does not, so an nn.LSTM would be computed in another number
    format than a loop over an nn.LSTMCell. The old setting comes first: with the new ones alone, `cudnn.flags` raises.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for path in ("cudnn.conv", "cudnn.rnn", "cuda.matmul"):
        backend: Any = attrgetter(path)(torch.backends)
        backend.fp32_precision = "ieee"


def still_works(device: torch.device) -> bool:
    """Return whether this process can still use a device: some errors of CUDA, such as a failed assert, are final."""
    if device.type != "cuda":
        return True
    try:
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return True  # full, but working
    except RuntimeError:
        return False
    return True


def release_memory(device: torch.device) -> None:
    """Free the tensors that only reference cycles keep alive, and on CUDA the allocator's unused memory.

    An exception is part of a cycle with the frames of its traceback, which hold the model and optimizer of a cell.
    """
    gc.collect()
    if device.type == "cuda":
        with suppress(RuntimeError):  # after an error that is final
            torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """Return the model name of the device, the same for any number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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
