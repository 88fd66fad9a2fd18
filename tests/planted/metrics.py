"""Metrics with one fault each, and the rule that catches it."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from decoderbench import Metric
from planted import Fault


class FirstRight(Metric):
    """The fraction of texts whose first character is right."""

    name = "first_right"

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        if not references:
            return None
        return sum(a[:1] == b[:1] for a, b in zip(references, hypotheses, strict=True)) / len(references)


class TensorNumber(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> Any:
        score = super().score(references, hypotheses)
        return None if score is None else torch.tensor(score)


class TruthValue(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return list(references) == list(hypotheses)


class DividesByNothing(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return sum(map(str.__eq__, references, hypotheses)) / len(references)


class EmptyTexts(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return sum(a[0] == b[0] for a, b in zip(references, hypotheses, strict=True)) / max(1, len(references))


class Terms(FirstRight):
    """The metric with the terms of its images."""

    def per_sample(self, references: Sequence[str], hypotheses: Sequence[str]) -> Any:
        right = [a[:1] == b[:1] for a, b in zip(references, hypotheses, strict=True)]
        return right, [1] * len(right)


class ErrorRate(FirstRight):
    higher_is_better = False

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        right = super().score(references, hypotheses)
        return None if right is None else 1 - right


class ErrorRateTheWrongWay(ErrorRate):
    higher_is_better = True


class TermsOfAnotherScore(Terms):
    def per_sample(self, references: Sequence[str], hypotheses: Sequence[str]) -> Any:
        right, _ = super().per_sample(references, hypotheses)
        return right, list(map(len, references))


class TermsThatSaySo(Terms):
    def per_sample(self, references: Sequence[str], hypotheses: Sequence[str]) -> Any:
        return [self.score(references, hypotheses)] * len(references), [1] * len(references)


class TermsOfTheSplit(Terms):
    def per_sample(self, references: Sequence[str], hypotheses: Sequence[str]) -> Any:
        right, images = super().per_sample(references, hypotheses)
        return [sum(right)], [sum(images)]


class FirstPairOnly(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return super().score(references[:1], hypotheses[:1])


class Constant(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return 1.0


class Sorts(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        if isinstance(hypotheses, list):
            hypotheses.sort()
        return super().score(references, hypotheses)


class AccumulatesScores(FirstRight):
    total = 0.0

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        self.total += super().score(references, hypotheses) or 0.0
        return self.total


class Bootstrap(FirstRight):
    """An estimate that draws from its own random generator."""

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        score = super().score(references, hypotheses)
        return None if score is None else score + random.SystemRandom().random()


class ListsAFolder(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        list(Path(__file__).parent.iterdir())
        return super().score(references, hypotheses)


class BadName(FirstRight):
    name = "First right"


fault = partial(Fault, "metric")
FAULTS = [
    fault(BadName, "can_be_registered", "has the name 'First right'"),
    fault(TruthValue, "score_is_number_or_none", r"(True|False) of type bool is not a number; return a finite number"),
    fault(EmptyTexts, "score_is_number_or_none", "got IndexError: string index out of range"),
    fault(DividesByNothing, "handles_empty_split", "got ZeroDivisionError: division by zero"),
    fault(FirstPairOnly, "is_order_invariant", "for the same pairs; sum over all pairs"),
    fault(Constant, "distinguishes_right_from_wrong", "got 1.0 for both; compare hypotheses with references"),
    fault(ErrorRateTheWrongWay, "right_is_better_than_wrong", "got higher_is_better = True, a score of 0.0 if all"),
    fault(TermsOfAnotherScore, "per_sample_sums_to_score", r"from per_sample and a score of .*; return what the score"),
    fault(
        TermsThatSaySo, "per_sample_depends_on_one_pair", r"alone and .* among others; compute the terms of an image"
    ),
    fault(TermsOfTheSplit, "per_sample_sums_to_score", r"numbers of shape \(1,\) for 12 images; return one per image"),
    fault(Sorts, "texts_are_unchanged", "got lists changed in place; sort or clean a copy"),
    fault(AccumulatesScores, "score_is_repeatable", "reset counts in every call"),
    fault(ListsAFolder, "opens_no_files", "got os.listdir of .*planted"),
    fault(Bootstrap, "fresh_processes_agree", "two different results from one seed"),
]
HEALTHY = [FirstRight, TensorNumber, Terms, ErrorRate]
