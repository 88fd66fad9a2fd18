"""The cache of decoded images: each image is decoded and resized once, and read as an `ImageStore` afterwards.

A store is a folder named by the hash of the data and the image options. It is built under a lock in a temporary folder
beside it, which is renamed when complete, so a store is complete or absent. A build that was interrupted, in whatever
way, is continued by the next one of the same data (`build_log`). No torch here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from decoderbench.data.build_log import BuildLog
from decoderbench.data.cache_folders import ELSEWHERE, lock_of, mark_used, remove_abandoned_builds, set_aside
from decoderbench.data.contact_sheet import contact_sheet
from decoderbench.data.dataset import Dataset, Sample, Split
from decoderbench.data.decoding_workers import decode
from decoderbench.data.image_store import STORE_VERSION, ImageStore, OtherVersionError, read_store, write_meta
from decoderbench.data.width_buckets import write_buckets
from decoderbench.errors import DataError
from decoderbench.files import integrity
from decoderbench.files.storage import (
    StorageError,
    explaining,
    make_folder,
    remove_leftovers,
    rename,
    sync_folder,
    write_atomically,
)
from decoderbench.identity import identity_of
from decoderbench.options import ImageOptions

PIXELS_VERSION = 4
"""Part of the data hash, and so of the identity of cells: it rises only if pixels change."""
SAMPLES_ON_CONTACT_SHEET = 64
MAX_LISTED = 10  # unreadable images in a message
logger = logging.getLogger("decoderbench")

Steps = Generator[int, None, None]
Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""


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
    progress: Progress | None = None,
) -> ImageStore:
    """Open the store of a dataset's images; build it first if it is not in the cache.

    If several processes call this at once, one builds the store and the others wait for it. A corrupt store is renamed
    to `.damaged`, a warning is logged, and it is rebuilt. If the build is interrupted, for example by an exception of
    `progress`, the images decoded so far are kept, and the next call decodes the others.

    Args:
        dataset: the source of the images.
        samples: `dataset.samples()`, all of them.
        options: size and channels that images are converted to.
        cache_dir: folder of the cache; default: `default_cache_dir()`.
        allow_unreadable: accept images that cannot be decoded; `ImageStore.unreadable` lists them.
        workers: processes that decode; default: one per usable core.
        progress: called with the number of images done, those of earlier calls included, and their total while the
            store is built. What it raises stops the build within the time of one image, and propagates.

    Raises:
        DataError: there are no samples, or an image cannot be decoded.
        StorageError: the cache cannot be written.
    """
    if not samples:
        raise DataError(f"dataset {dataset.name!r} has no samples")
    cache_dir = cache_dir or default_cache_dir()
    stamp = _stamp_of(dataset)
    data_hash = compute_data_hash(dataset, options, cache_dir=cache_dir, stamp=stamp)
    directory = cache_dir / "images" / data_hash[:32]
    try:
        store = read_store(directory)
    except DataError:
        builder = _Builder(dataset, samples, options, data_hash, allow_unreadable, stamp, workers)
        with closing(builder.build(directory)) as steps:  # closing stops the workers and releases the lock
            for done in steps:
                if progress:
                    progress(done, len(samples))
        store = read_store(directory)
    mark_used(directory)
    if (store.keys, store.labels, store.splits) != _columns(samples):
        raise DataError(
            f"dataset {dataset.name!r} has other samples than the image cache {directory} under the same "
            "fingerprint; its fingerprint() must cover every key, label and split"
        )
    if not allow_unreadable:
        _refuse_unreadable_images(store.unreadable, store.keys)
    return store


def compute_data_hash(
    dataset: Dataset, options: ImageOptions, *, cache_dir: Path | None = None, stamp: str | None = None
) -> str:
    """Return the hex digest of the dataset's fingerprint and the image options; no image is decoded."""
    return hash_data(read_fingerprint(dataset, cache_dir=cache_dir, stamp=stamp), options)


def hash_data(fingerprint: str, options: ImageOptions) -> str:
    """Return the hex digest of a dataset's fingerprint and the image options."""
    return _digest(PIXELS_VERSION, fingerprint, identity_of(options))


def _stamp_of(dataset: Dataset) -> str | None:
    """Return the stamp of a dataset; raise `DataError` if a file is gone that was there when labels were read."""
    try:
        return dataset.stamp()
    except OSError as error:
        raise DataError(
            f"dataset {dataset.name!r} changed while it was read: {error.filename}: {error.strerror}; run again"
        ) from error


def read_fingerprint(dataset: Dataset, *, cache_dir: Path | None = None, stamp: str | None = None) -> str:
    """Return the dataset's fingerprint; if the dataset has a stamp, the fingerprint is cached under it.

    A cached one that is damaged, or of another dataset, is computed again.
    """
    if (stamp := stamp or _stamp_of(dataset)) is None:
        return dataset.fingerprint()
    cached = (cache_dir or default_cache_dir()) / "fingerprints" / f"{_digest(dataset.name, stamp)[:32]}.json"
    source = {"dataset": dataset.name, "stamp": stamp}
    with suppress(OSError, DataError):
        content = integrity.read_bytes(cached)
        known = integrity.parse(cached, content)
        if integrity.has_own_digest(content) and known.items() >= source.items():
            mark_used(cached)
            return str(known["fingerprint"])
    fingerprint = dataset.fingerprint()
    if _stamp_of(dataset) == stamp:
        remove_leftovers(cached.parent)
        with suppress(StorageError):  # a cache that cannot be written is reported when the images are
            write_atomically(cached, integrity.seal(source | {"fingerprint": fingerprint}))
    return fingerprint


