"""Batches by index: images and labels gathered from the cache, on the device where they fit. No DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from decoderbench.cell import derive_seed
from decoderbench.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decoderbench.audit import Audit
    from decoderbench.datasets import Split
    from decoderbench.images import ImageStore

RESIDENT_SHARE = 0.6  # of the free device memory that images may fill


class Batches:
    """All images (N, C, H, W) uint8 and labels of an experiment, on the device if they fit there.

    Labels that the charset cannot spell have no ids; `spellable` says which rows can be spelt. The others are
    empty here and count as wrong where texts are compared.
    """

    def __init__(self, store: ImageStore, audit: Audit, device: torch.device) -> None:
        self.store, self.audit, self.device = store, audit, device
        images = torch.from_numpy(store.images)
        self.resident = device.type == "cpu" or images.nbytes <= RESIDENT_SHARE * _free_memory(device)
        self._images = images.to(device) if self.resident else images
        self.charset = audit.label_spec.charset
        self.spellable = np.ones(len(store), dtype=bool)
        self.spellable[list(audit.unspellable)] = False
        self.lengths = np.array([len(label) for label in store.labels], dtype=np.int64) * self.spellable
        ids = np.zeros((len(store), audit.max_length), dtype=np.int64)
        for row in np.flatnonzero(self.spellable):
            ids[row, : self.lengths[row]] = self.charset.encode(store.labels[row])
        self._ids = torch.from_numpy(ids).to(device)
        self._device_lengths = torch.from_numpy(self.lengths).to(device)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows to train on (train) or to score (val, test)."""
        return self.audit.rows(self.store, split)

    def gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Labels]:
        """Return images (B, C, H, W) uint8 and labels of `rows`, without waiting for the device."""
        host_rows = torch.from_numpy(rows)
        device_rows = host_rows.to(self.device, non_blocking=True)
        if self.resident:
            images = self._images.index_select(0, device_rows)
        else:
            images = self._images.index_select(0, host_rows).pin_memory().to(self.device, non_blocking=True)
        labels = Labels(
            self._ids.index_select(0, device_rows),
            self._device_lengths.index_select(0, device_rows),
            int(self.lengths[rows].max(initial=0)),
        )
        return images, labels


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


def in_order(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield `rows` in batches, the last one as short as it is."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
