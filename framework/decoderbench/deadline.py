"""Deadline: the time at which a run ends early, checked between images, steps and batches. No torch here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from decoderbench.errors import ConfigError, PendingCellsError

_UNITS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Deadline:
    """A limit on the time of a run.

    Attributes:
        seconds: the limit; None for no limit.
        started: when the time began, as `time.monotonic()`.
        stopping: returns why the run ends before, as in "stopped by SIGTERM"; an empty string until then.
        pause: called at each check; it may wait, while the cost of another cell is measured.
    """

    seconds: float | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    stopping: Callable[[], str] = str
    pause: Callable[[], None] = lambda: None

    def check(self, where: str) -> None:
        """Raise if the run ends; `where` completes the message, as in "at step 12 of 800".

        Raises:
            PendingCellsError: the limit has passed, or the run is to stop.
        """
        self.pause()
        if reason := self.stopping():
            raise PendingCellsError(f"{reason} {where}")
        if self.seconds is not None and self.remaining() <= 0:
            raise PendingCellsError(f"stopped after {self.seconds:g} s {where}")

    def is_over(self) -> bool:
        """Return whether the run ends now."""
        return bool(self.stopping()) or self.remaining() <= 0

    def remaining(self) -> float:
        """Return the seconds that are left, at least 0; infinity without a limit."""
        if self.seconds is None:
            return float("inf")
        return max(0.0, self.started + self.seconds - time.monotonic())


NO_DEADLINE = Deadline()


def parse_duration(text: str, option: str = "--stop-after") -> float:
    """Return the seconds of a duration such as `90`, `90s`, `5m`, `1.5h` or `1h30m`.

    Raises:
        ConfigError: it is no duration, or is not positive.
    """
    number = r"[0-9]+(?:\.[0-9]+)?"
    match = re.fullmatch(rf"(?:({number})h)?(?:({number})m)?(?:({number})s?)?", text.strip())
    parts = match.groups(default="0") if match else ()
    total = sum(float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False))
    if not total > 0:
        raise ConfigError([f"{option} {text}: must be a positive duration, as in 90s, 5m or 2h"])
    return total
