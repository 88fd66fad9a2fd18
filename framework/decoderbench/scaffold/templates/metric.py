"""my_component: the fraction of texts with the right number of characters."""

from collections.abc import Sequence
from typing import final

from decoderbench import Metric, hookimpl


@final
class MyComponent(Metric):
    """A fraction from 0 to 1; a column of `tables/cells.csv`."""

    name = "my_component"
    higher_is_better = True

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        if not references:
            return None  # undefined for an empty split
        right, images = self.per_sample(references, hypotheses)
        return sum(right) / sum(images)

    def per_sample(self, references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[float], list[float]]:
        right = [float(len(one) == len(other)) for one, other in zip(references, hypotheses, strict=True)]
        return right, [1.0] * len(right)  # the score is a mean over images; without this method it has no interval


@hookimpl
def register_metrics() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