@dataclass(frozen=True)
class _Builder:
    """Builds a store; all checks are made before the store is published.

    Its methods yield the number of images done, so that what the caller raises then is not taken for an error of the
    build.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    options: ImageOptions
    data_hash: str
    allow_unreadable: bool
    stamp: str | None
    workers: int | None

    def build(self, directory: Path) -> Steps:
        """Build the store at `directory` under its lock, unless another process has done so meanwhile."""
        size = len(self.samples) * self.options.channels * self.options.height * self.options.width
        with explaining(directory, size, doing="write the image cache", move=ELSEWHERE):
            make_folder(directory.parent)
            remove_abandoned_builds(directory)
            with lock_of(directory):
                if directory.exists():
                    try:
                        read_store(directory)  # built by another process
                        return
                    except OtherVersionError:
                        shutil.rmtree(directory)
                        logger.info("images are decoded again: their cache is of another version of decoderbench")
                    except DataError as error:
                        damaged = set_aside(directory)
                        logger.warning("%s; it is renamed to %s and rebuilt", error, damaged.name)
                yield from self._publish(directory)
        logger.info("contact sheet of samples: %s", directory / "contact_sheet.png")

    def _publish(self, directory: Path) -> Steps:
        """Write a folder beside `directory`, then rename it; the caller holds the lock."""
        building = directory.with_suffix(".building")
        shape = (len(self.samples), self.options.channels, self.options.height, self.options.width)
        facts = {
            "data_hash": self.data_hash,
            "version": STORE_VERSION,
            # Without a stamp the data hash has to suffice, as for a complete store. With one, nothing has changed since
            # the first attempt, not even back and forth.
            "stamp": self.stamp,
            "samples": _digest(_columns(self.samples)),  # a wrong fingerprint must not mix rows of two data sets
            "pillow": PIL.__version__,  # another version may resize differently
        }
        with BuildLog(building, facts, shape) as log:
            yield from self._decode(log)
        temporary = self._write(building, log)
        for path in set(building.iterdir()) - temporary:
            with path.open("r+b") as written:
                os.fsync(written.fileno())
        if self._has_changed():
            shutil.rmtree(building, ignore_errors=True)
            raise DataError(f"dataset {self.dataset.name!r} changed while its images were read; run again")
        for path in temporary:
            path.unlink()
        sync_folder(building)
        rename(building, directory)

    def _has_changed(self) -> bool:
        """Return whether the data may have changed since their hash was computed. Without a stamp they are read again.

        Files that were written just before have no stamp, and another dataset may never have one.
        """
        if self.stamp is not None:
            return _stamp_of(self.dataset) != self.stamp
        return hash_data(self.dataset.fingerprint(), self.options) != self.data_hash

    def _decode(self, log: BuildLog) -> Steps:
        """Decode the images that the log lacks."""
        if log.done:
            logger.info("continuing: %s of %s images were decoded earlier", f"{log.done:,}", f"{len(self.samples):,}")
            yield log.done
        parts = decode(self.dataset, self.options, log.missing(), log.images, log.offset, workers=self.workers)
        with closing(parts):
            for start, part in parts:
                log.add(start, part)
                yield log.done

    def _write(self, building: Path, log: BuildLog) -> set[Path]:
        """Write all files of the store; return those that are not part of it."""
        decoded = log.decoded
        unreadable = dict(sorted(decoded.unreadable.items()))
        keys, labels, splits = _columns(self.samples)
        if not self.allow_unreadable:
            _refuse_unreadable_images(unreadable, keys)
        buckets, temporary = [(log.images.name, list(log.shape))], {log.file}
        if self.options.resize == "keep":
            buckets = write_buckets(log.images, log.offset, decoded.widths, self.options, building)
            temporary.add(log.images)
        meta = {
            "buckets": buckets,
            "widths": decoded.widths,
            "data_hash": self.data_hash,
            "keys": keys,
            "labels": labels,
            "splits": splits,
            "pixel_hashes": decoded.pixel_hashes,
            "unreadable": list(unreadable.items()),
            "squeezed": sorted(decoded.squeezed),
            "transparent": sorted(decoded.transparent),
            "no_contrast": sorted(decoded.no_contrast.items()),
            "warned": sorted(decoded.warned.items()),
        }
        write_meta(building, meta)
        _write_contact_sheet(read_store(building))
        return temporary


def _write_contact_sheet(store: ImageStore) -> None:
    """Draw evenly spaced samples of a dataset, for people to inspect before training."""
    rows = [row for row in range(len(store)) if row not in store.unreadable]
    if rows:
        count = min(SAMPLES_ON_CONTACT_SHEET, len(rows))
        chosen = [rows[index] for index in np.linspace(0, len(rows) - 1, count).round().astype(int)]
        sheet = contact_sheet([store.pixels(row) for row in chosen], [store.labels[row] for row in chosen])
        sheet.save(store.directory / "contact_sheet.png")


def _refuse_unreadable_images(unreadable: Mapping[int, str], keys: Sequence[str]) -> None:
    if unreadable:
        listed = "".join(f"\n  {keys[row]!r}: {unreadable[row]}" for row in list(unreadable)[:MAX_LISTED])
        more = f"\n  and {len(unreadable) - MAX_LISTED:,} more" if len(unreadable) > MAX_LISTED else ""
        raise DataError(
            f"{len(unreadable):,} of {len(keys):,} images cannot be decoded; replace them, or accept them with "
            f'allow = ["unreadable_image"] in the experiment or --allow unreadable_image{listed}{more}'
        )


def _columns(samples: Sequence[Sample]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Split, ...]]:
    """Return the keys, the labels and the splits of samples."""
    return (
        tuple(sample.key for sample in samples),
        tuple(sample.label for sample in samples),
        tuple(sample.split for sample in samples),
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
