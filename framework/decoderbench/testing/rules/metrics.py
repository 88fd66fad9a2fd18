"""The rules for metrics."""

import math
import random
from collections.abc import Sequence
from itertools import product

from decoderbench.metrics import Metric, Terms, as_terms, number_or_none
from decoderbench.testing.assertions import ConformanceError, RuleSkipped, expect
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
        right_is_better_than_wrong,
        per_sample_sums_to_score,
        per_sample_depends_on_one_pair,
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


def right_is_better_than_wrong(subject: MetricSubject) -> None:
    """`higher_is_better` says whether the score of right hypotheses is above or below that of wrong ones."""
    texts = ["ab", "ba", "aab"]
    right, wrong = subject.score(texts, texts), subject.score(texts, ["xyz", "", "zzzzz"])
    if right is None or wrong is None or right == wrong:
        raise RuleSkipped("right and wrong hypotheses do not both have a score of their own")
    stated, found = subject.cls.higher_is_better, right > wrong
    expect(
        stated is found,
        got=f"higher_is_better = {stated}, a score of {right} if all are right and of {wrong} if all are wrong",
        do=f"set higher_is_better = {found}",
    )


def per_sample_sums_to_score(subject: MetricSubject) -> None:
    """The numerators of `per_sample` over its denominators, both summed, are the score."""
    for references, hypotheses in [
        (REFERENCES, HYPOTHESES),
        *(([one], [other]) for one, other in product(REFERENCES[:4], HYPOTHESES[:4])),
    ]:
        numerators, denominators = _terms(subject, references, hypotheses)
        if total := denominators.sum():
            score, ratio = subject.score(references, hypotheses), float(numerators.sum() / total)
            expect(
                score is not None and math.isclose(score, ratio, rel_tol=1e-6, abs_tol=1e-9),
                got=f"{ratio:.6g} from per_sample and a score of {score} for {references[:4]} and {hypotheses[:4]}",
                do="return what the score sums, or leave per_sample out: no intervals are computed then",
            )


def per_sample_depends_on_one_pair(subject: MetricSubject) -> None:
    """The numerator and denominator of an image depend on its own two texts alone."""
    together = _terms(subject, REFERENCES, HYPOTHESES)
    for index, (one, other) in enumerate(zip(REFERENCES, HYPOTHESES, strict=True)):
        for what, all_terms, own in zip(
            ("numerator", "denominator"), together, _terms(subject, [one], [other]), strict=True
        ):
            expect(
                math.isclose(all_terms[index], own[0], rel_tol=1e-6, abs_tol=1e-9),
                got=f"for {one!r} and {other!r} the {what} {own[0]:.6g} alone and {all_terms[index]:.6g} among others",
                do="compute the terms of an image from its own texts: images are the units of the statistics",
            )


def texts_are_unchanged(subject: MetricSubject) -> None:
    """`score` and `per_sample` do not change their arguments."""
    references, hypotheses = list(REFERENCES), list(HYPOTHESES)
    subject.score(references, hypotheses)
    subject.cls().per_sample(references, hypotheses)
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
        metric.per_sample(REFERENCES, HYPOTHESES)
    expect(not events, got=f"{events[0] if events else ''}", do="read files in the constructor, if at all")


def _terms(subject: MetricSubject, references: Sequence[str], hypotheses: Sequence[str]) -> Terms:
    metric: Metric = subject.cls()
    terms = metric.per_sample(references, hypotheses)
    if terms is None:
        raise RuleSkipped("per_sample returns None: no intervals are computed")
    try:
        return as_terms(terms, len(references))
    except ValueError as error:
        raise ConformanceError(
            f"got {error}", got=str(error), do="return (numerators, denominators), a number per image in each"
        ) from None


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
