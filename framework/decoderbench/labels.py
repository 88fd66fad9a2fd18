"""Charset and Labels: the form in which texts pass between data, decoders and metrics.

Ids index the experiment's charset. Blank, start, end and padding symbols belong to the decoder family that
needs them and never appear here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from decoderbench.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Charset:
    """An ordered set of characters (Unicode code points); the order fixes the ids.

    Raises:
        DataError: it is empty or holds a character twice.
    """

    characters: str
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {character: index for index, character in enumerate(self.characters)}
        if not ids:
            raise DataError("charset is empty; give at least one character")
        if len(ids) != len(self.characters):
            twice = sorted({c for c in self.characters if self.characters.count(c) > 1})
            raise DataError(f"charset holds {', '.join(map(repr, twice))} more than once; remove the repeats")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Charset:
        """Return the smallest charset that can spell all `texts`, in code point order."""
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.characters)

    def missing(self, text: str) -> str:
        """Return the characters of `text` that are outside the charset, each once, sorted."""
        return "".join(sorted(set(text) - self._ids.keys()))

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters of `text`; raise `DataError` if one is outside the charset."""
        if missing := self.missing(text):
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing)
            raise DataError(
                f"text {text!r} has characters outside the charset: {named}; extend the charset or clean the data"
            )
        return [self._ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text spelled by `ids`."""
        return "".join(self.characters[index] for index in ids)


@dataclass(frozen=True)
class Labels:
    """A batch of labels on the device of the images.

    Attributes:
        ids: (B, L) int64, ids into the charset; positions past the end of a label hold 0 and have no meaning.
        lengths: (B,) int64, the number of characters of each label.
        host_lengths: the same lengths on the host, so that nothing waits for the device to learn them.

    Raises:
        ValueError: `host_lengths` is not as long as `lengths`.
    """

    ids: Tensor
    lengths: Tensor
    host_lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.host_lengths) != len(self.lengths):
            raise ValueError(
                f"host_lengths must repeat the {len(self.lengths)} lengths, it has {len(self.host_lengths)} items; "
                f"build both from the same numbers"
            )

    @cached_property
    def longest(self) -> int:
        """The largest length in the batch, 0 if there is none; read on the host."""
        return max(self.host_lengths, default=0)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        charset: Charset,
        *,
        max_length: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Labels:
        """Encode `texts`, padded to `max_length` (default: the length of the longest text)."""
        import torch

        host_lengths = tuple(map(len, texts))
        longest = max(host_lengths, default=0)
        width = longest if max_length is None else max_length
        if longest > width:
            raise DataError(f"a label has {longest} characters, max_length is {width}; raise max_length")
        ids = torch.zeros(len(texts), width, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(charset.encode(text), dtype=torch.int64)
        lengths = torch.tensor(host_lengths, dtype=torch.int64)
        return cls(ids.to(device), lengths.to(device), host_lengths)

    def mask(self) -> Tensor:
        """Return a mask (B, L) bool, true at the characters of each label."""
        import torch

        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]  # (B, L)
