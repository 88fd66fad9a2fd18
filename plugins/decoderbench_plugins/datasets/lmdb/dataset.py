"""LMDB files in the layout of scene text recognition: keys `image-000000001`, `label-000000001`, `num-samples`."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple, Self, final

from PIL.Image import Image
from pydantic import BeforeValidator, Field, model_validator

from decoderbench import ComponentConfig, ConfigError, DataError, Dataset, Sample, Split

from .forked import Report, call_forked

SPLITS: tuple[Split, ...] = ("train", "val", "test")
Folders = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]

MAGIC = 0xBEEFC0DE
META = struct.Struct("=I4x16xI92xQQ")  # MDB_meta: magic, page size, last page, transaction; in the host's byte order
PAGE_HEADERS = (16, 24)  # bytes before MDB_meta in LMDB 0.9 and 1.0
PAGE_SIZES = [2**power for power in range(9, 17)]
_open_lock = threading.Lock()  # a process may open an LMDB only once at a time


class _File(NamedTuple):
    path: Path
    split: Split
    database: str


@final
class LMDB(Dataset):
    """LMDB folders with the keys `image-%09d` (an encoded image), `label-%09d` (UTF-8) and `num-samples`.

    Keys are numbered from 1 without gaps; a wrong count or key is an error. With `ratio`, training folders are reduced
    to random samples so that their shares hold. This follows Baek et al. (2019), who mix MJ and ST half and half; they
    mix within each batch and so use every sample of both.

    An LMDB is memory-mapped, and reading a truncated or corrupt one may end the process. So its length is checked
    before each opening, and on Linux a separate process lists labels and hashes images.
    """

    name = "lmdb"

    class Config(ComponentConfig):
        """Options of `lmdb`."""

        train: Folders = ()
        """One LMDB folder or file to train on, or a list of them; relative to the experiment file."""
        val: Folders = ()
        """LMDB folders to validate on; if empty, a share of the training samples is used."""
        test: Folders = ()
        """LMDB folders to test on; if empty, a share of the training samples is used, which `test_fraction` gives."""
        ratio: tuple[float, ...] = ()
        """Shares of the training folders, in the same order, sum 1, such as [0.5, 0.5]; folders that exceed their
        share are reduced at random. Empty: all samples of each folder."""
        val_fraction: float = Field(default=0.05, gt=0, lt=1)
        """Share of the training samples to validate on if `val` is empty."""
        test_fraction: float = Field(default=0.0, ge=0, lt=1)
        """Share of the training samples to test on if `test` is empty."""
        limit: int | None = Field(default=None, ge=1)
        """Largest number of samples per split; further samples are excluded at random."""
        split_seed: int = 0
        """Another seed selects other samples for validation, ratio and limit."""
        database: str = ""
        """Name of the sub-database to read in every folder; empty: the main database."""

        @model_validator(mode="after")
        def _check_ratio(self) -> Self:
            ratio = self.ratio
            if ratio and (len(ratio) != len(self.train) or min(ratio) <= 0 or abs(sum(ratio) - 1) > 1e-9):
                raise ValueError(
                    f"ratio must be one share above 0 for each of {len(self.train)} training folders, sum 1; "
                    f"given {list(ratio)}"
                )
            if sum(self.dealt.values()) >= 1:
                raise ValueError("val_fraction and test_fraction must leave something to train on")
            return self

        @property
        def dealt(self) -> dict[Split, float]:
            """The share of the training samples that val and test each get where no folder is given for them."""
            shares: dict[Split, float] = {"val": self.val_fraction, "test": self.test_fraction}
            return {split: share for split, share in shares.items() if share and not getattr(self, split)}

    config: Config

    def samples(self) -> Sequence[Sample]:
        return self._listed[0]

    def notes(self) -> Sequence[str]:
        return self._listed[1]

    def label_source(self) -> str:
        return f"the keys label-000000001 and so on of {', '.join(self._files)}"

    def split_source(self) -> str:
        config = self.config
        names = {split: [name for name, file in self._files.items() if file.split == split] for split in SPLITS}
        given = ", ".join(f"{split} {' and '.join(its)}" for split, its in names.items() if its)
        dealt = " and ".join(f"{split} ({share:g})" for split, share in config.dealt.items())
        return f"given by options: {given}" + (f"; {dealt} dealt from train, seed {config.split_seed}" if dealt else "")

    def load_image(self, index: int) -> Image:
        name, _, key = self._listed[0][index].key.rpartition("/")
        file = self._files[name]
        with _reading(file) as transaction:
            data = bytes(transaction.get(key.encode(), b""))
        if not data:
            raise DataError(f"{key} is empty or missing in {file.path}")
        return self.decode(BytesIO(data))

    def fingerprint(self) -> str:
        keys: dict[str, list[str]] = {name: [] for name in self._files}
        for sample in self._listed[0]:
            name, _, key = sample.key.rpartition("/")
            keys[name].append(key)
        # Images in use only. A separate process reads them before any worker does, so a crash does no harm.
        images, total, before = list[str](), len(self._listed[0]), 0
        for name, file in self._files.items():
            report = partial(self._report_hashed, before, total)
            images.append(call_forked(_hash_images, file, keys[name], report=report, what=str(file.path)))
            before += len(keys[name])
        return _digest([self._rows_digest, images])

    def stamp(self) -> str | None:
        files = [file.path for file in self._files.values()]
        states = [path.stat() for path in files]
        if max(max(state.st_mtime, state.st_ctime) for state in states) > time.time() - 2:
            return None  # another change could get the same time
        rows = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
        return _digest([self._rows_digest, self.config.database, [str(path) for path in files], rows])

    @cached_property
    def _files(self) -> dict[str, _File]:
        """Every LMDB by the name in the keys of its samples: the shortest unique end of its path."""
        if not self.config.train or not (self.config.test or self.config.test_fraction):
            raise ConfigError(
                ["dataset lmdb: options train and test must name LMDB folders, or test_fraction give a share of train"]
            )
        given = [(split, folder) for split in SPLITS for folder in getattr(self.config, split)]
        folders = [(self.base_dir / Path(folder).expanduser()).resolve() for _, folder in given]
        if len(set(folders)) < len(folders):
            duplicate = next(folder for folder in folders if folders.count(folder) > 1)
            raise DataError(f"{duplicate} is listed twice in train, val and test; list it once")
        depth = 1
        while len(set(names := ["/".join(folder.parts[-depth:]) for folder in folders])) < len(names):
            depth += 1
        files = [folder / "data.mdb" if folder.is_dir() else folder for folder in folders]
        return {
            name: _File(file, split, self.config.database)
            for name, file, (split, _) in zip(names, files, given, strict=True)
        }

    @cached_property
    def _listed(self) -> tuple[list[Sample], list[str]]:
        _library()  # raises here if it is missing, and not in another process
        config, notes, labels = self.config, list[str](), dict[str, list[str]]()
        for name, file in self._files.items():
            found = call_forked(_list_labels, file, report=self.report_progress, what=str(file.path))
            labels[name], others, problems = found
            for problem in problems:
                self.report_problem(problem)
            if others:
                notes.append(f"{name}: keys that are neither images nor labels are ignored: {others:,}")
        numbers = {name: list(range(1, len(texts) + 1)) for name, texts in labels.items()}
        if config.ratio:
            shares = dict(zip(numbers, config.ratio, strict=False))  # training folders are listed first
            total = min(len(numbers[name]) / share for name, share in shares.items())
            for name, share in shares.items():
                numbers[name] = self._draw_sample(numbers[name], round(total * share), f"ratio {name}")
                notes.append(f"ratio: {len(numbers[name]):,} of {len(labels[name]):,} samples of {name} are used")
        samples: list[Sample] = []
        for name, file in self._files.items():
            keys = [f"{name}/image-{number:09d}" for number in numbers[name]]
            splits: list[Split] = [file.split] * len(keys)
            if file.split == "train" and config.dealt:
                val, test = config.dealt.get("val", 0.0), config.dealt.get("test", 0.0)
                splits = self.deal_splits(keys, (1 - val - test, val, test), seed=config.split_seed)
            rows = zip(keys, numbers[name], splits, strict=True)
            samples += [Sample(key, labels[name][number - 1], split) for key, number, split in rows]
        for split in SPLITS:
            places = [place for place, sample in enumerate(samples) if sample.split == split]
            if config.limit is not None and len(places) > config.limit:
                excluded = set(places) - set(self._draw_sample(places, config.limit, f"limit {split}"))
                samples = [sample for place, sample in enumerate(samples) if place not in excluded]
                notes.append(f"limit: {config.limit:,} of {len(places):,} {split} samples are used")
        return samples, notes

    def _report_hashed(self, before: int, total: int, done: int, _of_file: int) -> None:
        self.report_progress(before + done, total)

    def _draw_sample(self, items: list[int], count: int, purpose: str) -> list[int]:
        # Python promises to keep the sequence of `random()` across versions, but not that of `sample`.
        random = Random(f"{self.config.split_seed} {purpose}")
        return sorted(sorted(items, key=lambda _: random.random())[:count])

    @cached_property
    def _rows_digest(self) -> str:
        return _digest([(sample.key, sample.label, sample.split) for sample in self._listed[0]])


def _list_labels(file: _File, report: Report) -> tuple[list[str], int, list[str]]:
    """Return the labels 1 to n, the number of keys that are neither image, label nor count, and what is wrong."""
    path, problems, undecodable = file.path, list[str](), list[bytes]()
    with _reading(file) as transaction:
        given = bytes(transaction.get(b"num-samples", b"missing")[:32])
        count = int(given) if given.isdigit() else 0
        if not given.isdigit():
            problems.append(
                f"num-samples in {path} is {given.decode(errors='replace')}, not a count; set it to the number of "
                "images, or set the option database if the keys are in a sub-database"
            )
        images, unexpected = 0, b""
        for key, _ in _items(transaction, b"image-"):
            if key != b"image-%09d" % (images + 1):
                unexpected = key
                break
            images += 1
            report(images, 2 * count)
        labels = list[str]()
        for key, value in _items(transaction, b"label-"):
            if key != b"label-%09d" % (len(labels) + 1):
                unexpected = unexpected or key
                break
            report(images + len(labels), 2 * count)
            try:
                labels.append(str(value, "utf-8"))
            except UnicodeDecodeError:
                labels.append(str(value, "utf-8", errors="replace"))
                undecodable.append(key)
        entries = transaction.stat()["entries"]
    if undecodable:
        others = f", nor are {len(undecodable) - 1:,} others" if len(undecodable) > 1 else ""
        problems.append(f"{undecodable[0].decode()} in {path} is not UTF-8{others}; encode labels as UTF-8")
    number = min(images, len(labels)) + 1
    image, label = f"image-{number:09d}", f"label-{number:09d}"
    if images != len(labels):
        present, missing = (image, label) if images > len(labels) else (label, image)
        problems.append(f"{present} in {path} has no {missing}; write both, or neither and renumber")
    elif unexpected:
        problems.append(
            f"{path} has {unexpected!r}, but not {image} and {label}; number keys from 000000001 without gaps"
        )
    elif given.isdigit() and count != images:
        problems.append(f"num-samples is {count:,}, but {path} has {images:,} images; correct num-samples")
    return labels[: number - 1], 0 if problems else entries - 2 * images - 1, problems


def _items(transaction: Any, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    cursor = transaction.cursor()
    for key, value in cursor if cursor.set_range(prefix) else ():
        if key[: len(prefix)] != prefix:
            break
        yield bytes(key), value


def _hash_images(file: _File, keys: Sequence[str], report: Report) -> str:
    digest = hashlib.sha256()
    with _reading(file) as transaction:
        for done, key in enumerate(keys):
            report(done, len(keys))
            value = transaction.get(key.encode(), b"")
            digest.update(len(value).to_bytes(8))
            digest.update(value)
    return digest.hexdigest()


@contextmanager
def _reading(file: _File) -> Iterator[Any]:
    """Yield a transaction whose values are views into the memory map.

    Opening takes about 40 microseconds, so every use opens the file again and nothing is shared across a fork.
    """
    lmdb = _library()
    _refuse_truncated(file.path)
    name = file.database.encode() or None
    # Readahead, the default, is kept: keys are read in order, and reading an uncached file is ten times as fast.
    options: dict[str, Any] = {"create": False, "readonly": True, "lock": False, "meminit": False}
    try:
        with _open_lock, lmdb.open(str(file.path), subdir=False, max_dbs=1, **options) as environment:
            database = environment.open_db(name, create=False)
            with environment.begin(db=database, buffers=True) as transaction:
                yield transaction
    except lmdb.NotFoundError as error:
        raise DataError(f"{file.path} has no sub-database {file.database!r}; check the option database") from error
    except lmdb.Error as error:
        raise DataError(f"{file.path} cannot be read as an LMDB: {error}") from error


def _refuse_truncated(path: Path) -> None:
    """Raise if a file ends before the last page of its newest transaction, because it is mapped up to that page."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a folder with a data.mdb, or such a file")
    with path.open("rb") as file:
        first = file.read(256).ljust(256, b"\0")
        start = next((start for start in PAGE_HEADERS if META.unpack_from(first, start)[0] == MAGIC), 0)
        page_size = META.unpack_from(first, start)[1]
        if not start or page_size not in PAGE_SIZES:
            raise DataError(f"{path} is not an LMDB, or is from another kind of machine; create it again here")
        file.seek(page_size)
        second = file.read(256).ljust(256, b"\0")
        size = file.seek(0, os.SEEK_END)
    states = [META.unpack_from(page, start) for page in (first, second)]
    if {state[:2] for state in states} != {(MAGIC, page_size)} and size >= 2 * page_size:
        raise DataError(f"{path} is corrupt: its two headers disagree; copy it again")
    needed = (max(states, key=lambda state: state[3])[2] + 1) * page_size
    if size < needed:
        raise DataError(
            f"{path} is truncated: {size:,} bytes found, {needed:,} needed; copy it again, and if the source is as "
            "short, run mdb_copy -c there"
        )


def _library() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise ConfigError([f"dataset lmdb needs a library: pip install 'decoderbench[lmdb]' ({error})"]) from error
    return lmdb


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
