"""How fast a recognizer learns and reads: rate of training, latency and throughput, measured on its device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from decoderbench.data.resident_dataset import Batch
from decoderbench.deadline import NO_DEADLINE, Deadline
from decoderbench.model.recognizer import Recognizer
from decoderbench.training.devices import synchronize

TRAINING_WARM_UPS = 10
"""Steps that the rate of training leaves out: the first ones load kernels and choose algorithms."""

LATENCY_WARM_UPS = 10
LATENCY_RUNS = 50

LENGTHS_TO_TIME = 6
"""Lengths of texts that are timed, with half the runs each: together they take about three times as long."""


class TrainingClock:
    """Measures the seconds of a training, and its images per second without pauses and without the first steps.

    Where a training goes on in another process, seconds, images and steps of all attempts count; the first steps of
    each attempt are left out of the rate.
    """

    def __init__(self, device: torch.device, idle_seconds: Callable[[], float] = lambda: 0.0) -> None:
        """Begin an attempt.

        Args:
            device: where the steps are taken.
            idle_seconds: returns the time so far that was spent between steps on something else than training.
        """
        self.device, self._idle_seconds = device, idle_seconds
        self._began = self._now()
        self._steps = 0
        self._timed_from: float | None = None  # the end of the warm-up, later by each pause since
        self._seconds = self._timed_seconds = 0.0  # of earlier attempts, or of all once stopped
        self._images = 0
        self._running = True

    def step_taken(self, images: int) -> None:
        """Count a step of a number of images; waits for the device at the last step to leave out."""
        self._steps += 1
        if self._steps == TRAINING_WARM_UPS:
            synchronize(self.device)
            self._timed_from = self._now()
        elif self._steps > TRAINING_WARM_UPS:
            self._images += images

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block, a validation, out of the rate."""
        synchronize(self.device)
        start = self._now()
        yield
        synchronize(self.device)
        if self._timed_from is not None:
            self._timed_from += self._now() - start

    def seconds(self) -> float:
        """Return the time so far, of all attempts, with validations but without idle seconds."""
        return self._seconds + (self._now() - self._began if self._running else 0.0)

    def images_per_second(self) -> float | None:
        """Return the rate so far; None if there was no step after the warm-up. Waits for the device."""
        synchronize(self.device)
        return self._images / self._timed() if self._images else None

    def stop(self) -> None:
        """End the training: what is done from now on does not count."""
        synchronize(self.device)
        self._seconds, self._timed_seconds, self._running = self.seconds(), self._timed(), False

    def state_dict(self) -> dict[str, float]:
        """Return what has been counted so far."""
        return {"seconds": self.seconds(), "timed_seconds": self._timed(), "images": self._images}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Add what an earlier attempt has counted."""
        self._seconds, self._timed_seconds = state["seconds"], state["timed_seconds"]
        self._images = int(state["images"])

    def _timed(self) -> float:
        """Return the seconds of the steps that the rate is made of."""
        if self._timed_from is None or not self._running:
            return self._timed_seconds
        return self._timed_seconds + self._now() - self._timed_from

    def _now(self) -> float:
        """Return the time of a clock that stands still in idle seconds."""
        return time.perf_counter() - self._idle_seconds()


def measure_latency_ms(
    recognizer: Recognizer, image: Batch, beam_size: int = 1, deadline: Deadline = NO_DEADLINE
) -> float:
    """Return the median time to transcribe a batch of one image, in milliseconds, with the device synchronized."""
    return _median_ms(recognizer, image, beam_size, deadline, warm_ups=LATENCY_WARM_UPS, runs=LATENCY_RUNS)


def measure_latency_by_length(
    recognizer: Recognizer, images: Mapping[int, Batch], beam_size: int = 1, deadline: Deadline = NO_DEADLINE
) -> dict[str, float]:
    """Return the latency in milliseconds of a batch of one image per length of a text, by the length."""
    half = {"warm_ups": -(-LATENCY_WARM_UPS // 2), "runs": -(-LATENCY_RUNS // 2)}
    return {str(length): _median_ms(recognizer, image, beam_size, deadline, **half) for length, image in images.items()}


def _median_ms(
    recognizer: Recognizer, image: Batch, beam_size: int, deadline: Deadline, *, warm_ups: int, runs: int
) -> float:
    times = []
    with torch.inference_mode():
        for run in range(warm_ups + runs):
            deadline.check("in the timing")
            synchronize(image.images.device)
            start = time.perf_counter()
            recognizer.transcribe(image.images, image.columns, beam_size=beam_size)
            synchronize(image.images.device)
            if run >= warm_ups:
                times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure_throughput(
    recognizer: Recognizer, batches: Iterable[Batch], beam_size: int = 1, deadline: Deadline = NO_DEADLINE
) -> float:
    """Return images per second over `batches`.

    The first batch of each width is a warm-up. If all batches have one width, the first one is not counted, unless it
    is the only one. Of each width only the batches of the largest size take part: a shorter last batch is a new shape,
    for which libraries choose algorithms anew.
    """
    given = list(batches)
    shapes = [batch.images.shape for batch in given]
    largest = {shape[1:]: max(other[0] for other in shapes if other[1:] == shape[1:]) for shape in shapes}
    full = [batch for batch, shape in zip(given, shapes, strict=True) if shape[0] == largest[shape[1:]]]
    first_of = {batch.images.shape[1:]: batch for batch in reversed(full)}
    counted = full if len(first_of) > 1 else full[1:] or full
    device = full[0].images.device

    def transcribe(batch: Batch) -> None:
        deadline.check("in the timing")
        recognizer.transcribe(batch.images, batch.columns, beam_size=beam_size)

    with torch.inference_mode():
        for batch in first_of.values():
            transcribe(batch)
        synchronize(device)
        start = time.perf_counter()
        for batch in counted:
            transcribe(batch)
        synchronize(device)
    return sum(len(batch.images) for batch in counted) / (time.perf_counter() - start)
