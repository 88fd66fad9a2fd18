"""Deadline: the time at which a run ends early, checked between images, steps and batches. No torch here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from decoderbench.errors import ConfigError, PendingCellsError

_UNITS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Deadline:
    """A limit on the time of a run.

    Attributes:
        seconds: the limit; None for no limit.
        started: when the time began, as `time.monotonic()`.
    """

    seconds: float | None = None
    started: float = field(default_factory=lambda: time.monotonic())

    def check(self, where: str) -> None:
        """Raise if the limit has passed; `where` completes the message, as in "at step 12 of 800".

        Raises:
            PendingCellsError: the limit has passed.
        """
        if self.seconds is not None and self.remaining() <= 0:
            raise PendingCellsError(f"stopped after {self.seconds:g} s {where}")

    def remaining(self) -> float:
        """Return the seconds that are left, at least 0; infinity without a limit."""
        if self.seconds is None:
            return float("inf")
        return max(0.0, self.started + self.seconds - time.monotonic())


NO_DEADLINE = Deadline()


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90`, `90s`, `5m`, `1.5h` or `1h30m`.

    Raises:
        ConfigError: it is no duration, or is not positive.
    """
    number = r"[0-9]+(?:\.[0-9]+)?"
    match = re.fullmatch(rf"(?:({number})h)?(?:({number})m)?(?:({number})s?)?", text.strip())
    parts = match.groups(default="0") if match else ()
    total = sum(float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False))
    if not total > 0:
        raise ConfigError([f"--stop-after {text}: must be a positive duration, as in 90s, 5m or 2h"])
    return total
