"""The random states that the training of a cell may draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def read_random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of torch on the CPU and on a CUDA device, of Python and of NumPy, by name."""
    return {
        "torch": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
        "python": random.getstate(),
        "numpy": _without_arrays(np.random.get_state(legacy=False)),
    }


def write_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set the states that are given to what `read_random_states` returned."""
    if "torch" in states:
        torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    if "python" in states:
        random.setstate(states["python"])
    if "numpy" in states:
        np.random.set_state(states["numpy"])


def _without_arrays(value: Any) -> Any:
    """Return a state of NumPy with lists for arrays: it can be compared and written as JSON."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _without_arrays(part) for key, part in value.items()}
    return value
