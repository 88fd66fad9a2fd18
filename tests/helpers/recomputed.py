"""An autoregressive decoder without caches, as a reference for one with."""

from typing import Any

import torch
from torch import Tensor

from decoderbench import AutoregressiveDecoder, LabelSpec, Memory, SequenceSpec


class Recomputed(AutoregressiveDecoder):
    """Reads as another decoder does, and computes all earlier steps again at each step."""

    takes_memory = True

    def __init__(self, decoder: AutoregressiveDecoder, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(None, memory, labels)
        self.decoder = decoder

    def initial_state(self, memory: Memory) -> Tensor:
        return torch.empty(memory.batch, 0, dtype=torch.int64)

    def step(self, token: Tensor, state: Any, memory: Memory) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([state, token[:, None]], dim=1)
        return self.decoder.teacher_forced_logits(memory, tokens)[:, -1], tokens
