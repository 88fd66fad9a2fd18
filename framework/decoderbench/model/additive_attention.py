"""Additive attention for many queries at once, in blocks that limit what is in memory at a time.

Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate".
"""

import torch
from torch import Tensor, nn

LARGEST_BLOCK = 2**24
"""Values of tanh in one block, 64 MiB in float32. All S queries of a batch at once can be 2 GB: B 256, T 256, S 26."""


def additive_scores(queries: Tensor, keys: Tensor, score: nn.Linear) -> Tensor:
    """Return score(tanh(query + key)) of each query and key, (B, S, T), for a softmax over T.

    Args:
        queries: (B, S, N), or (1, S, N) if they are the same for all images.
        keys: (B, T, N).
        score: from N to 1.
    """
    block = max(1, LARGEST_BLOCK // max(1, keys.numel()))
    return torch.cat(
        [score(torch.tanh(some[:, :, None] + keys[:, None])).squeeze(3) for some in torch.split(queries, block, dim=1)],
        dim=1,
    )
