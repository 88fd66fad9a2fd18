"""What foreign code can leave switched in this process: what there is, what changed, and putting it back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Switch(NamedTuple):
    """A setting of the whole process: what it is called, how it is read and how it is set."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _set_deterministic(modes: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


def _read_torch_random() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


def _set_torch_random(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _of_cudnn(name: str) -> Switch:
    cudnn = torch.backends.cudnn
    return Switch(
        f"torch.backends.cudnn.{name}", lambda: getattr(cudnn, name), lambda value: setattr(cudnn, name, value)
    )


SWITCHES = (
    Switch("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Switch("the default device", torch.get_default_device, torch.set_default_device),
    Switch("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Switch("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Switch("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Switch(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    Switch("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    *map(_of_cudnn, ("benchmark", "deterministic", "enabled")),
    Switch("the seed of torch", torch.initial_seed, lambda seed: None),  # comes back with the random state
    Switch("the random state of torch", _read_torch_random, _set_torch_random),
    Switch("the random state of Python", random.getstate, random.setstate),
    Switch("the random state of NumPy", lambda: np.random.get_state(legacy=True), np.random.set_state),
    Switch("the working directory", Path.cwd, os.chdir),
    Switch("the environment", lambda: dict(os.environ), _set_environment),
)


def read_process_state() -> dict[str, Any]:
    """Return every switch by name, as it stands."""
    return {switch.name: switch.read() for switch in SWITCHES}


def changed_switches(before: dict[str, Any]) -> list[str]:
    """Return the names of the switches that stand differently now."""
    return [switch.name for switch in SWITCHES if not _same(switch.read(), before[switch.name])]


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Put back what foreign code switches in a block, in which gradients are on."""
    with torch.enable_grad():  # leaving it restores the mode, whatever was set meanwhile
        before = read_process_state()
        try:
            yield
        finally:
            for switch in SWITCHES:
                # Some are not free to set, such as a default device: only what changed is written.
                if not _same(switch.read(), before[switch.name]):
                    switch.write(before[switch.name])


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, tuple):  # NumPy's state holds an array
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    return bool(left == right)
