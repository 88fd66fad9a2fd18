"""What foreign code can leave switched in this process: what there is, what changed, and putting it back."""

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


class Switch(NamedTuple):
    """A setting of the whole process: what it is called, how it is read and how it is set."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _read_environment() -> dict[str, str]:
    """Return the environment without what torch tells its own compilers by it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "TRITON"))}


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
    """Return a state for each device, none before CUDA is used: reading must not start it."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [state.numpy().tobytes() for state in states]


def _set_cuda_random(states: list[bytes]) -> None:
    if states:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states])


def _set_default_device(device: torch.device) -> None:
    # Setting the CPU, which is where none is set, would slow down every call of torch from then on.
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_search_path(places: list[str]) -> None:
    sys.path[:] = places


def _of_backend(backend: Any, whose: str, name: str) -> Switch:
    return Switch(
        f"torch.backends.{whose}.{name}", lambda: getattr(backend, name), lambda value: setattr(backend, name, value)
    )


SWITCHES = (
    Switch("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Switch("the default device", torch.get_default_device, _set_default_device),
    Switch("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Switch("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Switch("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Switch(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    Switch("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    *(_of_backend(torch.backends.cudnn, "cudnn", name) for name in ("benchmark", "deterministic", "enabled")),
    _of_backend(torch.backends.mkldnn, "mkldnn", "enabled"),
    Switch("the errors of NumPy", np.geterr, lambda modes: np.seterr(**modes)),
    Switch("garbage collection", gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    Switch("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Switch("the level below which nothing is logged", lambda: logging.root.manager.disable, logging.disable),
    Switch("the seed of torch", torch.initial_seed, lambda seed: None),  # comes back with the random state
    Switch("the random state of torch", _read_torch_random, _set_torch_random),
    Switch("the random state of CUDA", _read_cuda_random, _set_cuda_random),
    Switch("the random state of Python", random.getstate, random.setstate),
    Switch("the random state of NumPy", lambda: np.random.get_state(legacy=True), np.random.set_state),
    Switch("the search path of modules", lambda: list(sys.path), _set_search_path),
    Switch("the working directory", Path.cwd, os.chdir),
    Switch("the environment", _read_environment, _set_environment),
)


def read_process_state() -> dict[str, Any]:
    """Return every switch by name, as it stands; one that cannot be read, why not."""
    return {switch.name: _read(switch) for switch in SWITCHES}


def changed_switches(before: dict[str, Any]) -> list[str]:
    """Return the names of the switches that stand differently now."""
    return [switch.name for switch in SWITCHES if not _same(_read(switch), before[switch.name])]


def put_back(before: dict[str, Any], *, but: Collection[str] = ()) -> None:
    """Set what stands differently now as it was, except for some switches by name; what cannot be set stays."""
    for switch in SWITCHES:
        # Some are not free to set, such as a default device: only what changed is written.
        if switch.name not in but and not _same(_read(switch), before[switch.name]):
            with suppress(Exception):
                switch.write(before[switch.name])


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Put back what foreign code switches in a block, in which gradients are on."""
    with torch.enable_grad():  # leaving it restores the mode, whatever was set meanwhile
        before = read_process_state()
        try:
            yield
        finally:
            put_back(before)


def _read(switch: Switch) -> Any:
    try:
        return switch.read()
    except Exception as error:  # noqa: BLE001 - torch refuses to tell some settings after others; a folder may be gone
        return f"{type(error).__name__}: {error}"


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, tuple):  # NumPy's state holds an array
        return isinstance(right, tuple) and len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    return bool(left == right)
