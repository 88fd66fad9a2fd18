"""The cache of decoded images: each is decoded and resized once, then mapped into memory by whoever trains.

A cache is a folder named by the hash of the data and the image options. It is built beside its place under a
lock and renamed when complete, so that it is either whole or absent. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from filelock import FileLock, Timeout

from decoderbench.data.contact_sheet import contact_sheet
from decoderbench.data.dataset import Dataset, Sample, Split
from decoderbench.data.image_decoding import decode_all
from decoderbench.data.width_buckets import places, write_buckets
from decoderbench.errors import DataError
from decoderbench.identity import identity_of
from decoderbench.options import ImageOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 4
SHOWN = 64  # samples on a contact sheet
logger = logging.getLogger("decoderbench")


@dataclass(frozen=True, eq=False)
class ImageStore:
    """All images of a dataset, mapped into memory; a row stands for a sample.

    Attributes:
        directory: where it lies; `read_store` opens it again without the dataset.
        buckets: images of one width each, (N_b, C, H, W_b) uint8, the narrowest first; one for all unless widths
            are kept. Mapped copy-on-write, so that `torch.from_numpy` takes them as they are.
        widths: (N,) the columns of each image before it was padded to the width of its bucket.
        bucket_of: (N,) the bucket of each row.
        place_of: (N,) the place of each row in its bucket.
        keys: N names of samples.
        labels: N labels.
        splits: N splits.
        pixel_hashes: N sha256 of the pixels after resizing; empty where unreadable.
        unreadable: row -> reason; the pixels of such a row are zero.
        data_hash: hex digest over the dataset's fingerprint and the image options.
    """

    directory: Path
    buckets: tuple[NDArray[np.uint8], ...]
    widths: NDArray[np.int64]
    bucket_of: NDArray[np.int64]
    place_of: NDArray[np.int64]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[Split, ...]
    pixel_hashes: tuple[str, ...]
    unreadable: dict[int, str]
    squeezed: tuple[int, ...]
    data_hash: str

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def images(self) -> NDArray[np.uint8]:
        """All images of a store of one width, (N, C, H, W); row i is sample i."""
        (images,) = self.buckets
        return images

    @property
    def bucket_widths(self) -> list[int]:
        """The width of each bucket, ascending."""
        return [images.shape[3] for images in self.buckets]

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one image, (C, H, W), as wide as it was before it was padded."""
        image = self.buckets[self.bucket_of[row]][self.place_of[row]]
        return cast("NDArray[np.uint8]", image[:, :, : self.widths[row]])

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of the readable images of `split`, ascending."""
        rows = (row for row, its_split in enumerate(self.splits) if its_split == split)
        return np.fromiter((row for row in rows if row not in self.unreadable), dtype=np.int64)


def default_cache_dir() -> Path:
    """Return `$DECODERBENCH_CACHE`, else `$XDG_CACHE_HOME/decoderbench`, else `~/.cache/decoderbench`."""
    if own := os.environ.get("DECODERBENCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "decoderbench"


def open_store(
    dataset: Dataset,
    samples: Sequence[Sample],
    options: ImageOptions,
    *,
    cache_dir: Path | None = None,
    allow_unreadable: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageStore:
    """Open the cache of a dataset's images, building it first if need be.

    Several processes may ask at once: one builds, the others wait for it. A damaged cache is set aside and
    built again.

    Args:
        dataset: where the images come from.
        samples: `dataset.samples()`, all of them.
        options: what each image becomes.
        cache_dir: default: `default_cache_dir()`.
        allow_unreadable: accept images that cannot be decoded; they are listed in `ImageStore.unreadable`.
        workers: processes that decode; default: one per usable core.
        progress: called with the number of images done and their total while a cache is built.

    Raises:
        DataError: there is no sample, an image cannot be decoded, or the cache cannot be written.
    """
    if not samples:
        raise DataError(f"dataset {dataset.name!r} has no samples")
    cache_dir = cache_dir or default_cache_dir()
    stamp = dataset.stamp()
    data_hash = compute_data_hash(dataset, options, cache_dir=cache_dir, stamp=stamp)
    directory = cache_dir / "images" / data_hash[:32]
    try:
        store = read_store(directory)
    except DataError:
        build = _Build(dataset, samples, options, data_hash, allow_unreadable, stamp)
        store = _build_store(build, directory, workers, progress)
    if (store.keys, store.labels, store.splits) != _columns(samples):
        raise DataError(
            f"dataset {dataset.name!r} has other samples than the cache {directory} under the same "
            "fingerprint; its fingerprint() must cover every key, label and split"
        )
    if not allow_unreadable:
        _refuse_unreadable(store.unreadable, store.keys)
    return store


def compute_data_hash(
    dataset: Dataset, options: ImageOptions, *, cache_dir: Path | None = None, stamp: str | None = None
) -> str:
    """Return the hex digest over the dataset's fingerprint and the image options; no image is decoded."""
    fingerprint = _fingerprint(dataset, stamp or dataset.stamp(), cache_dir or default_cache_dir())
    return _digest(FORMAT_VERSION, fingerprint, identity_of(options))


