"""my_component: the fraction of texts with the right number of characters."""

from collections.abc import Sequence
from typing import final

from decoderbench import Metric, hookimpl


@final
class MyComponent(Metric):
    """A fraction from 0 to 1; a column of `cells.csv`."""

    name = "my_component"

    def score(self, references: Sequence[str], hypotheses: Sequence[str]) -> float | None:
        if not references:
            return None  # undefined for an empty split
        right = sum(len(one) == len(other) for one, other in zip(references, hypotheses, strict=True))
        return right / len(references)


@hookimpl
def register_metrics() -> list[type[MyComponent]]:
    """Register the component with decoderbench."""
    return [MyComponent]
