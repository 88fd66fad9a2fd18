"""The orders in which the characters of a text are learned, and what each position may read in them."""

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

ENUMERATED = 4
"""Texts of up to so many characters have few orders, which are then drawn without repetition."""


def draw_ranks(length: int, pairs: int) -> Tensor:
    """Return the place of each character and of the end in each order, (K, length + 1) int64 on the CPU, K <= 2 pairs.

    The orders are pairs of an order of the characters and its reverse. The first is left to right. The end comes last,
    but first in the second order, the reverse of the first, in which it is predicted from the image alone. Texts of up
    to four characters have all orders if there are not more than `pairs`, else different ones.
    """
    forward = torch.arange(length)
    if length <= ENUMERATED:
        others = [order for order in permutations(range(length)) if order[:1] < order[-1:]][1:]  # one of each pair
        drawn = [torch.tensor(others[index]) for index in torch.randperm(len(others))[: pairs - 1].tolist()]
    else:
        drawn = [torch.randperm(length) for _ in range(pairs - 1)]
    orders = torch.stack([turned for order in (forward, *drawn) for turned in (order, order.flip(0))])
    ranks = F.pad(orders.argsort(dim=1), (0, 1), value=length)
    ranks[1] = length - torch.arange(length + 1)
    return ranks


def order_masks(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Return which content queries and content may read in each order, (K, S, S) bool each, for ranks (K, S).

    Query s predicts the character at position s, content s is the character at position s - 1, and content 0 the start,
    which all may read. A query reads the characters that come before its own; a character reads itself too.
    """
    of_content = F.pad(ranks[:, :-1], (1, 0), value=-1)  # (K, S)
    return of_content[:, None] < ranks[:, :, None], of_content[:, None] <= of_content[:, :, None]


def cloze_mask(steps: int, device: torch.device) -> Tensor:
    """Return which content each query may read if the text is known, (S, S) bool: all but its own character."""
    return ~torch.ones(steps, steps, dtype=torch.bool, device=device).triu(1).tril(1)
