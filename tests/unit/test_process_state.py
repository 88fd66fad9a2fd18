"""Changes of global state are detected and restored."""

import gc
import logging
import os
import random
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch

from decoderbench.registry.global_state import SETTINGS, changed_state, preserving_global_state, read_global_state


def set_float32(backend: str, precision: str) -> None:
    attrgetter(backend)(torch.backends).fp32_precision = precision


CHANGES: dict[str, Callable[[], object]] = {
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the default device": lambda: torch.set_default_device("meta"),
    "the grad mode": lambda: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "the number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("high"),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "anomaly detection": lambda: torch.set_anomaly_enabled(True),
    "torch.backends.cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "torch.backends.fp32_precision": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "torch.backends.cudnn.fp32_precision": lambda: setattr(torch.backends.cudnn, "fp32_precision", "tf32"),
    "torch.backends.cudnn.conv.fp32_precision": lambda: set_float32("cudnn.conv", "ieee"),
    "torch.backends.cudnn.rnn.fp32_precision": lambda: set_float32("cudnn.rnn", "ieee"),
    "torch.backends.cuda.matmul.fp32_precision": lambda: set_float32("cuda.matmul", "tf32"),
    "torch.backends.mkldnn.fp32_precision": lambda: set_float32("mkldnn", "bf16"),
    "torch.backends.mkldnn.conv.fp32_precision": lambda: set_float32("mkldnn.conv", "bf16"),
    "torch.backends.mkldnn.rnn.fp32_precision": lambda: set_float32("mkldnn.rnn", "bf16"),
    "torch.backends.mkldnn.matmul.fp32_precision": lambda: set_float32("mkldnn.matmul", "bf16"),
    "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction": lambda: setattr(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction": lambda: setattr(
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False
    ),
    "torch.backends.cuda.matmul.allow_fp16_accumulation": lambda: setattr(
        torch.backends.cuda.matmul, "allow_fp16_accumulation", True
    ),
    "torch.backends.cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch.backends.mkldnn.enabled": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "autocast on cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast on cuda": lambda: torch.set_autocast_dtype("cuda", torch.bfloat16),
    "NumPy error handling": lambda: np.seterr(all="ignore"),
    "garbage collection": gc.disable,
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "the level of disabled logging": lambda: logging.disable(logging.CRITICAL),
    "the seed of torch": lambda: torch.manual_seed(torch.initial_seed() + 1),
    "the random state of torch": lambda: torch.rand(1),
    "the random state of Python": random.random,
    "the random state of NumPy": np.random.rand,
    "the module search path": lambda: sys.path.append("/nowhere"),
    "the working directory": lambda: os.chdir("/"),
    "the environment": lambda: os.environ.update(A_SETTING="1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_setting_is_detected_and_restored(name: str) -> None:
    before = read_global_state()
    with preserving_global_state():
        within = read_global_state()
        CHANGES[name]()
        assert name in changed_state(within)
    assert changed_state(before) == []


def test_every_setting_is_tested() -> None:
    without_change = {
        "torch.backends.cudnn.deterministic",
        "torch.backends.cudnn.enabled",
        "the random state of CUDA",
    }
    assert {setting.name for setting in SETTINGS} == CHANGES.keys() | without_change


def test_error_of_the_block_is_raised_although_a_setting_cannot_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)

    def fail() -> None:
        with preserving_global_state():
            os.environ["A_SETTING"] = "1"
            gone.rmdir()
            raise ValueError("its own error")

    with pytest.raises(ValueError, match="its own error"):
        fail()
    assert "A_SETTING" not in os.environ
    with preserving_global_state():  # must not raise although the working directory is gone
        pass


def test_default_device_is_unset_if_it_was_not_set_before() -> None:
    with preserving_global_state():
        torch.set_default_device("meta")
    assert not [mode for mode in torch.overrides._get_current_function_mode_stack() if "Device" in type(mode).__name__]
