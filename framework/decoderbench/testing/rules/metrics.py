"""The rules for metrics."""

import math
import random
from collections.abc import Sequence
from itertools import product

from decoderbench.metrics import Metric, number_or_none
from decoderbench.testing.assertions import expect
from decoderbench.testing.checks import Rule
from decoderbench.testing.file_access import watching_file_access
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.subjects.metric import HYPOTHESES, REFERENCES, MetricSubject


def rules_of_metrics(subject: MetricSubject) -> list[Rule]:
    """Return the rules for a metric."""
    return [
        score_is_number_or_none,
        handles_empty_split,
        is_order_invariant,
        distinguishes_right_from_wrong,
        texts_are_unchanged,
        score_is_repeatable,
        opens_no_files,
        fresh_processes_agree,
    ]


def score_is_number_or_none(subject: MetricSubject) -> None:
    """`score` returns a finite real number of any class, or None if undefined, for texts of any script and length."""
    for references, hypotheses in [
        (REFERENCES, HYPOTHESES),
        *(([one], [other]) for one, other in product(REFERENCES[:4], HYPOTHESES[:4])),
    ]:
        _expect_number_or_none(subject, references, hypotheses, f"{references[:4]} and {hypotheses[:4]}")


def handles_empty_split(subject: MetricSubject) -> None:
    """The score of an empty split is None or a number, not an exception."""
    _expect_number_or_none(subject, [], [], "an empty split")


def is_order_invariant(subject: MetricSubject) -> None:
    """The score does not depend on the order of the pairs of texts."""
    pairs = list(zip(REFERENCES, HYPOTHESES, strict=True))
    expected = subject.score(REFERENCES, HYPOTHESES)
    for seed in range(4):
        random.Random(seed).shuffle(pairs)
        got = subject.score([one for one, _ in pairs], [other for _, other in pairs])
        close = got == expected or (None not in (got, expected) and math.isclose(got, expected, rel_tol=1e-9))  # type: ignore[arg-type]
        expect(close, got=f"{got} and {expected} for the same pairs", do="sum over all pairs, in any order")


def distinguishes_right_from_wrong(subject: MetricSubject) -> None:
    """The score differs between hypotheses that are all right and hypotheses that are all wrong."""
    texts = ["ab", "ba", "aab"]
    right, wrong = subject.score(texts, texts), subject.score(texts, ["xyz", "", "zzzzz"])
    expect(right != wrong, got=f"{right} for both", do="compare hypotheses with references")


def texts_are_unchanged(subject: MetricSubject) -> None:
    """`score` does not change its arguments."""
    references, hypotheses = list(REFERENCES), list(HYPOTHESES)
    subject.score(references, hypotheses)
    expect(
        (references, hypotheses) == (REFERENCES, HYPOTHESES),
        got="lists changed in place",
        do="sort or clean a copy: other metrics read the same lists",
    )


def score_is_repeatable(subject: MetricSubject) -> None:
    """The score of a split does not depend on splits that the same metric object scored before."""
    metric: Metric = subject.cls()
    first = number_or_none(metric.score(REFERENCES, HYPOTHESES))
    metric.score(["a"], ["b"])
    again = number_or_none(metric.score(REFERENCES, HYPOTHESES))
    expect(again == first, got=f"{first}, then {again}", do="reset counts in every call, draw no random numbers")


def opens_no_files(subject: MetricSubject) -> None:
    """Scoring opens no files or connections."""
    metric: Metric = subject.cls()
    with watching_file_access() as events:
        metric.score(REFERENCES, HYPOTHESES)
    expect(not events, got=f"{events[0] if events else ''}", do="read files in the constructor, if at all")


def _expect_number_or_none(
    subject: MetricSubject, references: Sequence[str], hypotheses: Sequence[str], what: str
) -> None:
    metric: Metric = subject.cls()
    score = metric.score(references, hypotheses)
    try:
        number_or_none(score)
    except ValueError as error:
        expect(
            False,
            got=f"for {what} a score that counts for nothing: {error}",
            do="return a finite number or None; a truth value, text or an array is neither",
        )
