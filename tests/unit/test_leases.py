"""Leases by heartbeats: who holds a cell where locks do not hold, and what happens to a holder that stops."""

import time
from pathlib import Path

import pytest
from helpers.recording import make_cell, make_record

from decoderbench import leases
from decoderbench.errors import ConfigError, PendingCellsError
from decoderbench.leases import Leases, LostLeaseError
from decoderbench.results_directory import ResultsDirectory


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoderbench.locks.network_filesystem_of", lambda path: "nfs4")
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(leases, "_locks", {})


def as_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process holds."""
    monkeypatch.setattr(leases, "_locks", {})


def test_a_cell_has_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cells" / "cell"
    first, second = Leases(tmp_path), Leases(tmp_path)
    with first.hold(folder) as held:
        assert held is not None
        assert not first.is_free(folder)
        with second.hold(folder) as again:
            assert again is None
        as_another_process(monkeypatch)
        with second.hold(folder, timeout=1.2) as again:  # the holder renews its record for as long as it lives
            assert again is None
        held.check(thoroughly=True)
    with second.hold(folder) as held:
        assert held is not None
    assert sorted(path.name for path in folder.iterdir()) == []


def test_holder_that_stops_loses_the_cell_and_is_told_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    paused, other = ResultsDirectory(tmp_path), ResultsDirectory(tmp_path)
    with paused.lease(cell) as held:
        assert held
        (lock,) = leases._locks.values()
        lock._hold.heartbeat_stop.set()  # as if the process were stopped, and its thread with it
        as_another_process(monkeypatch)
        assert not other.is_free(cell)
        with other.lease(cell, timeout=5) as taken:
            assert taken
            with pytest.raises(LostLeaseError, match=f"another process has taken {cell.cell_id} over"):
                paused.check_lease(cell)  # a pause longer than a heartbeat is enough to look
            with pytest.raises(LostLeaseError):
                paused.publish(make_record(cell))
            assert other.read(cell) is None
            other.publish(make_record(cell))
    assert other.read(cell) is not None


def test_holder_that_has_died_is_waited_for_and_its_cell_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cells" / "cell"
    holder = Leases(tmp_path).hold(folder)
    assert holder.__enter__() is not None
    (lock,) = leases._locks.values()
    lock._hold.heartbeat_stop.set()
    as_another_process(monkeypatch)
    other, begin = Leases(tmp_path), time.monotonic()
    assert not other.is_free(folder)
    assert other.seconds_after_death < 1
    with other.hold(folder, timeout=other.seconds_after_death) as taken:
        assert taken is not None
    assert 0.4 < time.monotonic() - begin < 3


def test_where_one_machine_cannot_see_locks_none_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cells" / "cell"
    network = Leases(tmp_path)
    monkeypatch.setattr("decoderbench.locks.network_filesystem_of", lambda path: "")
    local = Leases(tmp_path)
    assert local.unsafe == ""
    with local.hold(folder) as held:
        assert held is not None
        assert (folder / "lock").exists()
        assert local.is_held(folder)
    monkeypatch.setattr("decoderbench.locks.network_filesystem_of", lambda path: "nfs4")
    assert network.by_heartbeats
    way_out = r"has locked cell, but .* once nothing runs there, delete .*/cells/\*/lock"
    with pytest.raises(ConfigError, match=way_out):
        network.refuse_unsafe()
    with pytest.raises(PendingCellsError, match=way_out), network.hold(folder):
        pass
    assert local.by_heartbeats  # as soon as a machine that cannot see locks has begun
    (folder / "lock").unlink()
    network.refuse_unsafe()
    with network.hold(folder) as held, local.hold(folder) as again:
        assert (held is not None, again) == (True, None)
    with local.hold(folder) as held:
        assert held is not None
        assert not (folder / "lock").exists()


def test_run_that_had_begun_with_locks_changes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoderbench.locks.network_filesystem_of", lambda path: "")
    local, folder = Leases(tmp_path), tmp_path / "cells" / "cell"
    assert not local.by_heartbeats
    monkeypatch.setattr(Leases, "by_heartbeats", False)  # it has looked before the folder was there
    (tmp_path / leases.FOLDER).mkdir()
    with local.hold(folder) as held:
        assert held is not None
        assert not (folder / "lock").exists()
        assert (folder / "holder").exists()


def test_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / leases.FOLDER).write_text("")  # no folder can be made
    with pytest.raises(PendingCellsError, match="cannot lock"), Leases(tmp_path).hold(tmp_path / "cells" / "cell"):
        pass
