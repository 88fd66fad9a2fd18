"""What the exception of a failed cell means: the status of its record, and the reason in one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

from decoderbench.errors import DivergedError, PendingCellsError
from decoderbench.exception_text import describe_error, text_of
from decoderbench.files.storage import storage_error_of
from decoderbench.records.schema import Status

# The CUDA allocator's own error has a class. Those of CUDA, its libraries and the CPU's allocators have only a text.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|_ALLOC_FAILED|cudaErrorMemoryAllocation|can't allocate memory|cannot allocate memory"
    r"|not enough memory|std::bad_alloc",
    re.IGNORECASE,
)

_ADVICE_OF_CUDA = re.compile(
    r"(?<=\S) (Search for `\w+' in https://docs\.nvidia\.com|CUDA kernel errors might be).*?(?= \(\S+:\d+\)$|$)"
)


def classify(error: BaseException) -> tuple[Status, str]:
    """Return the status of a cell that raised an exception, and the reason; never raises, whatever a plugin raised."""
    if isinstance(error, DivergedError):
        return "diverged", text_of(error)
    if any(map(is_out_of_memory, _with_causes(error, contexts=False))):
        return "oom", f"out of memory: {text_of(error)}; make training.batch_size or the image smaller"
    return "failed", _without_advice(describe_error(error))


def _without_advice(reason: str) -> str:
    """Return the reason without what PyTorch adds to every error of CUDA for those who debug a kernel."""
    return _ADVICE_OF_CUDA.sub("", reason)


def end_behind(error: BaseException) -> PendingCellsError | None:
    """Return the early end of the run, also if a trainer has turned it into an exception of its own; else None.

    A full disk is one, whoever writes: the same cell succeeds once there is space.
    """
    for cause in _with_causes(error, contexts=True):
        if end := cause if isinstance(cause, PendingCellsError) else storage_error_of(cause):
            return end
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(text_of(error)))


def _with_causes(error: BaseException, *, contexts: bool) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, each once, as in `raise ValueError(...) from error`.

    With `contexts` also those that were being handled when it was raised. `raise error from error` is a circle.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or (current.__context__ if contexts else None)
