"""Deadlines and durations."""

from types import SimpleNamespace

import pytest

from decoderbench import deadline
from decoderbench.deadline import NO_DEADLINE, Deadline, parse_duration
from decoderbench.errors import ConfigError, PendingCellsError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1m30", 90),
        ("1.5h", 5400),
        (" 0.5s ", 0.5),
    ],
)
def test_parse_duration_returns_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "5x", "m", "1s1m", "1h 5", "inf", "nan", "1e3", "٣"])
def test_parse_duration_refuses_others(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a positive duration, as in 90s, 5m or 2h"):
        parse_duration(text)


def test_deadline_raises_once_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: clock.now))
    limit = Deadline(90.0, 100.0)
    clock.now = 189.9
    limit.check("at step 1")
    assert limit.remaining() == pytest.approx(0.1)
    clock.now = 190.0
    with pytest.raises(
        PendingCellsError, match=r"^stopped after 90 s at step 2; give the same command again to go on$"
    ):
        limit.check("at step 2")
    clock.now = 500.0
    assert limit.remaining() == 0


def test_without_limit_a_deadline_never_passes() -> None:
    NO_DEADLINE.check("ever")
    assert NO_DEADLINE.remaining() == float("inf")
