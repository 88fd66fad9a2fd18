"""The file operations of a process below a folder: counted, logged, and the process killed at one of them.

Python's own functions are replaced, in a forked process that ends soon. What a library in another language writes by
itself is not seen; a test looks for such files.
"""

import builtins
import fcntl
import io
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
When = Literal["before", "within", "after"]


@dataclass
class FileOperations:
    """Counts the file operations below a folder, and kills the process at one of them.

    Attributes:
        root: the folder.
        stop_at: the number of the operation, from 1, or the names of an operation and of a file, for the first such;
            None for no kill.
        when: before it, after it, or within it: a write writes a part of its bytes.
        seed: decides how long that part is.
        journal: a folder that receives the list of operations, the log which `lose_power` reads, and the files that
            were replaced or deleted.
    """

    root: Path
    stop_at: int | tuple[str, str] | None = None
    when: When = "before"
    seed: int = 0
    journal: Path | None = None
    _counter: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))  # shared with forked processes

    @property
    def count(self) -> int:
        """The number of operations so far, those of processes that were forked since included."""
        return int(struct.unpack("q", self._counter[:8])[0])

    def install(self) -> None:
        """Replace the functions that touch files, in this process for good."""
        self._write, self._os_open, self._os_close, self._link = os.write, os.open, os.close, os.link
        self._names = itertools.count()
        for name in ("fsync", "fdatasync", "ftruncate", "write", "pwrite"):
            setattr(os, name, self._by_descriptor(name, getattr(os, name)))
        for name in ("replace", "rename", "link", "symlink"):
            setattr(os, name, self._by_two_paths(name, getattr(os, name)))
        for name in ("unlink", "remove", "mkdir", "rmdir", "truncate"):
            setattr(os, name, self._by_path(name, getattr(os, name)))
        os.open = self._opening(os.open)  # type: ignore[assignment]
        io.open = builtins.open = self._opening_file(io.open)  # type: ignore[assignment]
        fcntl.flock = self._by_descriptor("flock", fcntl.flock)

    def _run(self, name: str, path: str, call: Callable[[], Any], *, part: Callable[[], Any] = lambda: None) -> Any:
        if not self._is_below(path):
            return call()
        number = self.count + 1
        self._counter[:8] = struct.pack("q", number)
        self._append("operations", (number, name, path))
        stops = self.stop_at in (number, (name, path.rpartition("/")[2]))
        if stops and self.when != "after":
            if self.when == "within":
                part()
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call()
        finally:
            if stops:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_below(self, path: str) -> bool:
        return path == str(self.root) or path.startswith(f"{self.root}/")

    def _note(self, *entry: Any) -> None:
        """Log what a power failure may undo."""
        self._append("log", entry)

    def _append(self, name: str, entry: tuple[Any, ...]) -> None:
        if self.journal is None:
            return
        descriptor = self._os_open(self.journal / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._write(descriptor, json.dumps(entry).encode() + b"\n")
        self._os_close(descriptor)

    def _keep(self, path: str) -> str | None:
        """Keep a file that is about to be replaced or deleted; return where, None if there is none."""
        if self.journal is None or not os.path.isfile(path):  # noqa: PTH113 - Path is slower, and this is called often
            return None
        kept = str(self.journal / f"{os.getpid()}-{next(self._names)}")
        self._link(path, kept)
        return kept

    def _by_descriptor(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: Any, *arguments: Any) -> Any:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = _path_of(number)

            def make() -> Any:
                result = original(descriptor, *arguments)
                if name in ("fsync", "fdatasync"):
                    self._note("sync", path)
                return result

            if name != "write" or not self._is_below(path):
                return self._run(name, path, make)
            self._note("write", path, os.fstat(number).st_size)
            part = bytes(arguments[0])
            return self._run(name, path, make, part=lambda: original(descriptor, part[: self._cut(len(part))]))

        return call

    def _by_path(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, int):
                return original(path, *arguments, **options)
            place = _absolute(path, options.get("dir_fd"))

            def make() -> Any:
                if name in ("unlink", "remove"):
                    kept = self._keep(place)
                    original(path, *arguments, **options)
                    self._note("unlink", place, kept)
                    return None
                result = original(path, *arguments, **options)
                if name in ("mkdir", "rmdir"):
                    self._note(name, place)
                return result

            return self._run(name, place, make)

        return call

    def _by_two_paths(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            places = _absolute(source, options.get("src_dir_fd")), _absolute(target, options.get("dst_dir_fd"))

            def make() -> Any:
                kept = self._keep(places[1])
                result = original(source, target, **options)
                self._note("replace" if name == "rename" else name, *places, kept)
                return result

            return self._run(name, places[1], make)

        return call

    def _opening(self, original: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            place = _absolute(path, options.get("dir_fd"))
            if not flags & WRITING or not self._is_below(place):
                return original(path, flags, *arguments, **options)

            def make() -> int:
                existed, size = _exists(place)
                descriptor = original(path, flags, *arguments, **options)
                self._note("open", place, existed, 0 if flags & os.O_TRUNC else size)
                return descriptor

            return int(self._run("open", place, make))

        return call

    def _opening_file(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            place = _path_of(file) if isinstance(file, int) else _absolute(file, None)
            if not set(mode) & set("wax+") or not self._is_below(place):
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)

            def make() -> io.FileIO:
                existed, size = _exists(place)
                raw = _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
                raw.operations, raw.place = self, place
                if not isinstance(file, int):
                    self._note("open", place, existed, 0 if "w" in mode else size)
                return raw

            raw = self._run("open", place, make)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return call

    def _cut(self, length: int) -> int:
        return random.Random(f"{self.seed} {self.stop_at}").randrange(length + 1)


class _File(io.FileIO):
    """A file opened for writing whose writes are operations."""

    operations: FileOperations
    place: str

    def write(self, data: Any, /) -> int:
        content, write = bytes(data), super().write
        self.operations._note("write", self.place, os.fstat(self.fileno()).st_size)
        cut = self.operations._cut
        return int(
            self.operations._run(
                "write", self.place, lambda: write(content), part=lambda: write(content[: cut(len(content))])
            )
        )


def lose_power(journal: Path, dice: random.Random, *, names: bool) -> None:
    """Change a folder to what a disk may hold after a power failure at the end of a journal.

    Files are cut at a random length where their content was not synced. With `names`, whatever was created, renamed or
    deleted in a folder that was not synced since is undone, up to a random point of each folder's order.
    """
    synced: dict[str, int] = {}
    pending: dict[str, list[tuple[str, ...]]] = {}
    for operation, path, *rest in entries(journal, "log"):
        folder = str(Path(path).parent)
        match operation:
            case "open":
                existed, size = rest
                synced[path] = min(size, synced.get(path, size))
                if not existed:
                    pending.setdefault(folder, []).append(("create", path))
            case "write":
                synced.setdefault(path, rest[0])
            case "sync":
                synced.pop(path, None)
                pending.pop(path, None)
            case "replace":
                target, kept = rest
                if path in synced:
                    synced[target] = synced.pop(path)
                else:
                    synced.pop(target, None)
                pending.setdefault(str(Path(target).parent), []).append(("replace", path, target, kept))
            case "unlink":
                synced.pop(path, None)
                pending.setdefault(folder, []).append(("unlink", path, rest[0]))
            case "mkdir":
                pending.setdefault(folder, []).append(("mkdir", path))
            case "rmdir":
                pending.pop(path, None)
    for path, size in synced.items():
        if Path(path).is_file() and Path(path).stat().st_size > size:
            os.truncate(path, dice.randint(size, Path(path).stat().st_size))
    if names:
        for operations in pending.values():
            survivors = dice.choice([0, dice.randint(0, len(operations))])
            for operation in reversed(operations[survivors:]):
                _undo(*operation)


def _undo(operation: str, path: str, *rest: str | None) -> None:
    match operation:
        case "create":
            Path(path).unlink(missing_ok=True)
        case "mkdir":
            shutil.rmtree(path, ignore_errors=True)
        case "unlink" if rest[0] is not None and Path(path).parent.is_dir() and not Path(path).exists():
            os.link(rest[0], path)
        case "replace":
            target, kept = rest
            assert target is not None
            if Path(target).exists():
                Path(target).rename(path)
                if kept is not None:
                    os.link(kept, target)


def entries(journal: Path, name: str) -> list[list[Any]]:
    """Return what was noted: of `operations` the number, the name and the path."""
    file = journal / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - called often
    except OSError:
        return ""


def _absolute(path: Any, folder: int | None) -> str:
    place = os.fsdecode(path)
    return os.path.join(_path_of(folder), place) if folder is not None else os.path.abspath(place)  # noqa: PTH100, PTH118


def _exists(path: str) -> tuple[bool, int]:
    try:
        return True, os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return False, 0
