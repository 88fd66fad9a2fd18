"""Storage: order of writing and syncing, full disks, leftovers, and what counts as a failure of the disk."""

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.disk import Disk

from decoderbench.errors import PendingCellsError
from decoderbench.files import storage
from decoderbench.files.storage import (
    StorageError,
    append_durably,
    delete,
    find_leftovers,
    rename,
    storage_error_of,
    temporary_of,
    write_atomically,
    write_durably,
)

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO]
WORDS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full, your quota is used up",
    errno.EFBIG: "file too large for the filesystem or for `ulimit -f`",
    errno.EIO: "input/output error",
}


def test_write_syncs_content_before_it_names_the_file_and_the_name_before_it_returns(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with disk.watching():
        write_atomically(tmp_path / "a" / "b" / "c.json", b"new")
    temporary = f"a/b/{temporary_of(Path('c.json'))}"
    assert disk.operations == [
        ("mkdir", "a"),
        ("fsync", "."),
        ("mkdir", "a/b"),
        ("fsync", "a"),
        ("open", temporary),
        ("write", temporary),
        ("fsync", temporary),
        ("replace", "a/b/c.json"),
        ("fsync", "a/b"),
    ]
    assert disk.unsafe() == []


def without_sync(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.close(os.open(path, os.O_WRONLY))


MUTANTS: dict[str, tuple[str, Any, str]] = {
    "content not synced": ("write_durably", without_sync, "named before its content was synced"),
    "names not synced": ("sync_folder", lambda path: None, "name of a not synced"),
    "written in place": ("temporary_of", lambda path: path, "a/c.json written in place"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_storage_is_found_by_the_order_of_its_operations(mutant: str, tmp_path: Path) -> None:
    name, function, complaint = MUTANTS[mutant]
    disk = Disk(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, name, function)
        with disk.watching():
            write_atomically(tmp_path / "a" / "c.json", b"new")
    assert any(complaint in line for line in disk.unsafe())


@pytest.mark.parametrize("error", FULL, ids=errno.errorcode.get)
def test_failing_operation_keeps_the_old_content_and_names_path_size_and_free_space(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=12345))
    path, count = tmp_path / "a.json", 5
    for number in range(1, count + 1):
        for file in tmp_path.iterdir():
            file.unlink()
        write_atomically(path, b"old")
        disk = Disk(tmp_path, error, number)
        with disk.watching(), pytest.raises(StorageError) as raised:
            write_atomically(path, b"new content")
        assert len(disk.operations) == number
        said = f"cannot write {path} (11 bytes): {WORDS[error]}, 12,345 bytes are free there; "
        assert str(raised.value).startswith(said)
        assert str(raised.value).endswith("; give the same command again to go on")
        assert path.read_bytes() == (b"old" if number < count else b"new content")  # the last one syncs the name
        assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"


def test_append_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append_durably(path, b"one\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        with pytest.raises(StorageError, match=r"a.jsonl \(4 bytes\): file too large"):
            append_durably(path, b"two\n")  # two of its bytes fit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"one\n"
    append_durably(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_deleting_and_renaming_sync_the_folder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    disk = Disk(tmp_path)
    with disk.watching():
        delete(tmp_path / "a", tmp_path / "missing")
        rename(tmp_path / "b", tmp_path / "c")
    assert disk.operations == [("fsync", "."), ("replace", "c"), ("fsync", ".")]
    delete(tmp_path / "no folder" / "a")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.parent.write_text("a file"), "a file has the name of this folder"),
    ],
)
def test_path_that_cannot_be_a_file_is_named(prepare: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    if "file has" not in reason:
        path.parent.mkdir()
    prepare(path)
    with pytest.raises(StorageError, match=rf"cannot write {path} \(1 bytes\): {reason}"):
        write_atomically(path, b"1")


def test_storage_error_is_an_early_end_that_reaches_another_process(tmp_path: Path) -> None:
    error = StorageError("disk full")
    assert isinstance(error, PendingCellsError)
    assert error.exit_code == 4
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent), sent.exit_code) == (StorageError, str(error), 4)


def torch_error(folder: Path) -> BaseException:
    import torch

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        torch.save(torch.zeros(10_000), folder / "a.pt")
    except RuntimeError as error:
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    raise AssertionError


def safetensors_error(folder: Path) -> BaseException:
    import safetensors.torch
    import torch

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        safetensors.torch.save_file({"a": torch.zeros(10_000)}, folder / "a.safetensors")
    except Exception as error:  # noqa: BLE001 - which class it is, is the question
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    raise AssertionError


@pytest.mark.parametrize("cause", [torch_error, safetensors_error])
def test_full_disk_under_a_library_without_errno_is_recognized(
    cause: Callable[[Path], BaseException], tmp_path: Path
) -> None:
    found = storage_error_of(cause(tmp_path))
    assert found is not None
    assert "disk full or not writable: " in found.reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full", "/elsewhere/x.bin"), "cannot use /elsewhere/x.bin: disk full, "),
        (OSError(errno.EROFS, "ro", "/elsewhere/x.bin"), "the filesystem is read-only"),
        (OSError(errno.EIO, "Input/output error"), "input/output error: OSError: "),
        (OSError(errno.ENOENT, "No such file", "x"), None),
        (PermissionError(errno.EACCES, "denied", "x"), None),
        (RuntimeError("unexpected shape 576 vs 534"), None),
        (ValueError("No space left on device"), None),
    ],
)
def test_errors_of_components_are_failures_of_the_disk_only_if_the_disk_says_so(
    error: Exception, expected: str | None
) -> None:
    found = storage_error_of(error)
    assert found is None if expected is None else found is not None and expected in str(found)


def test_leftovers_are_the_temporary_files_of_dead_processes(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own, elsewhere = f".a.json.{dead.pid}.tmp", f".a.json.at-0123abcd.{dead.pid}.tmp"
    new = temporary_of(tmp_path / "f.json").name.replace(str(os.getpid()), str(dead.pid))
    for name in (own, elsewhere, new, f".b.json.{os.getppid()}.tmp", ".c.json.x.tmp", "d.tmp", ".e.json"):
        (tmp_path / name).touch()
    assert [path.name for path in find_leftovers(tmp_path)] == [own, new]
    assert len(find_leftovers(tmp_path, all_of_them=True)) == 5


def test_sync_of_a_folder_that_the_filesystem_cannot_sync_is_no_failure(tmp_path: Path) -> None:
    synced = os.fsync

    def refusing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "Invalid argument")
        synced(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refusing)
        write_atomically(tmp_path / "a", b"1")
    write_durably(tmp_path / "b", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
