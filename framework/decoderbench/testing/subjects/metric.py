"""A metric under check."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decoderbench.metrics import Metric, number_or_none
from decoderbench.testing.subjects.base import Subject

REFERENCES = ["", "a", "ab", "aab", "été", "e\u0301", "漢字", "😀", "0123", "a b", "a,b\n", "b" * 40]
HYPOTHESES = ["", "b", "ab", "aba", "ete", "é", "漢", "😀😀", "123", "ab", "a,b", "b" * 39]


@dataclass
class MetricSubject(Subject):
    """A metric class."""

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        """Return the score that a record would hold, by a new metric object, as each cell has one."""
        metric: Metric = self.cls()
        return number_or_none(metric.score(references, hypotheses))

    def outcomes(self) -> Iterator[bytes]:
        yield repr(self.score(REFERENCES, HYPOTHESES)).encode()
        yield repr(self.score(REFERENCES, REFERENCES)).encode()
