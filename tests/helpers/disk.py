"""A disk that counts what is written below a folder, fails from an operation on, and knows what is on it for sure."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ADVISORY = {"lock", "progress.json"}
"""Files that no result depends on."""


@dataclass
class Disk:
    """Watches the operations that write below a folder.

    Attributes:
        root: the folder.
        error: the errno of the operations that fail.
        fails_at: number of the first operation that fails, from 1; 0 for none.
        lasting: whether all later ones fail too.
        operations: name and path below the folder of each operation, in order.
    """

    root: Path
    error: int = 0
    fails_at: int = 0
    lasting: bool = True
    operations: list[tuple[str, str]] = field(default_factory=list)
    _paths: dict[int, Path] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch, and fail, the operations of the block."""
        open_, write, fsync, close = os.open, os.write, os.fsync, os.close

        def opening(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            inside = options.get("dir_fd") is None and isinstance(path, str | os.PathLike) and self._has(path)
            if inside and flags & WRITES and not flags & os.O_DIRECTORY:  # which filelock tries, without a name
                self._count("open", path)
            descriptor = open_(path, flags, *rest, **options)
            self._paths.pop(descriptor, None)
            if inside:
                self._paths[descriptor] = Path(path)
            return descriptor

        def closing(descriptor: int) -> None:
            self._paths.pop(descriptor, None)
            close(descriptor)

        def with_descriptor(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(descriptor: int, *rest: Any) -> Any:
                if (path := self._paths.get(descriptor)) is not None:
                    self._count(name, path)
                return function(descriptor, *rest)

            return call

        def with_path(name: str, function: Callable[..., Any], position: int) -> Callable[..., Any]:
            def call(*paths: Any, **options: Any) -> Any:
                if self._has(paths[position]):
                    self._count(name, paths[position])
                return function(*paths, **options)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", opening)
            patch.setattr(os, "close", closing)
            patch.setattr(os, "write", with_descriptor("write", write))
            patch.setattr(os, "fsync", with_descriptor("fsync", fsync))
            patch.setattr(os, "replace", with_path("replace", os.replace, 1))
            patch.setattr(os, "mkdir", with_path("mkdir", os.mkdir, 0))
            yield

    @property
    def has_failed(self) -> bool:
        """Whether an operation has failed."""
        return 0 < self.fails_at <= len(self.operations)

    def unsafe(self) -> list[str]:
        """Return what a power failure in the middle of these operations could leave cut, empty or without a name."""
        found: list[str] = []
        dirty: set[str] = set()  # files with content that was not synced
        seen: set[str] = set()
        named: set[str] = set()  # files and folders whose name was not synced
        for name, path in self.operations:
            if Path(path).name in ADVISORY:
                continue
            if name in ("open", "write"):
                dirty.add(path)
                if path.endswith(".jsonl"):  # which grows in place
                    named |= {path} - seen
                elif not path.endswith(".tmp"):
                    found.append(f"{path} written in place")
                seen.add(path)
            elif name == "fsync":
                dirty.discard(path)
                named = {one for one in named if Path(one).parent.as_posix() != path}
            else:
                start = Path(path).with_name(f".{Path(path).name}.").as_posix()
                found += [f"{path} named before its content was synced" for one in dirty if one.startswith(start)]
                if path.endswith("/result.json"):
                    found += [f"{path} written before the name of {one} was synced" for one in sorted(named)]
                    found += [f"{path} written before {one} was synced" for one in sorted(dirty)]
                named.add(path)
        return found + [f"name of {one} not synced" for one in sorted(named)]

    def _has(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.root)

    def _count(self, name: str, path: Any) -> None:
        self.operations.append((name, Path(path).relative_to(self.root).as_posix()))
        number = len(self.operations)
        if self.fails_at and (number == self.fails_at or (self.lasting and number > self.fails_at)):
            raise OSError(self.error, os.strerror(self.error))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a filesystem in memory on a folder, during the block; skip the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("filesystems can be mounted by root only")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
