"""What a recogniser costs: parameters and MACs counted without running it, latency and throughput measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from decoderbench.devices import synchronize
from decoderbench.recognizer import Recognizer

LATENCY_WARM_UPS = 10
LATENCY_RUNS = 50


def count_parameters(module: nn.Module) -> float:
    """Return the number of parameters, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def count_gmacs(call: Callable[..., object], *inputs: Tensor) -> float | None:
    """Return the multiply-accumulates of a call on the meta device, in units of 10^9.

    There nn.LSTM is taken apart into the matrix products that it is; on CPU and CUDA the counter calls it free. An
    autoregressive decoder is charged for `max_length` characters and the end. Only convolutions and matrix products
    count: elementwise products, such as an attention's weighted sum, do not.

    Args:
        call: a method of a module on the meta device in eval mode, such as `recognizer.transcribe`.
        inputs: on the meta device, for one image.

    Returns: None if the call looks at values, which the meta device does not have.
    """
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call(*inputs)
    except Exception:  # noqa: BLE001 - a plugin may do anything; without values there is no count
        return None
    flops: int = counter.get_total_flops()
    return flops / 2 / 1e9  # a multiply and an add are two operations


def measure_latency_ms(recognizer: Recognizer, image: Tensor, *, beam_size: int = 1) -> float:
    """Return the median time to transcribe one image (1, C, H, W), in milliseconds, the device synchronised."""
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
    """Return images a second over `batches` (B, C, H, W).

    The first of each size warms up. Of batches of one size it is not counted, if there are more.
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
