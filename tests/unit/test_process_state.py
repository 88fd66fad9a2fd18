"""Changes of global state are detected, named and restored."""

import builtins
import gc
import locale
import logging
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import ImageFile
from rapidfuzz.distance import Levenshtein
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import decoderbench.metrics
from decoderbench.registry.global_state import (
    changed_state,
    preserving_global_state,
    read_global_state,
    settings,
    undoing_changes,
)

KEPT: list[Any] = []  # what a plugin would keep alive


def enter(context: Any) -> None:
    """Enter a context and never leave it."""
    KEPT.append(context)
    context.__enter__()


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
    "the inference mode": lambda: enter(torch.inference_mode()),
    "the dispatch modes": lambda: enter(TorchDispatchMode()),
    "the function modes": lambda: enter(TorchFunctionMode()),
    "the hooks of all modules and optimizers": lambda: register_optimizer_step_post_hook(lambda *unused: None),
    "the hooks of saved tensors": lambda: enter(torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone)),
    "fast Transformer layers": lambda: torch.backends.mha.set_fastpath_enabled(False),
    "torch.backends.mkldnn.deterministic": lambda: setattr(torch.backends.mkldnn, "deterministic", True),
    "open regions of autocast": lambda: enter(torch.autocast("cpu", enabled=False)),
    "flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "the print options of torch": lambda: torch.set_printoptions(precision=9),
    "the kernels of attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "torch.backends.opt_einsum.enabled": lambda: setattr(torch.backends.opt_einsum, "enabled", "changed"),
    "functions": lambda: setattr(torch.nn.functional, "relu", torch.nn.functional.gelu),
    "NumPy error handling": lambda: np.seterr(all="ignore"),
    "garbage collection": gc.disable,
    "the recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "logging": lambda: logging.disable(logging.CRITICAL),
    "NumPy print options": lambda: np.set_printoptions(precision=3),
    "how Pillow treats damaged and large images": lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    "the warnings filters": lambda: warnings.simplefilter("always"),
    "the locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"),
    "the signal handlers": lambda: signal.signal(signal.SIGTERM, lambda *unused: None),
    "the umask": lambda: os.umask(0o027),
    "the standard streams": lambda: setattr(sys, "stdout", sys.__stderr__),
    "the exception hooks": lambda: setattr(sys, "excepthook", lambda *unused: None),
    "the trace functions": lambda: sys.setprofile(lambda *unused: None),
    "how processes are started": lambda: multiprocessing.set_start_method("spawn", force=True),
    "the processors to run on": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "the seed of torch": lambda: torch.manual_seed(torch.initial_seed() + 1),
    "the random state of torch": lambda: torch.rand(1),
    "the random state of Python": random.random,
    "the random state of NumPy": np.random.rand,
    "the module search path": lambda: sys.path.insert(0, "/nowhere"),
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
        "torch.backends.opt_einsum.strategy",
        "the number of inter-op threads",  # cannot be restored
        "the random state of CUDA",
    }
    assert {setting.name for setting in settings()} == CHANGES.keys() | without_change


def changes_of(change: Callable[[], object]) -> str:
    """Return what is said of a change that was undone."""
    said: list[str] = []
    with undoing_changes(said.append):
        change()
    return "; ".join(said)


@pytest.mark.parametrize(
    ("owner", "name", "full_name"),
    [
        (torch, "matmul", "torch.matmul"),
        (torch.nn, "Linear", "torch.nn.Linear"),
        (torch.nn.functional, "ctc_loss", "torch.nn.functional.ctc_loss"),
        (torch.nn.LSTM, "forward", "torch.nn.modules.rnn.LSTM.forward"),
        (torch.nn.Module, "__call__", "torch.nn.modules.module.Module.__call__"),
        (torch.Tensor, "backward", "torch.Tensor.backward"),
        (torch.Tensor, "__add__", "torch.Tensor.__add__"),  # inherited: a new name in the class
        (torch.nn.utils, "clip_grad_norm_", "torch.nn.utils.clip_grad_norm_"),
        (torch.optim.AdamW, "step", "torch.optim.adamw.AdamW.step"),
        (torch.optim.SGD, "step", "torch.optim.sgd.SGD.step"),
        (timm, "create_model", "timm.create_model"),
        (timm.layers.BatchNormAct2d, "forward", "timm.layers.norm_act.BatchNormAct2d.forward"),
        (Levenshtein, "distance", "rapidfuzz.distance.Levenshtein.distance"),
        (math, "log", "math.log"),
        (random, "random", "random.random"),
        (time, "perf_counter", "time.perf_counter"),
        (np, "mean", "numpy.mean"),
        (builtins, "sum", "builtins.sum"),
        (decoderbench.metrics, "exact_match", "decoderbench.metrics.exact_match"),
    ],
)
def test_replaced_function_is_named_and_put_back(owner: Any, name: str, full_name: str) -> None:
    original = getattr(owner, name)
    assert changes_of(lambda: setattr(owner, name, lambda *unused, **more: None)) == (
        f"changed global state (functions: {full_name}); restored"
    )
    assert getattr(owner, name) == original


def test_deleted_function_is_put_back() -> None:
    assert "torch.Tensor.backward" in changes_of(lambda: delattr(torch.Tensor, "backward"))
    assert callable(torch.Tensor.backward)


def test_use_of_torch_replaces_nothing() -> None:
    def use() -> None:
        torch.nn.functional.a_new_name = torch.relu  # type: ignore[attr-defined]
        layer = torch.nn.Linear(2, 2)
        for optimizer in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.ASGD):
            optimizer(layer.parameters())
        torch.compile(layer, backend="eager")(torch.ones(1, 2))

    assert changes_of(use) == "changed global state (the random state of torch); restored"
    del torch.nn.functional.a_new_name  # type: ignore[attr-defined]


def test_wrapper_of_torch_is_no_change_unless_it_hides_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", original)  # restored at the end

    def wrap(function: Any) -> None:
        torch.manual_seed = torch._disable_dynamo(function)

    assert changes_of(lambda: wrap(original)) == ""
    torch.manual_seed = original
    assert "torch.manual_seed" in changes_of(lambda: wrap(lambda seed: None))
    assert torch.manual_seed is original


def test_numbers_are_those_of_a_fresh_process_after_modes_were_left_on() -> None:
    layer = torch.nn.Linear(3, 3)
    expected = layer(torch.ones(1, 3)).detach().clone()

    def leave_on() -> None:
        enter(torch.inference_mode())
        enter(torch.autocast("cpu", torch.bfloat16))
        enter(torch.device("meta"))
        torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output + 1)

    said = changes_of(leave_on)
    for part in (
        "the inference mode",
        "autocast on cpu",
        "the default device",
        "hooks of all modules and optimizers: forward_hooks",
    ):
        assert part in said
    output = layer(torch.ones(1, 3))
    output.sum().backward()
    assert torch.equal(output, expected)
    assert layer.bias.grad is not None


def test_place_at_the_end_of_the_module_search_path_stays() -> None:
    assert changes_of(lambda: sys.path.append("/nowhere")) == ""
    assert sys.path.pop() == "/nowhere"


def test_first_import_of_rich_changes_nothing() -> None:
    code = (
        "from decoderbench.registry.global_state import undoing_changes\n"
        "with undoing_changes(print):\n"
        "    import rich.style"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == ""


def test_filters_of_a_library_for_its_own_warnings_stay() -> None:
    with warnings.catch_warnings():
        assert changes_of(lambda: warnings.filterwarnings("ignore", module="a_library")) == ""


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
