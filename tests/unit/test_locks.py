"""Locks: who holds one, filesystems without locks, and network filesystems."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers.commands import call
from helpers.running import TINY_PLUGIN, to_toml

from decoderbench.files.locks import holding, network_filesystem_of, unsafe_locks
from decoderbench.files.storage import StorageError


def without_links() -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


MISSING = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]

MOUNTS = r"""
21 1 0:20 / / rw,relatime - ext4 /dev/vda rw
22 21 0:30 / /home rw,relatime shared:3 - nfs4 server:/home rw,vers=4.2
23 22 0:31 / /home/me/local rw - xfs /dev/vdb rw
24 21 0:32 / /mnt/two\040words rw master:1 - fuse.sshfs me@there: rw
25 21 0:33 / /ceph rw - ceph mon:/ rw
26 21 0:34 / /over rw - cifs //server/over rw
27 21 0:35 / /over rw - tmpfs none rw
"""


def without_locks(patch: pytest.MonkeyPatch, error: int) -> None:
    def refusing(descriptor: Any, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    patch.setattr(fcntl, "flock", refusing)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/results", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/results", ""),
        ("/home/me/local/results", ""),
        ("/mnt/two words/results", "fuse.sshfs"),
        ("/ceph/results", ""),
        ("/over/results", ""),
        ("/results", ""),
    ],
)
def test_network_filesystem_is_that_of_the_innermost_last_mount(path: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.strip())
    assert network_filesystem_of(Path(path), mounts) == kind


def test_filesystem_is_unknown_where_the_system_lists_no_mounts(tmp_path: Path) -> None:
    assert network_filesystem_of(tmp_path, tmp_path / "missing") == ""


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("error", MISSING, ids=errno.errorcode.get)
def test_missing_locks_are_told_and_never_replaced_by_the_existence_of_a_file(error: int, tmp_path: Path) -> None:
    assert unsafe_locks(tmp_path) == ""
    with pytest.MonkeyPatch.context() as patch:
        without_locks(patch, error)
        assert unsafe_locks(tmp_path / "new") == f"its filesystem has no locks ({os.strerror(error)})"
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):  # a file that exists is no lock
            with pytest.raises(StorageError, match=r"cannot lock .*/lock: the filesystem has no locks; give a folder"):
                holding(tmp_path / "lock").__enter__()
    with holding(tmp_path / "lock") as held:
        assert held


def test_lock_of_another_holder_is_not_obtained(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with holding(path) as held:
        assert held
        with holding(path, timeout=0.01) as again:
            assert not again
        with pytest.raises(TimeoutError), FileLock(path).acquire(timeout=0):
            pass
    with holding(path) as held:
        assert held


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_lock_file_that_cannot_be_created_is_named(error: int, tmp_path: Path) -> None:
    opened = os.open

    def refusing(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(error, os.strerror(error), path)
        return opened(path, flags, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refusing)
        with pytest.raises(StorageError, match=r"cannot lock .*/lock: "):
            holding(tmp_path / "lock").__enter__()


def test_run_without_locks_holds_cells_by_heartbeats_or_is_refused_before_anything_is_decoded(
    tiny: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny["training"]["steps"] = 1
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(tiny))
    arguments = ["run", str(file), "-p", str(TINY_PLUGIN), "--results", str(tmp_path / "results"), "--device", "cpu"]
    flock = fcntl.flock

    def refusing(descriptor: Any, operation: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        place = Path(f"/proc/self/fd/{number}").resolve()
        if place.parent == tmp_path or (tmp_path / "results") in place.parents:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "hardlink_to", lambda path, target: without_links())
        status, _, printed = call(capfd, *arguments)
        assert status == 2
        assert "its filesystem has no locks (No locks available), and it has no hard links; give a folder" in printed
        assert not (tmp_path / "results").exists()
        status, _, printed = call(capfd, *arguments, "--no-locks", "--executor", "inline")
        assert status == 0, printed
        assert "heartbeats" not in caplog.text
    assert [path.name for path in (tmp_path / "results").glob("cells/*/result.json")] == ["result.json"]
    assert not list((tmp_path / "results").glob("cells/*/lock"))
    shutil.rmtree(tmp_path / "results")
    assert call(capfd, *arguments, "--executor", "inline")[0] == 0
    assert (
        "cells are held by heartbeats, as its filesystem has no locks (No locks available); what a dead" in caplog.text
    )
    (record,) = (tmp_path / "results").glob("cells/*/result.json")
    assert {"lock", "holder"}.isdisjoint(path.name for path in record.parent.iterdir())
    assert call(capfd, "verify", str(tmp_path / "results"))[0] == 0
