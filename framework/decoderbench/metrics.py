"""How well hypotheses match references: exact match, CER, 1-NED, nats per character. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rapidfuzz.distance import Levenshtein

BUILT_IN = ("exact_match", "cer", "one_minus_ned", "nats_per_char")
"""The metrics that every record has; a plugin's has another name."""


class Metric(ABC):
    """A further number to score transcriptions with; plugins offer them through `register_metrics`."""

    name: ClassVar[str]

    @abstractmethod
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        """Return the metric over a split, or None where it is not defined. Both sequences have one length."""


def edit_distances(references: Sequence[str], hypotheses: Sequence[str]) -> list[int]:
    """Return the Levenshtein distance, in code points, of each pair."""
    return [Levenshtein.distance(*pair) for pair in zip(references, hypotheses, strict=True)]


def exact_match(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return the share of texts that are wholly right, as they stand: no case folding, no stripping.

    Two empty texts match. None for no texts at all: a rate of nothing is neither 0 nor 1.
    """
    if not references:
        return None
    return sum(a == b for a, b in zip(references, hypotheses, strict=True)) / len(references)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return edits over reference characters, both summed over the whole split (CER, corpus level).

    An empty reference adds no characters, but every character read from it is an edit; so the rate may exceed 1.
    None if the references hold no character at all.
    """
    characters = sum(map(len, references))
    return sum(edit_distances(references, hypotheses)) / characters if characters else None


def one_minus_ned(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return 1-NED: the mean of 1 - distance / max(length of both).

    Source: ICDAR 2019 Robust Reading Challenge on Reading Chinese Text on Signboard (ReCTS). Both empty count as
    1, one empty as 0. None for no texts at all.
    """
    if not references:
        return None
    similarities = (Levenshtein.normalized_similarity(*pair) for pair in zip(references, hypotheses, strict=True))
    return sum(similarities) / len(references)


def nats_per_character(nll: Sequence[float], references: Sequence[str]) -> float | None:
    """Return summed -log p(text | image) over summed characters, in nats.

    The one likelihood that decoders with different vocabularies share. The end of a text costs an autoregressive
    decoder nats but counts as no character. None if the references hold no character.
    """
    characters = sum(map(len, references))
    return sum(nll) / characters if characters else None


@dataclass(frozen=True)
class Evaluation:
    """What a recognizer read in each image, and the scores over all of them."""

    keys: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    log_prob: Sequence[float]
    """Of the hypothesis, nats, as `Hypotheses` defines it."""

    nll: Sequence[float | None]
    """-log p(reference | image), nats; None where the charset cannot spell the reference."""

    scores: Mapping[str, float | None]

    def columns(self) -> dict[str, Sequence[object]]:
        """Return what `predictions.parquet` holds."""
        return {
            "sample": self.keys,
            "reference": self.references,
            "hypothesis": self.hypotheses,
            "log_prob": self.log_prob,
            "nll": self.nll,
            "edit_distance": edit_distances(self.references, self.hypotheses),
        }
