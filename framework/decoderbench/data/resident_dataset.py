"""Batches by index: images and labels gathered from the cache, on the device where they fit. No DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from decoderbench.labels import Labels
from decoderbench.seeds import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.data.audit import Audit
    from decoderbench.data.dataset import Split
    from decoderbench.data.image_store import ImageStore

RESIDENT_SHARE = 0.6  # of the free device memory that images may fill


class Batches:
    """All images, uint8, and labels of an experiment, on the device if they fit there.

    Images are of one size, or lie in buckets of one width each; a batch never mixes buckets.

    `labels` are the audit's: normalized, the one form in which they are trained on and scored; the store keeps them
    as they stand in the data. Labels that the charset cannot spell have no ids; `spellable` says which rows can be
    spelled. The others are empty here and count as wrong where texts are compared.
    """

    def __init__(self, store: ImageStore, audit: Audit, device: torch.device) -> None:
        self.store, self.audit, self.device = store, audit, device
        buckets = [torch.from_numpy(images) for images in store.buckets]
        size = sum(images.nbytes for images in buckets)
        self.resident = device.type == "cpu" or size <= RESIDENT_SHARE * _free_memory(device)
        self._buckets = [images.to(device) if self.resident else images for images in buckets]
        self.labels = audit.labels
        self.charset = audit.label_spec.charset
        self.spellable = np.ones(len(store), dtype=bool)
        self.spellable[list(audit.unspellable)] = False
        self.lengths = np.array([len(label) for label in self.labels], dtype=np.int64) * self.spellable
        ids = np.zeros((len(store), audit.max_length), dtype=np.int64)
        for row in np.flatnonzero(self.spellable):
            ids[row, : self.lengths[row]] = self.charset.encode(self.labels[row])
        self._ids = torch.from_numpy(ids).to(device)
        self._device_lengths = torch.from_numpy(self.lengths).to(device)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows to train on (train) or to score (val, test)."""
        return self.audit.rows(self.store, split)

    def sampler(self, batch_size: int, seed: int) -> Sampler | BucketSampler:
        """Return the stream of training rows, whose batches lie in one bucket each."""
        rows = self.rows("train")
        buckets = self._by_bucket(rows)
        return Sampler(rows, batch_size, seed) if len(buckets) == 1 else BucketSampler(buckets, batch_size, seed)

    def in_order(self, rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield `rows` in batches of one bucket each, one bucket after the other."""
        for bucket in self._by_bucket(rows):
            yield from in_order(bucket, batch_size)

    def gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Labels]:
        """Return images (B, C, H, W) uint8 and labels of `rows`, all of one bucket, without waiting for the device."""
        host_rows = torch.from_numpy(rows)
        device_rows = host_rows.to(self.device, non_blocking=True)
        bucket, host_places, device_places = self._buckets[0], host_rows, device_rows
        if len(self._buckets) > 1:
            bucket = self._buckets[self.store.bucket_of[rows[0]]]
            host_places = torch.from_numpy(self.store.place_of[rows])
            device_places = host_places.to(self.device, non_blocking=True)
        if self.resident:
            images = bucket.index_select(0, device_places)
        else:
            images = bucket.index_select(0, host_places).pin_memory().to(self.device, non_blocking=True)
        labels = Labels(
            self._ids.index_select(0, device_rows),
            self._device_lengths.index_select(0, device_rows),
            int(self.lengths[rows].max(initial=0)),
        )
        return images, labels

    def _by_bucket(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if len(self._buckets) == 1:
            return [rows]
        buckets = self.store.bucket_of[rows]
        return [rows[buckets == bucket] for bucket in np.unique(buckets)]


class Sampler:
    """An endless stream of training rows: one random permutation after the other, cut into full batches.

    Batch s is a function of (rows, batch size, seed, s) alone, so that every decoder sees the same images in the
    same order, and a stream can start anywhere.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch, self._order = -1, rows

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of step `step`, counted from 0."""
        position, taken = step * self.batch_size, 0
        parts = []
        while taken < self.batch_size:
            epoch, offset = divmod(position + taken, len(self.rows))
            part = self._permutation(epoch)[offset : offset + self.batch_size - taken]
            parts.append(part)
            taken += len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
            self._epoch, self._order = epoch, generator.permutation(self.rows)
        return self._order


class BucketSampler:
    """An endless stream of training rows, each batch out of one bucket, buckets in turn by how many rows they hold.

    Batch s is a function of (buckets, batch size, seed, s) alone. An epoch is a random order of as many batches of each
    bucket as its rows fill, at least one; within a bucket the rows come as `Sampler` brings them, so that over epochs
    none is left out.
    """

    def __init__(self, buckets: Sequence[NDArray[np.int64]], batch_size: int, seed: int) -> None:
        self.seed = seed
        self._streams = [
            Sampler(rows, batch_size, derive_seed(seed, "bucket", bucket)) for bucket, rows in enumerate(buckets)
        ]
        self._counts = np.array([max(1, round(len(rows) / batch_size)) for rows in buckets])

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of step `step`, counted from 0."""
        epoch, position = divmod(step, int(self._counts.sum()))
        generator = np.random.default_rng(derive_seed(self.seed, "order of buckets", epoch))
        order = generator.permutation(np.repeat(np.arange(len(self._counts)), self._counts))
        bucket = int(order[position])
        before = int((order[:position] == bucket).sum())
        return self._streams[bucket].batch(epoch * int(self._counts[bucket]) + before)


def in_order(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield `rows` in batches, the last one as short as it is."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
