"""Leases by heartbeats: who holds a cell where locks do not hold, and what happens to a holder that stops."""

import errno
import os
import time
from pathlib import Path
from typing import NoReturn

import pytest
from helpers.recording import make_cell, make_record

from decoderbench.errors import ConfigError, PendingCellsError
from decoderbench.execution.death import Death, find_death, outcome_of_death
from decoderbench.files.storage import StorageError
from decoderbench.records import leases
from decoderbench.records.leases import Leases, LostLeaseError
from decoderbench.records.results_directory import ResultsDirectory
from decoderbench.registry.executor import CellTask


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoderbench.files.locks.network_filesystem_of", lambda path: "nfs4")
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
        stop_beating()
        as_another_process(monkeypatch)
        assert not other.is_free(cell)
        with other.lease(cell, timeout=5) as taken:
            assert taken
            with pytest.raises(LostLeaseError, match=f"the lease of {cell.cell_id} was lost"):
                paused.check_lease(cell)  # a pause longer than a heartbeat is enough to look
            with pytest.raises(LostLeaseError):
                paused.publish(make_record(cell))
            assert other.read(cell) is None
            other.publish(make_record(cell))
            with pytest.raises(LostLeaseError):
                paused.delete_result(cell)
    assert other.read(cell) is not None


def stop_beating() -> None:
    """Let the one lease of this process be renewed no more, as if the process were stopped or dead."""
    (lock,) = leases._locks.values()
    lock._hold.heartbeat_stop.set()  # type: ignore[union-attr]


def test_holder_that_has_died_is_waited_for_and_then_its_cell_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cells" / "cell"
    holder = Leases(tmp_path).hold(folder)
    assert holder.__enter__() is not None
    stop_beating()
    as_another_process(monkeypatch)
    other, begin = Leases(tmp_path), time.monotonic()
    assert not other.is_free(folder)
    while not other.is_free(folder):
        assert time.monotonic() - begin < 5
        time.sleep(0.02)
    assert time.monotonic() - begin > 0.4
    with other.hold(folder) as taken:
        assert taken is not None
        assert taken.left_by == b""  # who has looked has ended properly


def test_machine_that_cannot_see_locks_leaves_cells_that_may_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cells" / "cell"
    network, local = Leases(tmp_path), Leases(tmp_path)
    assert network.unsafe
    monkeypatch.setattr("decoderbench.files.locks.network_filesystem_of", lambda path: "")
    assert local.unsafe == ""
    way_out = r"has locked cell, but .* once nothing runs there, delete .*/cells/\*/lock"
    with local.hold(folder) as held:
        assert held is not None
        assert local.is_held(folder)
        with pytest.raises(ConfigError, match=way_out):
            network.refuse_unsafe()
        with pytest.raises(PendingCellsError, match=way_out), network.hold(folder):
            pass
        assert local.by_heartbeats  # as soon as another machine has tried
        with Leases(tmp_path).hold(folder) as again:  # of the machine that sees the lock
            assert again is None
        assert (folder / "lock").exists()
    assert not (folder / "lock").exists()  # who has locked it has seen that others cannot see that
    network.refuse_unsafe()
    with network.hold(folder) as held, local.hold(folder) as again:
        assert (held is not None, again) == (True, None)
    with local.hold(folder) as held:
        assert held is not None
        assert not (folder / "lock").exists()


def test_lock_that_nobody_holds_is_deleted_by_a_machine_that_can_tell_and_ignored_once_there_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, waiting = (tmp_path / "cells" / name for name in ("done", "waiting"))
    network, local = Leases(tmp_path), Leases(tmp_path)
    assert network.unsafe
    monkeypatch.setattr("decoderbench.files.locks.network_filesystem_of", lambda path: "")
    for folder in (done, waiting):
        with local.hold(folder) as held:
            assert held is not None
    (done / "result.json").write_text("{}")
    with network.hold(done) as held:
        assert held is not None
    with pytest.raises(PendingCellsError), network.hold(waiting):
        pass
    with local.hold(waiting) as held:
        assert held is not None
    assert not (waiting / "lock").exists()
    network.refuse_unsafe()


def test_lease_is_not_kept_by_a_process_that_could_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cells" / "cell"
    fail = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(leases, "write_atomically", lambda path, content: raise_error(fail))
        with pytest.raises(StorageError, match=r"disk"):
            Leases(tmp_path).hold(folder).__enter__()
    with Leases(tmp_path).hold(folder) as held:
        assert held is not None


def test_holder_that_cannot_be_read_ends_the_run_and_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leases(tmp_path).hold(tmp_path / "cells" / "cell") as held:
        assert held is not None
        for number, error in ((errno.EIO, StorageError), (errno.ESTALE, LostLeaseError)):
            fail = OSError(number, os.strerror(number))
            with monkeypatch.context() as patch:
                patch.setattr(Path, "read_bytes", lambda path, fail=fail: raise_error(fail))
                with pytest.raises(error):
                    held.check(thoroughly=True)
        held.check(thoroughly=True)


def raise_error(error: OSError) -> NoReturn:
    raise error


def test_death_of_a_process_is_published_by_whoever_holds_its_cell_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    task = CellTask(cell, {})
    dead, waiting = ResultsDirectory(tmp_path), ResultsDirectory(tmp_path)
    lease = dead.lease(cell)
    assert lease.__enter__()
    stop_beating()
    death = Death("crashed", "its process was killed by SIGKILL")
    death.leave(dead, task)
    assert not (dead.cell_directory(cell) / ".death.json").exists()  # this process is alive
    monkeypatch.setattr("decoderbench.execution.death.is_alive", lambda pid: False)
    death.leave(dead, task)
    as_another_process(monkeypatch)
    begin = time.monotonic()
    while not waiting.is_free(cell):  # who only looks makes no record
        assert time.monotonic() - begin < 5
        time.sleep(0.02)
    with waiting.lease(cell) as held:
        assert held
        assert find_death(waiting, task) == death
        assert outcome_of_death(waiting, task, death).new
    with waiting.lease(cell) as held:
        assert held
        assert find_death(waiting, task) is None
    record = waiting.read(cell)
    assert record is not None
    assert list(record.artifacts) == ["cell.json"]
    assert (record.status, record.reason) == ("crashed", death.reason)


def test_run_that_had_begun_with_locks_changes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoderbench.files.locks.network_filesystem_of", lambda path: "")
    local, folder = Leases(tmp_path), tmp_path / "cells" / "cell"
    assert not local.by_heartbeats
    looks = iter([False])  # the first look comes before the folder is there
    (tmp_path / leases.FOLDER).mkdir()
    monkeypatch.setattr(Leases, "by_heartbeats", property(lambda self: next(looks, True)))
    with local.hold(folder) as held:
        assert held is not None
        assert (folder / "holder").exists()
    assert not (folder / "lock").exists()


def test_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / leases.FOLDER).write_text("")  # no folder can be made
    with pytest.raises(PendingCellsError, match="cannot lock"), Leases(tmp_path).hold(tmp_path / "cells" / "cell"):
        pass
