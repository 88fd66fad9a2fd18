"""The images and labels of an experiment on its device, gathered by index. No DataLoader."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoderbench.data.dataset import SPLITS, Split
from decoderbench.data.samplers import BucketSampler, Sampler, split_in_order
from decoderbench.data.train_limit import first_rows, limited_sizes
from decoderbench.errors import PluginError
from decoderbench.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.data.audit import Audit
    from decoderbench.data.image_store import ImageStore

RESIDENT_SHARE = 0.6
"""Share of the free device memory that images may fill."""


class Batch(NamedTuple):
    """Images and labels of one batch, on the device.

    Attributes:
        images: (B, C, H, W): uint8 as they are kept, or float32 in about [-1, 1].
        labels: of the images.
        columns: (B,) int64, the columns of each image before it was padded on the right to the width of its bucket;
            None unless widths vary.
    """

    images: Tensor
    labels: Labels
    columns: Tensor | None = None

    def to_float(self) -> Batch:
        """Return it with images in float32 in [-1, 1], given uint8."""
        return self._replace(images=to_float(self.images))

    def first(self) -> Batch:
        """Return the batch of the first image alone."""
        labels = Labels(self.labels.ids[:1], self.labels.lengths[:1], self.labels.host_lengths[:1])
        return Batch(self.images[:1], labels, None if self.columns is None else self.columns[:1])


class ResidentDataset:
    """All images (uint8) and labels of an experiment. Images are on the device if they fit, else on the host.

    Data with folds have `rows` once a fold is chosen by `of_fold`.

    Images have one size, or are grouped in buckets of one width each. A batch never mixes buckets.

    `labels` are those of the audit: normalized, in the form in which they are trained on and scored. The store keeps
    them as they are in the data. A label that the charset cannot spell has no ids; `spellable` tells which rows can be
    spelled. The ids of the others are empty, and they count as wrong where texts are compared.
    """

    def __init__(self, store: ImageStore, audit: Audit, device: torch.device) -> None:
        self.store, self.audit, self.device = store, audit, device
        buckets = [torch.from_numpy(images) for images in store.buckets]
        size = sum(images.nbytes for images in buckets)
        self.resident = device.type == "cpu" or size <= RESIDENT_SHARE * _free_memory(device)
        self._verifies_batches = device.type == "cpu" or not self.resident
        if not self._verifies_batches:
            store.verify(np.arange(len(store)))
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
        varies = bool((store.widths < np.array(store.bucket_widths)[store.bucket_of]).any())
        self._columns = torch.from_numpy(store.widths).to(device) if varies else None
        self._hidden: NDArray[np.bool_] | None = None
        self._rows = {} if audit.folds else {split: audit.rows(store, split) for split in SPLITS}

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows to train on (train) or to score (val, test), ascending."""
        self._refuse_hidden(self._rows[split])
        return self._rows[split]

    def of_fold(self, number: int | None) -> ResidentDataset:
        """Return the same images and labels with the splits of a fold; by None, data without folds."""
        if number is None and not self.audit.folds:
            return self
        chosen = copy.copy(self)
        chosen.audit = self.audit.of_fold(number)
        chosen._rows = {split: chosen.audit.rows(self.store, split) for split in SPLITS}
        return chosen

    def of_all(self, number: int | None) -> ResidentDataset:
        """Return the same as `of_fold`, but that images of val and test are trained on too.

        As in every split, those with problems that were allowed are not.
        """
        trained = self.spellable.copy()
        trained[[*self.audit.excluded, *self.store.unreadable]] = False
        chosen = copy.copy(self.of_fold(number))
        chosen._rows = chosen._rows | {"train": np.flatnonzero(trained)}
        return chosen

    def without_test(self) -> ResidentDataset:
        """Return the same images and labels without those of the test split: whoever asks for one gets an error."""
        hidden = copy.copy(self)
        hidden._hidden = np.zeros(len(self.store), dtype=bool)
        hidden._hidden[self._rows["test"]] = True
        return hidden

    def limited_to(self, limit: int | None, seed: int) -> ResidentDataset:
        """Return the same images and labels with `limit` rows to train and validate on, as `train_limit` says it."""
        sizes = limited_sizes({split: len(rows) for split, rows in self._rows.items()}, limit)
        limited = copy.copy(self)
        limited._rows = {
            split: first_rows(rows, self.store.keys, sizes[split], seed) if sizes[split] < len(rows) else rows
            for split, rows in self._rows.items()
        }
        return limited

    def sampler(self, batch_size: int, seed: int) -> Sampler | BucketSampler:
        """Return the stream of training rows; all rows of a batch are in one bucket."""
        rows = self.rows("train")
        buckets = self._group_by_bucket(rows)
        return Sampler(rows, batch_size, seed) if len(buckets) == 1 else BucketSampler(buckets, batch_size, seed)

    def in_order(self, rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Yield `rows` in batches of one bucket each, bucket by bucket."""
        for bucket in self._group_by_bucket(rows):
            yield from split_in_order(bucket, batch_size)

    def gather(self, rows: NDArray[np.int64]) -> Batch:
        """Return images (B, C, H, W) uint8 and labels of `rows`, all of one bucket, without waiting for the device.

        Raises:
            DamagedImagesError: pixels are not those that were decoded.
        """
        self._refuse_hidden(rows)
        if self._verifies_batches:
            self.store.verify(rows)
        host_rows = torch.from_numpy(rows)
        device_rows = host_rows.to(self.device, non_blocking=True)
        bucket, host_places, device_places = self._buckets[0], host_rows, device_rows
        if len(self._buckets) > 1:
            bucket = self._buckets[self.store.bucket_of[rows[0]]]
            host_places = torch.from_numpy(self.store.index_in_bucket[rows])
            device_places = host_places.to(self.device, non_blocking=True)
        if self.resident:
            images = bucket.index_select(0, device_places)
        else:
            images = bucket.index_select(0, host_places).pin_memory().to(self.device, non_blocking=True)
        labels = Labels(
            self._ids.index_select(0, device_rows),
            self._device_lengths.index_select(0, device_rows),
            tuple(self.lengths[rows].tolist()),
        )
        columns = None if self._columns is None else self._columns.index_select(0, device_rows)
        return Batch(images, labels, columns)

    def _refuse_hidden(self, rows: NDArray[np.int64]) -> None:
        if self._hidden is not None and self._hidden[rows].any():
            raise PluginError("a trial of tuning asked for test images, which choose no options; use the split val")

    def _group_by_bucket(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if len(self._buckets) == 1:
            return [rows]
        buckets = self.store.bucket_of[rows]
        return [rows[buckets == bucket] for bucket in np.unique(buckets)]


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
