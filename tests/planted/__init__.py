"""Components that are broken in one place each, so that every rule of the kit is seen to catch something."""

from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A broken component, the rule that catches it, and what its message says."""

    kind: str
    cls: Any
    rule: str
    said: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.cls.__name__}-{self.rule}"
