"""The rules of metrics."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from decoderbench.metrics import Metric
from decoderbench.testing import opened
from decoderbench.testing.checks import Rule, Subject
from decoderbench.testing.processes import agrees_between_processes
from decoderbench.testing.rules import require

REFERENCES = ["", "a", "ab", "aab", "été", "e\u0301", "漢字", "😀", "0123", "a b", "a,b\n", "b" * 40]
HYPOTHESES = ["", "b", "ab", "aba", "ete", "é", "漢", "😀😀", "123", "ab", "a,b", "b" * 39]


@dataclass
class MetricUnderCheck(Subject):
    """A metric class."""

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        """Score with a new metric, as each validation of a run does."""
        metric: Metric = self.cls()
        return metric.score(references, hypotheses)

    def outcome(self) -> Iterator[bytes]:
        yield repr(self.score(REFERENCES, HYPOTHESES)).encode()
        yield repr(self.score(REFERENCES, REFERENCES)).encode()


def rules_of_metrics(subject: MetricUnderCheck) -> list[Rule]:
    """Return the rules for a metric."""
    return [
        gives_a_number_or_none,
        has_an_answer_to_no_texts,
        heeds_no_order,
        tells_right_from_wrong,
        leaves_the_texts_alone,
        scores_the_same_again,
        opens_nothing,
        agrees_between_processes,
    ]


def gives_a_number_or_none(subject: MetricUnderCheck) -> None:
    """`score` gives a finite float, or None where it is not defined, for texts of any script and length."""
    for references, hypotheses in [
        (REFERENCES, HYPOTHESES),
        *(([one], [other]) for one, other in product(REFERENCES[:4], HYPOTHESES[:4])),
    ]:
        _require_number(subject.score(references, hypotheses), f"{references[:4]} and {hypotheses[:4]}")


def has_an_answer_to_no_texts(subject: MetricUnderCheck) -> None:
    """An empty split is answered with None or a number, not with an exception."""
    _require_number(subject.score([], []), "no texts at all")


def heeds_no_order(subject: MetricUnderCheck) -> None:
    """The score of a split is that of its pairs, in whatever order they come."""
    pairs = list(zip(REFERENCES, HYPOTHESES, strict=True))
    expected = subject.score(REFERENCES, HYPOTHESES)
    for seed in range(4):
        random.Random(seed).shuffle(pairs)
        got = subject.score([one for one, _ in pairs], [other for _, other in pairs])
        close = got == expected or (None not in (got, expected) and math.isclose(got, expected, rel_tol=1e-9))  # type: ignore[arg-type]
        require(close, got=f"{got} and {expected} for the same pairs", do="sum over all pairs, whatever their order")


def tells_right_from_wrong(subject: MetricUnderCheck) -> None:
    """Hypotheses that are all right score otherwise than hypotheses that are all wrong."""
    texts = ["ab", "ba", "aab"]
    right, wrong = subject.score(texts, texts), subject.score(texts, ["xyz", "", "zzzzz"])
    require(right != wrong, got=f"{right} for both", do="compare hypotheses with references")


def leaves_the_texts_alone(subject: MetricUnderCheck) -> None:
    """The lists that it is given are as they were."""
    references, hypotheses = list(REFERENCES), list(HYPOTHESES)
    subject.score(references, hypotheses)
    require(
        (references, hypotheses) == (REFERENCES, HYPOTHESES),
        got="lists that were changed in place",
        do="sort or clean a copy: other metrics read them too",
    )


def scores_the_same_again(subject: MetricUnderCheck) -> None:
    """One metric scores many splits in a row and keeps nothing from one to the next."""
    metric: Metric = subject.cls()
    first = metric.score(REFERENCES, HYPOTHESES)
    metric.score(["a"], ["b"])
    again = metric.score(REFERENCES, HYPOTHESES)
    require(again == first, got=f"{first}, then {again}", do="count anew in every call, draw no random numbers")


def opens_nothing(subject: MetricUnderCheck) -> None:
    """Scoring opens no file and no connection."""
    metric: Metric = subject.cls()
    with opened.watched() as events:
        metric.score(REFERENCES, HYPOTHESES)
    require(not events, got=f"{events[0] if events else ''}", do="read files while building, if at all")


def _require_number(score: object, what: str) -> None:
    is_number = isinstance(score, float | int) and not isinstance(score, bool) and math.isfinite(score)
    require(
        score is None or is_number,
        got=f"{score!r} of type {type(score).__name__} for {what}",
        do="return a Python float that is finite, or None: float(x) of a NumPy or torch number",
    )
