"""The whole state of a module, for a checkpoint: its `state_dict` and all of its buffers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def state_of(module: nn.Module) -> dict[str, Any]:
    """Return the weights, all buffers, those that are not persistent too, and any extra state; tensors are not copied.

    Attributes of other kinds are not part of it, so a module whose training depends on them cannot be continued.
    """
    return {"weights": module.state_dict(), "buffers": dict(module.named_buffers(remove_duplicate=False))}


def load_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load what `state_of` returned for a module from which `difference` finds none.

    A buffer that the other module had created, resized or removed while it was trained becomes as it was there.
    """
    buffers: Mapping[str, Tensor] = state["buffers"]
    device = next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    with torch.no_grad():
        for full_name, (part, name) in _owners_of_buffers(module).items():
            saved, present = buffers.get(full_name), part._buffers[name]
            if saved is None or present is None or (saved.shape, saved.dtype) != (present.shape, present.dtype):
                part._buffers[name] = None if saved is None else saved.to(device)
            else:
                present.copy_(saved)
    module.load_state_dict(state["weights"])


def difference(module: nn.Module, state: Mapping[str, Any]) -> str:
    """Return why a state cannot be loaded into a module, as in "it has no encoder.head"; empty if it can."""
    owned = _owners_of_buffers(module).keys()
    present = {name: value for name, value in module.state_dict().items() if name not in owned}
    saved = {name: value for name, value in state["weights"].items() if name not in owned}
    if unknown := sorted((saved.keys() | state["buffers"].keys()) - present.keys() - owned):
        return f"it has {unknown[0]}, which the model does not have"
    if missing := sorted(present.keys() - saved.keys()):
        return f"it has no {missing[0]}, which the model has"
    for name, value in present.items():
        if isinstance(value, Tensor) and value.shape != saved[name].shape:
            return f"its {name} has shape {tuple(saved[name].shape)}, that of the model {tuple(value.shape)}"
    return ""


def _owners_of_buffers(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the module and the name in it of every buffer, by its full name; buffers that are None too."""
    return {
        f"{prefix}.{name}" if prefix else name: (part, name)
        for prefix, part in module.named_modules(remove_duplicate=False)
        for name in part._buffers
    }
