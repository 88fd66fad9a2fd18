"""Global state of the process that plugins may change: read it, find what changed, restore it."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Setting(NamedTuple):
    """A setting of the whole process: its name in messages, and how to read and write it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _read_environment() -> dict[str, str]:
    """Return the environment without the variables that torch sets: for its compilers, and when CUDA starts."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TORCH", "TRITON")) and name != "CUDA_MODULE_LOADING"
    }


def _set_environment(variables: dict[str, str]) -> None:
    for name in _read_environment():
        del os.environ[name]
    os.environ.update(variables)


def _set_deterministic(modes: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


def _read_torch_random() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


def _set_torch_random(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _read_cuda_random() -> list[bytes]:
    """Return a state per device; none before CUDA is initialized, because reading must not initialize it."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [state.numpy().tobytes() for state in states]


def _set_cuda_random(states: list[bytes]) -> None:
    if states:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states])


def _set_default_device(device: torch.device) -> None:
    # Setting the CPU explicitly, rather than None, would slow down every later call of torch.
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_module_search_path(places: list[str]) -> None:
    sys.path[:] = places


def _backend_setting(path: str) -> Setting:
    """Return the setting at a path such as `cudnn.benchmark` below `torch.backends`."""
    *modules, name = path.split(".")
    backend: Any = torch.backends
    for module in modules:
        backend = getattr(backend, module)
    return Setting(
        f"torch.backends.{path}", lambda: getattr(backend, name), lambda value: setattr(backend, name, value)
    )


def _autocast_setting(device: str) -> Setting:
    def read() -> tuple[bool, torch.dtype]:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def write(state: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, state[0])
        torch.set_autocast_dtype(device, state[1])

    return Setting(f"autocast on {device}", read, write)


# The old settings come first: writing one of them also changes new ones, the `fp32_precision` below.
BACKEND_SETTINGS = (
    "cudnn.allow_tf32",
    "fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "cuda.matmul.fp32_precision",
    "mkldnn.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "cudnn.enabled",
    "mkldnn.enabled",
)

SETTINGS = (
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the default device", torch.get_default_device, _set_default_device),
    Setting("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    Setting("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    *map(_backend_setting, BACKEND_SETTINGS),
    *map(_autocast_setting, ("cpu", "cuda")),
    Setting("NumPy error handling", np.geterr, lambda modes: np.seterr(**modes)),
    Setting("garbage collection", gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    Setting("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("the level of disabled logging", lambda: logging.root.manager.disable, logging.disable),
    Setting("the seed of torch", torch.initial_seed, lambda seed: None),  # restored with the random state
    Setting("the random state of torch", _read_torch_random, _set_torch_random),
    Setting("the random state of CUDA", _read_cuda_random, _set_cuda_random),
    Setting("the random state of Python", random.getstate, random.setstate),
    Setting("the random state of NumPy", lambda: np.random.get_state(legacy=True), np.random.set_state),
    Setting("the module search path", lambda: list(sys.path), _set_module_search_path),
    Setting("the working directory", Path.cwd, os.chdir),
    Setting("the environment", _read_environment, _set_environment),
)


def read_global_state() -> dict[str, Any]:
    """Return every setting by name; for one that cannot be read, the error."""
    return {setting.name: _read(setting) for setting in SETTINGS}


def changed_state(before: dict[str, Any]) -> list[str]:
    """Return the names of the settings that have changed."""
    return [setting.name for setting in SETTINGS if not _same(_read(setting), before[setting.name])]


def restore_global_state(before: dict[str, Any], *, keeping: Collection[str] = ()) -> None:
    """Restore the changed settings, except those named in `keeping`; one that cannot be set is skipped."""
    for setting in SETTINGS:
        # Setting some of them costs time, such as the default device: only changed ones are written.
        if setting.name not in keeping and not _same(_read(setting), before[setting.name]):
            with suppress(Exception):
                setting.write(before[setting.name])


@contextmanager
def preserving_global_state() -> Iterator[None]:
    """Enable gradients in the block, and restore any global state that the block changes."""
    with torch.enable_grad():  # leaving it restores the grad mode, whatever the block set
        before = read_global_state()
        try:
            yield
        finally:
            restore_global_state(before)


def _read(setting: Setting) -> Any:
    try:
        return setting.read()
    except Exception as error:  # noqa: BLE001 - torch cannot read some settings after others; a folder may be gone
        return f"{type(error).__name__}: {error}"


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, tuple):  # NumPy's state holds an array
        return isinstance(right, tuple) and len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    return bool(left == right)
