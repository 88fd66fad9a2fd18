"""progress.json of a running cell: what it states, that it goes away, and that it never fails a cell."""

import itertools
import json
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import torch

from decoderbench.records import cell_progress
from decoderbench.records.cell_progress import FILE, Pace, ProgressFile, read_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that moves one second per look from the time in the list."""
    now = [100.0]
    ticks = itertools.count()
    monkeypatch.setattr(cell_progress.time, "monotonic", lambda: now[0] + next(ticks))
    return now


def test_file_states_steps_scores_and_process_and_is_deleted_at_the_end(tmp_path: Path, clock: list[float]) -> None:
    with ProgressFile(tmp_path, steps=100) as progress:
        assert (first := read_progress(tmp_path)) is not None
        assert (first.step, first.first_step, first.seconds_left) == (0, None, None)
        progress.progressed(10, 2.5)
        clock[0] += 10
        progress.validated(20, torch.tensor(0.25))
        found = read_progress(tmp_path)
        assert found is not None
        assert (found.first_step, found.step, found.steps, found.loss, found.score) == (10, 20, 100, 2.5, 0.25)
        assert found.pid == cell_progress.os.getpid()
        assert found.host == cell_progress.socket.gethostname()
        assert found.started <= found.updated
        assert found.seconds_left is not None
        assert found.seconds_left > 80 * 1.0
    assert list(tmp_path.iterdir()) == []


def test_file_is_deleted_when_the_cell_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ProgressFile(tmp_path, steps=1):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_file_is_written_once_per_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(cell_progress.time, "monotonic", lambda: now[0])
    with ProgressFile(tmp_path, steps=100) as progress:
        written = []
        for step in range(1, 31):
            now[0] = step / 10
            progress.progressed(step, 1.0)
            written.append(json.loads((tmp_path / FILE).read_text())["step"])
    assert sorted(set(written)) == [0, 10, 20, 30]


def test_time_left_counts_the_steps_of_this_attempt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pace = [0.0], Pace()
    monkeypatch.setattr(cell_progress.time, "monotonic", lambda: now[0])
    for now[0], step in ((5.0, 900), (7.0, 910)):
        pace.report(step)
    assert pace.first == 900
    assert pace.seconds_left(1000) == pytest.approx(90 * 0.2)
    assert pace.seconds_left(900) == 0
    for now[0], step in ((8.0, 0), (9.0, 1)):  # a trainer that starts over
        pace.report(step)
    assert pace.seconds_left(11) == pytest.approx(10)


def test_changed_system_clock_changes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, jump = [0.0], [timedelta(0)]

    class JumpingClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "JumpingClock":
            return super().now(tz) + jump[0]

    monkeypatch.setattr(cell_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cell_progress, "datetime", JumpingClock)
    with ProgressFile(tmp_path, steps=100) as progress:
        for step, jump[0] in ((10, timedelta(days=1)), (20, timedelta(days=-1))):
            now[0] += 2.0
            progress.progressed(step, 1.0)
        found = read_progress(tmp_path)
    assert found is not None
    assert found.updated < found.started, "the clock was set back"
    assert found.seconds_left == pytest.approx(80 * 0.2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "many", object(), torch.zeros(2), True])
def test_values_that_are_no_numbers_are_left_out(tmp_path: Path, clock: list[float], value: object) -> None:
    with ProgressFile(tmp_path, steps=5) as progress:
        progress.progressed(value, value)
        progress.validated(3, value)
        found = read_progress(tmp_path)
    assert found is not None
    assert (found.step, found.loss, found.score) == (3, None, None)


def test_failing_disk_fails_no_cell(tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with ProgressFile(tmp_path, steps=5) as progress:
        monkeypatch.setattr(Path, "write_text", refuse)
        progress.progressed(1, 1.0)
        assert read_progress(tmp_path) is not None, "the last state that could be written"
        monkeypatch.setattr(Path, "unlink", refuse)
    with ProgressFile(tmp_path / "missing", steps=5) as progress:
        progress.progressed(1, 1.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00" * 200,
        b"[]",
        b'{"step": 1}',
        b'{"host": "h", "pid": 1, "started": "", "updated": "", "steps": 10, "step": -1}',
        b'{"host": "h", "pid": 1, "started": "", "updated": "", "steps": 10, "seconds_per_step": -3}',
        b'{"host": "h", "pid": 1, "started": "", "updated": "", "steps": 10, "loss": NaN}',
    ],
)
def test_damaged_file_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_progress(tmp_path) is None


def test_folder_in_place_of_the_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert read_progress(tmp_path) is None
    with ProgressFile(tmp_path, steps=5):
        assert read_progress(tmp_path) is None
