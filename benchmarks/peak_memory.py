"""Peak memory of one call: on CUDA by the statistics of the allocator, on a CPU by the records of the profiler."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

from decoderbench.training.devices import synchronize


def peak_mb(device: torch.device, run: Callable[[], object]) -> float:
    """Return the most memory in MB (10^6 bytes) that a function holds at a time, besides what was there before it."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler prints when it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    records = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    records.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in records), default=0) / 1e6