def read_store(directory: Path) -> ImageStore:
    """Open a cache that exists, by its folder alone: what a worker does whose parent has opened it before.

    Raises:
        DataError: it is absent, damaged, or of another version.
    """
    try:
        digest, _, body = (directory / "meta.json").read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("meta.json: sha256 mismatch")
        meta: dict[str, Any] = json.loads(body)
        images = tuple(_map_bucket(directory / name, shape) for name, shape in meta["buckets"])
        widths = np.array(meta["widths"], dtype=np.int64)
        bucket_of, place_of = places(widths, [bucket.shape[3] for bucket in images])
        return ImageStore(
            directory=directory,
            buckets=images,
            widths=widths,
            bucket_of=bucket_of,
            place_of=place_of,
            keys=tuple(meta["keys"]),
            labels=tuple(meta["labels"]),
            splits=tuple(meta["splits"]),
            pixel_hashes=tuple(meta["pixel_hashes"]),
            unreadable=dict(meta["unreadable"]),
            squeezed=tuple(meta["squeezed"]),
            data_hash=meta["data_hash"],
        )
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"cache of images {directory} cannot be used: {error}") from error


@dataclass(frozen=True)
class _Build:
    """One building of a cache: everything is checked before anything is published."""

    dataset: Dataset
    samples: Sequence[Sample]
    options: ImageOptions
    data_hash: str
    allow_unreadable: bool
    stamp: str | None

    def publish(self, directory: Path, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
        """Build in a folder beside `directory`, then rename; the lock is held."""
        building = directory.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            self._write(building, workers, progress)
            if self.stamp is not None and self.dataset.stamp() != self.stamp:
                raise DataError(f"dataset {self.dataset.name!r} changed while its images were read; run again")
            building.replace(directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _write(self, building: Path, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
        count, options = len(self.samples), self.options
        shape = (count, options.channels, options.height, options.width)
        file = building / "images.npy"
        # Makes the header and a sparse file of the right size.
        offset = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).offset
        decoded = decode_all(self.dataset, options, count, file, offset, workers=workers, progress=progress)
        keys, labels, splits = _columns(self.samples)
        if not self.allow_unreadable:
            _refuse_unreadable(decoded.unreadable, keys)
        buckets = [(file.name, list(shape))]
        if options.resize == "keep":
            buckets = write_buckets(file, offset, decoded.widths, options, building)
            file.unlink()
        meta = {
            "buckets": buckets,
            "widths": decoded.widths,
            "data_hash": self.data_hash,
            "keys": keys,
            "labels": labels,
            "splits": splits,
            "pixel_hashes": decoded.pixel_hashes,
            "unreadable": list(decoded.unreadable.items()),
            "squeezed": decoded.squeezed,
        }
        body = json.dumps(meta).encode()
        (building / "meta.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        _write_contact_sheet(read_store(building))
        for path in building.iterdir():
            with path.open("r+b") as written:
                os.fsync(written.fileno())


def _write_contact_sheet(store: ImageStore) -> None:
    """Draw samples from all over a data set, for a person to look at before anything is trained on them."""
    rows = [row for row in range(len(store)) if row not in store.unreadable]
    if rows:
        chosen = [rows[at] for at in np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)]
        sheet = contact_sheet([store.pixels(row) for row in chosen], [store.labels[row] for row in chosen])
        sheet.save(store.directory / "contact_sheet.png")


def _map_bucket(file: Path, shape: list[int]) -> NDArray[np.uint8]:
    images = cast("np.memmap[Any, Any]", np.load(file, mmap_mode="c"))
    if list(images.shape) != shape or images.dtype != np.uint8:
        raise ValueError(f"{file.name}: {images.dtype} {images.shape} instead of uint8 {shape}")
    if file.stat().st_size != images.offset + images.nbytes:
        raise ValueError(f"{file.name}: not as long as its header says")
    return images


def _columns(samples: Sequence[Sample]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Split, ...]]:
    return (
        tuple(sample.key for sample in samples),
        tuple(sample.label for sample in samples),
        tuple(sample.split for sample in samples),
    )


def _build_store(
    build: _Build, directory: Path, workers: int | None, progress: Callable[[int, int], None] | None
) -> ImageStore:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_builds(directory)
        with _lock(directory):
            if directory.exists():
                try:
                    return read_store(directory)  # another process has built it meanwhile
                except DataError as error:
                    damaged = directory.with_suffix(".damaged")
                    shutil.rmtree(damaged, ignore_errors=True)
                    directory.replace(damaged)
                    logger.warning("%s; it is set aside as %s and built again", error, damaged.name)
            build.publish(directory, workers, progress)
    except OSError as error:
        size = len(build.samples) * build.options.channels * build.options.height * build.options.width
        raise DataError(
            f"cannot write the cache of images {directory}: {error.strerror or error}; it takes "
            f"{size / 1e6:,.0f} MB: free that much, or point DECODERBENCH_CACHE elsewhere"
        ) from error
    logger.info("samples to look at: %s", directory / "contact_sheet.png")
    return read_store(directory)


def _remove_dead_builds(directory: Path) -> None:
    for building in directory.parent.glob("*.building"):
        with suppress(Timeout), FileLock(building.with_suffix(".lock")).acquire(timeout=0):
            shutil.rmtree(building, ignore_errors=True)


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the one lock of a cache; the system releases it when its holder dies."""
    lock = FileLock(directory.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for another process, which builds the cache of images %s", directory)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fingerprint(dataset: Dataset, stamp: str | None, cache_dir: Path) -> str:
    """Return the dataset's fingerprint, remembered under its stamp where it has one."""
    if stamp is None:
        return dataset.fingerprint()
    memo = cache_dir / "fingerprints" / f"{_digest(dataset.name, stamp)[:32]}.json"
    with suppress(OSError, ValueError):
        return str(json.loads(memo.read_bytes()))
    fingerprint = dataset.fingerprint()
    if dataset.stamp() == stamp:
        with suppress(OSError):  # a cache that cannot be written is reported when the images are
            memo.parent.mkdir(parents=True, exist_ok=True)
            draft = memo.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(fingerprint), encoding="utf-8")
            draft.replace(memo)
    return fingerprint


def _refuse_unreadable(unreadable: Mapping[int, str], keys: Sequence[str]) -> None:
    if unreadable:
        named = "".join(f"\n  {keys[row]!r}: {unreadable[row]}" for row in list(unreadable)[:10])
        more = f"\n  and {len(unreadable) - 10:,} more" if len(unreadable) > 10 else ""
        raise DataError(
            f"{len(unreadable):,} of {len(keys):,} images cannot be decoded; replace them, or accept it with "
            f'allow = ["unreadable_image"] in the experiment or --allow unreadable_image{named}{more}'
        )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
