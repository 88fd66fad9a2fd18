"""Which rows of the training split make up the batch of each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from decoderbench.seeds import derive_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sampler:
    """An endless stream of training rows: random permutations, one after the other, cut into full batches.

    The batch of a step is a function of the rows, the batch size, the seed and the step alone. So every decoder is
    trained on the same images in the same order, and a stream can start at any step.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self._epoch, self._order = -1, rows

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of a step, counted from 0."""
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
    """An endless stream of training rows in which each batch comes from one bucket of image widths.

    The batch of a step is a function of the buckets, the batch size, the seed and the step alone. In an epoch each
    bucket gets as many batches as its rows fill, at least one, in random order. Within a bucket the rows come as from
    `Sampler`, so over several epochs every row is used.
    """

    def __init__(self, buckets: Sequence[NDArray[np.int64]], batch_size: int, seed: int) -> None:
        self.seed = seed
        self._streams = [
            Sampler(rows, batch_size, derive_seed(seed, "bucket", bucket)) for bucket, rows in enumerate(buckets)
        ]
        self._counts = np.array([max(1, round(len(rows) / batch_size)) for rows in buckets])

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of a step, counted from 0."""
        epoch, position = divmod(step, int(self._counts.sum()))
        generator = np.random.default_rng(derive_seed(self.seed, "order of buckets", epoch))
        order = generator.permutation(np.repeat(np.arange(len(self._counts)), self._counts))
        bucket = int(order[position])
        before = int((order[:position] == bucket).sum())
        return self._streams[bucket].batch(epoch * int(self._counts[bucket]) + before)


def split_in_order(rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield `rows` in batches; the last one may be shorter."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]
