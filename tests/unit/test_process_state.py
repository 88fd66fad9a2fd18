"""What foreign code switches is found and put back, whatever it was."""

import gc
import logging
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from decoderbench.registry.global_state import SWITCHES, changed_switches, process_state_kept, read_process_state

ACTS: dict[str, Callable[[], object]] = {
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the default device": lambda: torch.set_default_device("meta"),
    "the grad mode": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("high"),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "anomaly detection": lambda: torch.set_anomaly_enabled(True),
    "torch.backends.cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch.backends.mkldnn.enabled": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "the errors of NumPy": lambda: np.seterr(all="ignore"),
    "garbage collection": gc.disable,
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "the level below which nothing is logged": lambda: logging.disable(logging.CRITICAL),
    "the seed of torch": lambda: torch.manual_seed(torch.initial_seed() + 1),
    "the random state of torch": lambda: torch.rand(1),
    "the random state of Python": random.random,
    "the random state of NumPy": np.random.rand,
    "the search path of modules": lambda: sys.path.append("/nowhere"),
    "the working directory": lambda: os.chdir("/"),
    "the environment": lambda: os.environ.update(A_SWITCH="1"),
}


@pytest.mark.parametrize("name", ACTS)
def test_a_switch_is_seen_and_put_back(name: str) -> None:
    before = read_process_state()
    with process_state_kept():
        within = read_process_state()
        ACTS[name]()
        assert name in changed_switches(within)
    assert changed_switches(before) == []


def test_every_switch_is_tried() -> None:
    twins = {"torch.backends.cudnn.deterministic", "torch.backends.cudnn.enabled", "the random state of CUDA"}
    assert {switch.name for switch in SWITCHES} == ACTS.keys() | twins


def test_the_error_of_a_block_is_not_hidden_by_what_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)

    def fail() -> None:
        with process_state_kept():
            os.environ["A_SWITCH"] = "1"
            gone.rmdir()
            raise ValueError("its own error")

    with pytest.raises(ValueError, match="its own error"):
        fail()
    assert "A_SWITCH" not in os.environ
    with process_state_kept():  # a folder that is gone can be no reason to stop
        pass


def test_no_device_is_set_where_none_was() -> None:
    with process_state_kept():
        torch.set_default_device("meta")
    assert not [mode for mode in torch.overrides._get_current_function_mode_stack() if "Device" in type(mode).__name__]
