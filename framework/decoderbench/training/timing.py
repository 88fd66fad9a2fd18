"""How fast a recognizer learns and reads: rate of training, latency and throughput, measured on its device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.model.recognizer import Recognizer
from decoderbench.training.devices import synchronize

TRAINING_WARM_UPS = 10
"""Steps that the rate of training leaves out: the first ones load kernels and choose algorithms."""

LATENCY_WARM_UPS = 10
LATENCY_RUNS = 50


class TrainingClock:
    """Measures images per second over the steps of a training, without the first ones and without pauses."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._started: float | None = None
        self._paused = 0.0
        self._images = 0

    def step_taken(self, step: int, images: int) -> None:
        """Count a step, numbered from 1, of a number of images; waits for the device at the last step to leave out."""
        if step == TRAINING_WARM_UPS:
            synchronize(self.device)
            self._started, self._paused = time.perf_counter(), 0.0
        elif step > TRAINING_WARM_UPS:
            self._images += images

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of the block, a validation."""
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self._paused += time.perf_counter() - start

    def images_per_second(self) -> float | None:
        """Return the rate so far; None if there was no step after the warm-up. Waits for the device."""
        synchronize(self.device)
        if self._started is None or not self._images:
            return None
        return self._images / (time.perf_counter() - self._started - self._paused)


def measure_latency_ms(
    recognizer: Recognizer, image: Tensor, beam_size: int = 1, deadline: Deadline = NO_DEADLINE
) -> float:
    """Return the median time to transcribe one image (1, C, H, W), in milliseconds, with the device synchronized."""
    times = []
    with torch.inference_mode():
        for run in range(LATENCY_WARM_UPS + LATENCY_RUNS):
            deadline.check("in the timing")
            synchronize(image.device)
            start = time.perf_counter()
            recognizer.transcribe(image, beam_size=beam_size)
            synchronize(image.device)
            if run >= LATENCY_WARM_UPS:
                times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure_throughput(
    recognizer: Recognizer, batches: Iterable[Tensor], beam_size: int = 1, deadline: Deadline = NO_DEADLINE
) -> float:
    """Return images per second over `batches` (B, C, H, W).

    The first batch of each width is a warm-up. If all batches have one width, the first one is not counted, unless it
    is the only one. Of each width only the batches of the largest size take part: a shorter last batch is a new shape,
    for which libraries choose algorithms anew.
    """
    given = list(batches)
    largest = {
        images.shape[1:]: max(len(other) for other in given if other.shape[1:] == images.shape[1:]) for images in given
    }
    full = [images for images in given if len(images) == largest[images.shape[1:]]]
    first_of = {images.shape[1:]: images for images in reversed(full)}
    counted = full if len(first_of) > 1 else full[1:] or full
    device = full[0].device

    def transcribe(images: Tensor) -> None:
        deadline.check("in the timing")
        recognizer.transcribe(images, beam_size=beam_size)

    with torch.inference_mode():
        for images in first_of.values():
            transcribe(images)
        synchronize(device)
        start = time.perf_counter()
        for images in counted:
            transcribe(images)
        synchronize(device)
    return sum(map(len, counted)) / (time.perf_counter() - start)
