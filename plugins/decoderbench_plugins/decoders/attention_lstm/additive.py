"""Additive attention: e_t = v . tanh(K m_t + Q h), a softmax over the frames.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate".
"""

from torch import Tensor, nn

from decoderbench import Memory

from .mechanism import Attention, Tensors


class AdditiveAttention(Attention):
    """By content alone: nothing changes from step to step."""

    def __init__(self, memory_dim: int, hidden_dim: int, *, bias_of: str) -> None:
        super().__init__()
        self.key = nn.Linear(memory_dim, hidden_dim, bias=bias_of == "key")
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=bias_of == "query")
        self.score = nn.Linear(hidden_dim, 1, bias=False)

    def prepare(self, values: Tensor, memory: Memory) -> tuple[Tensors, Tensors]:
        return (self.key(values),), ()  # (B, T, N)

    def forward(self, hidden: Tensor, memory: Memory, fixed: Tensors, before: Tensors) -> tuple[Tensor, Tensors]:
        return self.weigh(fixed[0] + self.query(hidden)[:, None], memory), ()

    def weigh(self, read: Tensor, memory: Memory) -> Tensor:
        """Return the weights (B, T) for the sums (B, T, N) of keys, query and whatever else is scored.

        The sums are overwritten: they are the largest tensors of a step, and allocating them takes time.
        """
        energy: Tensor = self.score(read.tanh_()).squeeze(2)
        return memory.hide(energy).softmax(dim=1)
