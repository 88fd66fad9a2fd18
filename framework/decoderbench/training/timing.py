"""How fast a recognizer reads: latency and throughput, measured on its device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor

from decoderbench.model.recognizer import Recognizer
from decoderbench.training.devices import synchronize

LATENCY_WARM_UPS = 10
LATENCY_RUNS = 50


def measure_latency_ms(recognizer: Recognizer, image: Tensor, *, beam_size: int = 1) -> float:
    """Return the median time to transcribe one image (1, C, H, W), in milliseconds, with the device synchronized."""
    times = []
    with torch.inference_mode():
        for run in range(LATENCY_WARM_UPS + LATENCY_RUNS):
            synchronize(image.device)
            start = time.perf_counter()
            recognizer.transcribe(image, beam_size=beam_size)
            synchronize(image.device)
            if run >= LATENCY_WARM_UPS:
                times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure_throughput(recognizer: Recognizer, batches: Iterable[Tensor], *, beam_size: int = 1) -> float:
    """Return images per second over `batches` (B, C, H, W).

    The first batch of each size is a warm-up. If all batches have one size, the first one is not counted, unless it is
    the only one.
    """
    rest = list(batches)
    first_of = {images.shape[1:]: images for images in reversed(rest)}
    counted = rest if len(first_of) > 1 else rest[1:] or rest
    device = rest[0].device
    with torch.inference_mode():
        for images in first_of.values():
            recognizer.transcribe(images, beam_size=beam_size)
        synchronize(device)
        start = time.perf_counter()
        for images in counted:
            recognizer.transcribe(images, beam_size=beam_size)
        synchronize(device)
    return sum(len(images) for images in counted) / (time.perf_counter() - start)
