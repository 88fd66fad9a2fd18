"""Peak memory of one cell on CUDA: training and transcription apart, without what was there before the cell.

On a CPU nothing is measured: the resident memory of a process depends on the cells that ran in it before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch

from decoderbench.data.resident_dataset import Batch
from decoderbench.model.recognizer import Recognizer


class TrainingMemory:
    """The peak of the memory that PyTorch's allocator hands out while a cell is trained.

    It covers weights, gradients, optimizer, activations, batches and the kept copy of the weights. Images and labels of
    the dataset are there before and do not count. Evaluations do not count either.
    """

    def __init__(self, device: torch.device) -> None:
        """Start to measure; the recognizer must not be built yet."""
        self.device = device
        self._measured = device.type == "cuda"
        self._before = torch.cuda.memory_allocated(device) if self._measured else 0
        self._peak = 0
        self.restart()

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """Leave out the peak of the block, an evaluation."""
        self._read()
        try:
            yield
        finally:
            self.restart()

    def peak_mb(self) -> float | None:
        """Return the peak so far in MB (10^6 bytes); None on a CPU."""
        self._read()
        return (self._peak - self._before) / 1e6 if self._measured else None

    def restart(self) -> None:
        """Forget the allocator's peak so far."""
        if self._measured:
            torch.cuda.reset_peak_memory_stats(self.device)

    def _read(self) -> None:
        if self._measured:
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self.device))


def transcription_peak_mb(recognizer: Recognizer, batch: Batch, beam_size: int = 1) -> float | None:
    """Return the memory that the weights and the transcription of a batch need, in MB; None on a CPU."""
    device = batch.images.device
    if device.type != "cuda":
        return None
    weights = sum(tensor.nbytes for tensor in chain(recognizer.parameters(), recognizer.buffers()))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.inference_mode():
        recognizer.transcribe(batch.images, batch.columns, beam_size=beam_size)
    return (weights + batch.images.nbytes + torch.cuda.max_memory_allocated(device) - before) / 1e6
