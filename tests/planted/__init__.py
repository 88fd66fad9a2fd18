"""Components with one fault each: every rule of the conformance kit must catch one of them."""

from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A component with a fault, the rule that catches it, and a regular expression for the message."""

    kind: str
    cls: Any
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.cls.__name__}-{self.rule}"
