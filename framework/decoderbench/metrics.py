"""Scores of hypotheses against references: exact match, CER, 1-NED, nats per character. No torch here.

A score over a split is a sum over its images divided by another one; `per_sample` gives the terms of both, of which the
statistics make intervals.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from decoderbench.alignments import Alignment
from decoderbench.exception_text import describe_error
from decoderbench.scalars import to_number
from decoderbench.sources import function_digest

logger = logging.getLogger("decoderbench")

Terms = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Numerators and denominators of a metric, each of shape (N,) for N images: the metric is sum / sum."""

BUILT_IN = ("exact_match", "cer", "one_minus_ned", "nats_per_char")
"""Names of the metrics in every record; metrics of plugins must have other names."""


class Metric(ABC):
    """An additional score of transcriptions; plugins register their metrics through `register_metrics`."""

    name: ClassVar[str]

    higher_is_better: ClassVar[bool] = True
    """Set it to False for a rate of errors."""

    @abstractmethod
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        """Return the metric over a split, or None where it is undefined. Both sequences have the same length.

        A number of any class will do, NumPy's and tensors of no dimensions included; a truth value will not.
        """

    def per_sample(
        self, references: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[Sequence[float], Sequence[float]] | None:
        """Return a numerator and a denominator for each image, if the metric over a split is sum / sum.

        Of these, a report computes intervals and differences between rows. The terms of an image depend on its texts
        alone. A mean over images has the denominators 1. The default, None, means: no interval.
        """
        return None


def edit_distances(references: Sequence[str], hypotheses: Sequence[str]) -> list[int]:
    """Return the Levenshtein distance of each pair, in code points."""
    return [Levenshtein.distance(*pair) for pair in zip(references, hypotheses, strict=True)]


def exact_match(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return the fraction of hypotheses that equal their reference; no case folding, no stripping.

    Two empty texts match. Return None if there are no texts.
    """
    if not references:
        return None
    return sum(a == b for a, b in zip(references, hypotheses, strict=True)) / len(references)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return edits over reference characters, both summed over the whole split (CER, corpus level).

    Every character of a hypothesis for an empty reference is an edit, so the rate may exceed 1.
    Return None if the references hold no characters.
    """
    characters = sum(map(len, references))
    return sum(edit_distances(references, hypotheses)) / characters if characters else None


def one_minus_ned(references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
    """Return 1-NED: the mean of 1 - distance / max(length of both).

    A pair of empty texts counts as 1, a pair with one empty text as 0. Return None if there are no texts.
    Source: ICDAR 2019 Robust Reading Challenge on Reading Chinese Text on Signboard (ReCTS).
    """
    if not references:
        return None
    similarities = (Levenshtein.normalized_similarity(*pair) for pair in zip(references, hypotheses, strict=True))
    return sum(similarities) / len(references)


def nats_per_character(nll: Sequence[float], references: Sequence[str]) -> float | None:
    """Return -log p(text | image) over reference characters, both summed over the whole split, in nats.

    This likelihood is comparable between decoders with different vocabularies. An autoregressive decoder also pays
    nats for the end of a text, which does not count as a character. Return None if the references hold no characters.
    """
    characters = sum(map(len, references))
    return sum(nll) / characters if characters else None


@dataclass(frozen=True)
class Transcriptions:
    """What every metric is computed from. The sequences have the same length, one item per image of a split."""

    references: Sequence[str]
    hypotheses: Sequence[str]

    nll: Sequence[float | None]
    """-log p(reference | image) in nats; None where the charset cannot spell the reference."""


@dataclass(frozen=True)
class Definition:
    """A metric as this process would compute it."""

    name: str

    source: str
    """Digest of the source code that computes it; empty if there is no source file."""

    compute: Callable[[Transcriptions], object]

    higher_is_better: bool = True

    terms: Callable[[Transcriptions], tuple[Sequence[float], Sequence[float]] | None] = lambda _: None
    """Numerators and denominators of the images; None if the metric is no such ratio."""

    def score(self, texts: Transcriptions) -> float | None:
        """Return the number of a split; if that fails, log a warning and return None: no metric fails a cell."""
        try:
            return number_or_none(self.compute(texts))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, sys.exit included
            logger.warning("metric %s failed and has no score: %s", self.name, describe_error(error))
            return None

    def per_sample(self, texts: Transcriptions) -> Terms | None:
        """Return the numerators and denominators of the images; if that fails, log a warning and return None."""
        try:
            terms = self.terms(texts)
            return None if terms is None else as_terms(terms, len(texts.references))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            logger.warning("per_sample of metric %s failed: no intervals: %s", self.name, describe_error(error))
            return None


def number_or_none(score: object) -> float | None:
    """Return a score as a float, or None if it is None; raise `ValueError` if it is no finite real number."""
    return None if score is None else to_number(score)


def as_terms(terms: tuple[Sequence[float], Sequence[float]], num_images: int) -> Terms:
    """Return numerators and denominators as arrays of shape (N,); a truth value counts as 1 or 0.

    Raises:
        ValueError: they are no two sequences of N finite numbers each, or a denominator is negative.
    """
    if not isinstance(terms, tuple) or len(terms) != 2:
        raise ValueError("it returned no pair; return (numerators, denominators)")
    numerators, denominators = map(_as_numbers, terms)
    for given in (numerators, denominators):
        if given.shape != (num_images,):
            raise ValueError(f"numbers of shape {given.shape} for {num_images} images; return one per image")
    if (denominators < 0).any():
        raise ValueError(f"a denominator of {denominators.min():g}; return none below 0")
    return numerators, denominators


def _as_numbers(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        array = np.array([to_number(value) for value in values])
    if not np.isfinite(array).all():
        raise ValueError(f"{array[~np.isfinite(array)][0]} is not a finite number")
    return array.astype(np.float64)


@cache
def built_in_definitions() -> Mapping[str, Definition]:
    """Return the metrics of every record, by name."""
    return {
        "exact_match": _of_texts("exact_match", exact_match, _matches_per_image),
        "cer": _of_texts("cer", character_error_rate, _edits_per_image, higher_is_better=False),
        "one_minus_ned": _of_texts("one_minus_ned", one_minus_ned, _similarity_per_image),
        "nats_per_char": Definition(
            name="nats_per_char",
            source=function_digest(cast("FunctionType", _nats_of_spellable)),
            compute=_nats_of_spellable,
            higher_is_better=False,
            terms=_nats_per_image,
        ),
    }


def sources_of(definitions: Iterable[Definition]) -> dict[str, str]:
    """Return the digest of each metric's source, by name, without the metrics that have no source file."""
    return {definition.name: definition.source for definition in definitions if definition.source}


def _of_texts(
    name: str,
    rate: Callable[[Sequence[str], Sequence[str]], float | None],
    terms: Callable[[Transcriptions], tuple[list[float], list[float]]],
    *,
    higher_is_better: bool = True,
) -> Definition:
    digest = function_digest(cast("FunctionType", rate))
    return Definition(
        name, digest, lambda texts: rate(texts.references, texts.hypotheses), higher_is_better, terms=terms
    )


# The terms of the images are apart from the scores: the sources of these are stated in records that exist.
def _matches_per_image(texts: Transcriptions) -> tuple[list[float], list[float]]:
    right = [float(a == b) for a, b in zip(texts.references, texts.hypotheses, strict=True)]
    return right, [1.0] * len(right)


def _edits_per_image(texts: Transcriptions) -> tuple[list[float], list[float]]:
    edits = edit_distances(texts.references, texts.hypotheses)
    return list(map(float, edits)), [float(len(reference)) for reference in texts.references]


def _similarity_per_image(texts: Transcriptions) -> tuple[list[float], list[float]]:
    pairs = zip(texts.references, texts.hypotheses, strict=True)
    similarities = [Levenshtein.normalized_similarity(*pair) for pair in pairs]
    return similarities, [1.0] * len(similarities)


def _nats_per_image(texts: Transcriptions) -> tuple[list[float], list[float]]:
    """An image whose text cannot be spelled has 0 of both."""
    terms = [
        (0.0, 0.0) if nll is None else (nll, float(len(reference)))
        for nll, reference in zip(texts.nll, texts.references, strict=True)
    ]
    return [nats for nats, _ in terms], [characters for _, characters in terms]


def _nats_of_spellable(texts: Transcriptions) -> float | None:
    pairs = [pair for pair in zip(texts.nll, texts.references, strict=True) if pair[0] is not None]
    return nats_per_character([cast("float", nll) for nll, _ in pairs], [reference for _, reference in pairs])


@dataclass(frozen=True)
class Evaluation:
    """The transcription of each image of a split, and the scores over the split."""

    keys: Sequence[str]
    references: Sequence[str]
    hypotheses: Sequence[str]
    log_prob: Sequence[float]
    """log p of each hypothesis in nats, as defined by `Hypotheses`."""

    nll: Sequence[float | None]
    """-log p(reference | image) in nats; None where the charset cannot spell the reference."""

    scores: Mapping[str, float | None]

    details: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Further columns, by name, of an evaluation that is kept as a file:

    - group: that of each image, as `Sample` defines it
    - ended: whether the decoder itself ended the text; None if its texts have no end of their own
    - frames: T, the frames of the memory that it was read from
    - text_log_prob: log p(returned text | image) in nats, -nll of the ids that the decoder returned, by its own `nll`,
      so it means the same for all decoders; None where that is not a finite number
    - the measures of the alignment, as `training.alignment_measures` defines them; None without an alignment
    """

    alignments: Sequence[Alignment] = ()
    """The alignments of a few images, to be drawn; none if the decoder has no alignment."""

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the columns of `predictions.parquet`, by name."""
        return {
            "sample": self.keys,
            "reference": self.references,
            "hypothesis": self.hypotheses,
            "log_prob": self.log_prob,
            "nll": self.nll,
            "edit_distance": edit_distances(self.references, self.hypotheses),
            **self.details,
        }
