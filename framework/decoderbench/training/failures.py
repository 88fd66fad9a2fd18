"""What the exception of a failed cell means: the status of its record, and the reason in one sentence."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from decoderbench.errors import DivergedError
from decoderbench.records import Status

# The CUDA allocator's own error has a class. Those of CUDA, its libraries and the CPU's allocators have only a text.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|_ALLOC_FAILED|cudaErrorMemoryAllocation|can't allocate memory|cannot allocate memory"
    r"|not enough memory|std::bad_alloc",
    re.IGNORECASE,
)


def classify(error: BaseException) -> tuple[Status, str]:
    """Return the status of a cell that raised an exception, and the reason."""
    text = " ".join(str(error).split())
    if isinstance(error, DivergedError):
        return "diverged", text
    if any(map(is_out_of_memory, _with_causes(error))):
        return "oom", f"out of memory: {text}; make training.batch_size or the image smaller"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "failed", f"{type(error).__name__}: {text}{where}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, as in `raise ValueError(...) from error`."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__
