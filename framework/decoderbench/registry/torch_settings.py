"""Settings of torch that a plugin may change."""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import Any

import torch
from torch import backends
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _device
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode, _push_mode

from decoderbench.registry.process_settings import Setting

_GLOBAL_HOOKS = {
    name.removeprefix("_global_"): hooks
    for module in (modules, optimizers)
    for name, hooks in vars(module).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
}
"""The hooks that are called for every module or optimizer, by kind."""

_entered: list[Any] = []
"""The inference modes that undo those that a plugin has left; they are never left, which would undo the undoing."""


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


def _read_function_modes() -> tuple[Any, ...]:
    """Return the modes that see every call of torch; the default device is one of them."""
    default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    stack = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return default, _device.CURRENT_DEVICE, tuple(stack)


def _set_function_modes(state: tuple[Any, ...]) -> None:
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for mode in state[2]:
        torch._C._push_on_torch_function_stack(mode)
    torch._GLOBAL_DEVICE_CONTEXT.device_context = state[0]
    _device.CURRENT_DEVICE = state[1]


def _set_dispatch_modes(stack: list[Any]) -> None:
    while torch._C._len_torch_dispatch_stack():
        _pop_mode()
    for mode in stack:
        _push_mode(mode)


def _set_inference_mode(enabled: bool) -> None:
    guard: Any = torch._C._InferenceMode(enabled)
    guard.__enter__()
    _entered.append(guard)


def _read_global_hooks() -> dict[str, Any]:
    return {kind: dict(hooks) for kind, hooks in _GLOBAL_HOOKS.items()}


def _set_global_hooks(hooks: dict[str, Any]) -> None:
    for kind, live in _GLOBAL_HOOKS.items():
        live.clear()
        live.update(hooks[kind])
    if not hooks["backward_hooks"]:
        modules._global_is_full_backward_hook = None


def _read_saved_tensors_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _set_saved_tensors_hooks(hooks: Any) -> None:
    while (top := _read_saved_tensors_hooks()) is not None and top != hooks:
        torch._C._autograd._pop_saved_tensors_default_hooks()
    if top != hooks:
        torch._C._autograd._push_saved_tensors_default_hooks(*hooks)


def _read_autocast_nesting() -> tuple[int, bool]:
    """Return how many regions of autocast are open, and whether they keep converted weights until all are left."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting(), torch.is_autocast_cache_enabled()


def _set_autocast_nesting(state: tuple[int, bool]) -> None:
    depth = _read_autocast_nesting()[0]
    for _ in range(abs(depth - state[0])):
        (torch.autocast_decrement_nesting if depth > state[0] else torch.autocast_increment_nesting)()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(state[1])


def _flushes_denormals() -> bool:
    """Return whether the processor rounds the smallest numbers to zero; torch can set this, not read it."""
    return sys.float_info.min / 2 == 0.0


def _read_attention_kernels() -> tuple[bool, ...]:
    backend: Any = torch.backends.cuda
    return backend.flash_sdp_enabled(), backend.mem_efficient_sdp_enabled(), backend.math_sdp_enabled()


def _set_attention_kernels(enabled: tuple[bool, ...]) -> None:
    backend: Any = torch.backends.cuda
    for enable, wanted in zip(
        (backend.enable_flash_sdp, backend.enable_mem_efficient_sdp, backend.enable_math_sdp), enabled, strict=True
    ):
        enable(wanted)


def _set_print_options(options: dict[str, Any]) -> None:
    vars(torch._tensor_str.PRINT_OPTS).update(options)


def _backend_setting(path: str) -> Setting:
    """Return the setting at a path such as `cudnn.benchmark` below `torch.backends`."""
    *parents, name = path.split(".")
    backend: Any = attrgetter(".".join(parents))(torch.backends) if parents else torch.backends
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
    "mkldnn.deterministic",
    "opt_einsum.enabled",
    "opt_einsum.strategy",
)

# The inference mode comes first: within it, and within modes that see every call, other settings are written wrongly.
TORCH_SETTINGS = (
    Setting("the inference mode", torch.is_inference_mode_enabled, _set_inference_mode),
    Setting("the dispatch modes", _get_current_dispatch_mode_stack, _set_dispatch_modes),
    Setting("the function modes", _read_function_modes, _set_function_modes),
    Setting("the default device", torch.get_default_device, lambda device: None),  # restored with the function modes
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("the number of inter-op threads", torch.get_num_interop_threads, torch.set_num_interop_threads),
    Setting("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(
        "deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    Setting("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    Setting("flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal),
    Setting("the hooks of all modules and optimizers", _read_global_hooks, _set_global_hooks),
    Setting("the hooks of saved tensors", _read_saved_tensors_hooks, _set_saved_tensors_hooks),
    Setting("the print options of torch", lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), _set_print_options),
    *map(_backend_setting, BACKEND_SETTINGS),
    Setting("fast Transformer layers", backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled),
    Setting("the kernels of attention", _read_attention_kernels, _set_attention_kernels),
    *map(_autocast_setting, ("cpu", "cuda")),
    Setting("open regions of autocast", _read_autocast_nesting, _set_autocast_nesting),
    Setting("the seed of torch", torch.initial_seed, lambda seed: None),  # restored with the random state
    Setting("the random state of torch", _read_torch_random, _set_torch_random),
    Setting("the random state of CUDA", _read_cuda_random, _set_cuda_random),
)
