"""Nested states as JSON and tensors, the two things that a checkpoint is written in. No pickle."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))


class PackingError(ValueError):
    """A state holds a value that is neither a tensor nor JSON."""


def pack(state: Any) -> bytes:
    """Return a state as a line of JSON followed by the tensors in the format of safetensors.

    A state is made of dictionaries, lists and tuples, of tensors on any device, and of numbers, text, truth values and
    None. Tensors that share memory are written once.

    Raises:
        PackingError: it holds another value.
    """
    packer = _Packer()
    text = json.dumps(packer.pack(state, "state"))
    try:
        return text.encode() + b"\n" + safetensors.torch.save(packer.tensors)
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise PackingError(f"a tensor of it cannot be written: {error}") from None


def unpack(packed: bytes) -> Any:
    """Return the state that `pack` was given, with all tensors on the CPU, of the same strides as before."""
    text, _, tensors = packed.partition(b"\n")
    return _Unpacker(safetensors.torch.load(tensors)).unpack(json.loads(text))


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def pack(self, value: Any, where: str) -> Any:
        """Return a value as JSON, in which a tensor is the name that it has in `tensors`."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if isinstance(value, Tensor):
            return self._pack_tensor(value, where)
        if kind in (list, tuple):
            return {kind.__name__: [self.pack(item, f"{where}[{index}]") for index, item in enumerate(value)]}
        if kind in (dict, OrderedDict):
            items = [[self.pack(key, where), self.pack(item, f"{where}[{key!r}]")] for key, item in value.items()]
            # torch notes the versions of modules in an attribute of their state_dict.
            return {kind.__name__: items} | ({"attributes": self.pack(vars(value), where)} if kind is not dict else {})
        raise PackingError(f"{where} is of type {kind.__name__}, which is neither a tensor nor JSON")

    def _pack_tensor(self, value: Tensor, where: str) -> Any:
        plain = type(value) in (Tensor, nn.Parameter, nn.Buffer)
        if not plain or value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise PackingError(f"{where} is a tensor of a special kind ({type(value).__name__}, {value.layout})")
        memory = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if memory not in self._names:
            self._names[memory] = name = str(len(self.tensors))
            self.tensors[name] = value.detach().cpu().contiguous()
        # Optimizers rely on moments that are laid out like their parameter, which may be channels_last.
        return {"tensor": self._names[memory], "strides": torch.empty_like(value, device="meta").stride()}


class _Unpacker:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._packed = tensors
        self._unpacked: dict[str, Tensor] = {}

    def unpack(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return self._unpack_tensor(value["tensor"], value["strides"])
        kind = next(iter(value))
        if kind in ("list", "tuple"):
            items = [self.unpack(item) for item in value[kind]]
            return items if kind == "list" else tuple(items)
        mapping = {self.unpack(key): self.unpack(item) for key, item in value[kind]}
        if kind == "dict":
            return mapping
        ordered = OrderedDict(mapping)
        vars(ordered).update(self.unpack(value["attributes"]))
        return ordered

    def _unpack_tensor(self, name: str, strides: list[int]) -> Tensor:
        if name not in self._unpacked:
            packed = self._packed[name]
            self._unpacked[name] = torch.empty_strided(packed.shape, strides, dtype=packed.dtype).copy_(packed)
        return self._unpacked[name]
