"""Metrics that are broken in one place, and the rule that each breaks."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from decoderbench import Metric
from planted import Fault


class FirstRight(Metric):
    """The share of texts whose first character is right."""

    name = "first_right"

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        if not references:
            return None
        return sum(a[:1] == b[:1] for a, b in zip(references, hypotheses, strict=True)) / len(references)


class NumPyNumber(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        score = super().score(references, hypotheses)
        return None if score is None else np.float32(score)


class DividesByNothing(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return sum(map(str.__eq__, references, hypotheses)) / len(references)


class EmptyTexts(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        return sum(a[0] == b[0] for a, b in zip(references, hypotheses, strict=True)) / max(1, len(references))


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


class AddsUp(FirstRight):
    total = 0.0

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        self.total += super().score(references, hypotheses) or 0.0
        return self.total


class Bootstrap(FirstRight):
    """An estimate by random numbers of its own."""

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        score = super().score(references, hypotheses)
        return None if score is None else score + random.SystemRandom().random()


class LooksUp(FirstRight):
    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        list(Path(__file__).parent.iterdir())
        return super().score(references, hypotheses)


class BadName(FirstRight):
    name = "First right"


fault = partial(Fault, "metric")
FAULTS = [
    fault(BadName, "can_be_registered", "has the name 'First right'"),
    fault(NumPyNumber, "gives_a_number_or_none", r"of type float32 for .*; return a Python float"),
    fault(EmptyTexts, "gives_a_number_or_none", "got IndexError: string index out of range"),
    fault(DividesByNothing, "has_an_answer_to_no_texts", "got ZeroDivisionError: division by zero"),
    fault(FirstPairOnly, "heeds_no_order", "for the same pairs; sum over all pairs"),
    fault(Constant, "tells_right_from_wrong", "got 1.0 for both; compare hypotheses with references"),
    fault(Sorts, "leaves_the_texts_alone", "got lists that were changed in place; sort or clean a copy"),
    fault(AddsUp, "scores_the_same_again", "count anew in every call"),
    fault(LooksUp, "opens_nothing", "got os.listdir of .*planted"),
    fault(Bootstrap, "agrees_between_processes", "two different outcomes of one seed"),
]
HEALTHY = [FirstRight]
