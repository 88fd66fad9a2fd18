"""The contract of a mechanism of attention."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from decoderbench import Memory

Tensors = tuple[Tensor, ...]


class Attention(nn.Module, ABC):
    """Which frames the next character is read from.

    All tensors have the batch first, so that a beam can reorder them as parts of the state of the decoder. A frame that
    is not valid has the weight 0; the weights of an image sum to 1.
    """

    @abstractmethod
    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        """Return what is fixed for the images, such as keys, and what changes from step to step, before the first.

        Args:
            values: (B, T, D), what a glimpse is the weighted mean of.
            memory: which frames are valid.
        """

    @abstractmethod
    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        """Return the weight of each frame for the next character, (B, T), and what changed.

        Args:
            hidden: (B, N), the hidden state of the cell.
            memory: which frames are valid.
            fixed: what is fixed.
            before: what the step before changed.
        """
