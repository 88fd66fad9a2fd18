"""How many cells run at a time: as many as the cores and the memory of the machine allow. One on a GPU."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from decoderbench.config.cell import Cell
from decoderbench.data.worker_processes import usable_cores
from decoderbench.errors import ConfigError

logger = logging.getLogger("decoderbench")

MAX_JOBS = 1024

BASE_BYTES = 700_000_000
"""Memory of a worker process before it has a cell: PyTorch, the components, the libraries."""

BYTES_PER_PARAMETER = 24
"""Weights, gradients, two moments of AdamW, the best weights so far, and a copy for a checkpoint, in float32."""

FLOATS_PER_PIXEL = 300
"""Activations of a CNN per pixel of its input, generously: between 50 and 250 in those of the experiments."""

CONTAINER_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files with the limit and the use of memory of a container, of both versions of Linux's control groups."""


def choose_jobs(
    jobs: int | None, device: torch.device, threads: int | None, cells: Sequence[Cell], *, elsewhere: bool = False
) -> int:
    """Return the number of cells to run at a time: as given, else as many as cores and memory allow, 1 on CUDA.

    Args:
        jobs: as given; None to choose.
        device: where cells are trained.
        threads: threads of a cell.
        cells: the cells to run.
        elsewhere: whether they run on other machines, of which this one knows nothing: the executor chooses.

    Raises:
        ConfigError: the number is not a whole number in 1..1024.
    """
    if jobs is not None:
        if not isinstance(jobs, int) or isinstance(jobs, bool) or not 1 <= jobs <= MAX_JOBS:
            raise ConfigError([f"--jobs {jobs}: must be a whole number in 1..{MAX_JOBS}"])
        return jobs
    if elsewhere:
        return MAX_JOBS
    if device.type != "cpu":
        return 1
    by_cores = max(1, usable_cores() // (threads or 1))
    wanted = max(1, min(by_cores, sum(not cell.infeasible for cell in cells)))
    needed = most_memory_of(cells)
    free = free_memory()
    by_memory = wanted if free is None else max(1, int(free // needed))
    if by_memory < wanted:
        logger.info(
            "%d cells at a time instead of %d: one may need %.1f GB, %.1f GB are free; --jobs decides otherwise",
            by_memory,
            wanted,
            needed / 1e9,
            (free or 0) / 1e9,
        )
    return min(wanted, by_memory)


def most_memory_of(cells: Sequence[Cell]) -> int:
    """Return an estimate of the memory that a worker needs to train any of the cells, in bytes."""
    return max((memory_of(cell) for cell in cells if not cell.infeasible), default=BASE_BYTES)


def memory_of(cell: Cell) -> int:
    """Return an estimate of the memory that a worker needs to train a cell, in bytes; rather too much."""
    batch = max(cell.training.batch_size, cell.evaluation.batch_size // 8)  # without gradients few layers are kept
    pixels = cell.image.height * cell.image.width * batch
    parameters = (cell.num_parameters or 0) + cell.num_training_only_parameters
    return BASE_BYTES + BYTES_PER_PARAMETER * parameters + 4 * FLOATS_PER_PIXEL * pixels


def free_memory() -> int | None:
    """Return the bytes of memory that processes may still take, limits of a container included; None if unknown."""
    if sys.platform != "linux":
        return None
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    for limit, used in CONTAINER_MEMORY:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            found.append(int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
    return max(0, min(found)) if found else None
