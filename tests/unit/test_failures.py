"""The status and reason of a cell by the exception that ended it."""

import errno

import numpy as np
import pytest
import torch

from decoderbench.errors import DivergedError
from decoderbench.training.failures import classify


def chained() -> Exception:
    try:
        try:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        except RuntimeError as error:
            raise ValueError("the step failed") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuSPARSE error: CUSPARSE_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5 bytes"),
        RuntimeError("std::bad_alloc"),
        MemoryError("Unable to allocate 8 EiB for an array"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        chained(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_every_form_of_out_of_memory_is_oom(error: BaseException) -> None:
    status, reason = classify(error)
    assert status == "oom"
    assert reason.startswith("out of memory: ")
    assert reason.endswith("make training.batch_size or the image smaller")


def test_real_out_of_memory_of_torch_and_numpy_is_oom() -> None:
    for allocate in (lambda: torch.empty(2**60), lambda: np.empty(2**55)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert classify(caught.value)[0] == "oom"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("the queue is out of memory slots"),
        OSError(errno.ENOENT, "No such file or directory"),
        KeyError("out of memory"),
    ],
)
def test_other_errors_are_failures(error: BaseException) -> None:
    status, reason = classify(error)
    assert status == "failed"
    assert reason.startswith(f"{type(error).__name__}: ")


def test_reason_of_a_cuda_error_is_without_the_advice_on_debugging_kernels() -> None:
    text = (
        "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in https://docs.nvidia.com/cuda/"
        "cuda-runtime-api/group__CUDART__TYPES.html for more information.\nCUDA kernel errors might be asynchronously "
        "reported at some other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing "
        "CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
    )
    with pytest.raises(torch.AcceleratorError) as caught:
        raise torch.AcceleratorError(text)
    where = f"(test_failures.py:{caught.tb.tb_lineno})"
    assert classify(caught.value) == ("failed", f"AcceleratorError: CUDA error: device-side assert triggered {where}")


def test_reason_names_the_line_and_a_diverged_cell_its_step() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert "(test_failures.py:" in classify(caught.value)[1]
    assert classify(DivergedError("loss is nan at step 3")) == ("diverged", "loss is nan at step 3")
