"""Decoders that fail on purpose: a plugin of `gpu_failures.py`, which checks what becomes of the cells after them."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from decoderbench import ComponentConfig, CTCDecoder, Labels, LabelSpec, SequenceSpec, hookimpl

MORE_THAN_A_HOST_HAS = 2**50  # bytes


class PlantedCTC(CTCDecoder):
    """A linear layer on each frame: trains in a moment."""

    name = "planted_ctc"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.head = nn.Linear(memory.dim, self.vocabulary_size)

    def forward(self, memory: Tensor) -> Tensor:
        logits: Tensor = self.head(memory)
        return logits


class Exhausting(PlantedCTC):
    """Fills the memory of the device at its first step, and keeps what it got.

    Attributes:
        alive: the instances that have got so far and still exist.
    """

    name = "exhausting"
    alive: ClassVar[WeakSet[nn.Module]] = WeakSet()

    def nll(self, memory: Tensor, labels: Labels) -> Tensor:
        nll = super().nll(memory, labels)
        self.alive.add(self)
        if memory.device.type == "cpu":
            torch.empty(MORE_THAN_A_HOST_HAS, dtype=torch.uint8)
        if memory.device.type == "cuda":
            piece = torch.cuda.get_device_properties(memory.device).total_memory // 16
            self.pieces = [torch.empty(piece, dtype=torch.uint8, device=memory.device)]
            while True:
                self.pieces.append(torch.empty_like(self.pieces[0]))
        return nll


class OutOfRange(PlantedCTC):
    """Reads an embedding that does not exist: an exception on a CPU, a failed assert that ends CUDA on a device."""

    name = "out_of_range"

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.embedding = nn.Embedding(2, memory.dim)

    def forward(self, memory: Tensor) -> Tensor:
        outside = torch.full(memory.shape[:2], 2, device=memory.device)
        return super().forward(memory + self.embedding(outside))


@hookimpl
def register_decoders() -> list[type[PlantedCTC]]:
    return [PlantedCTC, Exhausting, OutOfRange]
