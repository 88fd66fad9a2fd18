"""Decoders that read what they must not, with one fault each: padding, or parts of themselves."""

from functools import partial
from typing import Any

import torch
from helpers.small_decoders import SmallLSTM
from torch import Tensor, nn

from decoderbench import ComponentConfig, Labels, LabelSpec, Memory, SequenceSpec
from planted import Fault


class MaskedLSTM(SmallLSTM):
    """Correct: reads the mean of the valid frames, has an auxiliary head, and says that it is the map of a row."""

    takes_memory = True

    def __init__(self, config: ComponentConfig, memory: SequenceSpec, labels: LabelSpec) -> None:
        super().__init__(config, memory, labels)
        self.auxiliary = nn.Linear(memory.dim, self.vocabulary_size)

    def initial_state(self, memory: Memory) -> tuple[Tensor, Tensor]:
        return super().initial_state(memory.frames)

    def step(self, token: Tensor, state: Any, memory: Memory) -> Any:
        return super().step(token, state, self.weighted(memory).sum(dim=1, keepdim=True))

    def weighted(self, memory: Memory) -> Tensor:
        return memory.frames * self.weights(memory)[:, :, None]

    def weights(self, memory: Memory) -> Tensor:
        return memory.hide(torch.zeros_like(memory.frames[:, :, 0])).softmax(dim=1)

    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        # Is a character in the text at all? Asked of the mean of the frames.
        scores = self.auxiliary(self.weighted(Memory.of(memory)).sum(dim=1)).sigmoid()
        return self.nll(memory, labels) + scores.square().sum(dim=1)

    def training_only(self) -> list[nn.Module]:
        return [self.auxiliary]

    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        return self.weights(Memory.of(memory))[:, None].expand(-1, labels.longest, -1)


class NeedsMap(MaskedLSTM):
    """Correct: reads a map with height and width."""

    needs_map = True

    def weighted(self, memory: Memory) -> Tensor:
        return super().weighted(memory.with_frames(memory.map().flatten(2).transpose(1, 2)))


class ReadsPadding(MaskedLSTM):
    def weights(self, memory: Memory) -> Tensor:
        return torch.full_like(memory.frames[:, :, 0], 1 / memory.length)


class AlignsPadding(MaskedLSTM):
    def alignment(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        memory = Memory.of(memory)
        return memory.frames.new_full((memory.batch, labels.longest, memory.length), 1 / memory.length)


class CountsItsHead(MaskedLSTM):
    """Says that training alone uses the layer that reads."""

    def training_only(self) -> list[nn.Module]:
        return [self.head]


class CountsForeignParts(MaskedLSTM):
    def training_only(self) -> list[nn.Module]:
        return [nn.Linear(2, 2)]


class MeanLoss(SmallLSTM):
    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        return self.nll(memory, labels).mean()


class InfiniteLoss(SmallLSTM):
    def loss(self, memory: Memory | Tensor, labels: Labels) -> Tensor:
        return self.nll(memory, labels) / labels.lengths  # of the empty text


fault = partial(Fault, "decoder")
FAULTS = [
    fault(ReadsPadding, "padding_is_not_read", "with other values in frames of padding.*mask with `memory.valid`"),
    fault(AlignsPadding, "padding_is_not_read", r"an alignment of 0\.2 at a frame of padding; give the frames that"),
    fault(CountsItsHead, "training_only_parts_are_not_read", "with NaN as weights of these parts.*return only parts"),
    fault(CountsForeignParts, "training_only_parts_are_not_read", "got 2 parameters of other modules; return submod"),
    fault(MeanLoss, "loss_is_one_number_per_image", r"got torch.float32 of shape \(\) for 6 images"),
    fault(InfiniteLoss, "loss_is_one_number_per_image", r"got torch.float32 of shape \(6,\) for 6 images: \[inf"),
]
HEALTHY = [MaskedLSTM, NeedsMap]
