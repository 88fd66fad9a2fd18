"""Where code waits for the CUDA device: refuse it, or record each wait. Nothing is noticed on a CPU.

PyTorch notices reads of values, blocking copies and waits for a stream; not `torch.cuda.synchronize`, nor copies that
were asked not to block (c10/cuda/CUDAFunctions.h).
"""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

NOTICE = "called a synchronizing CUDA operation"


@contextmanager
def refusing_host_waits(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError where the block waits for the device.

    The operator of the CTC loss may wait: PyTorch uploads the lengths, which are on the host, with blocking copies,
    forward and backward (LossCTC.cu). All that the framework itself does around it is refused.
    """
    if device.type != "cuda":
        yield
        return
    ctc_loss = torch.ops.aten._ctc_loss

    def ctc_loss_that_may_wait(*arguments: Any, **options: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        try:
            nll, alpha = ctc_loss(*arguments, **options)
        finally:
            torch.cuda.set_sync_debug_mode("error")
        if nll.grad_fn is not None:
            nll.grad_fn.register_prehook(lambda gradients: torch.cuda.set_sync_debug_mode("default"))
            nll.grad_fn.register_hook(lambda *gradients: torch.cuda.set_sync_debug_mode("error"))
        return nll, alpha

    with mock.patch.object(torch.ops.aten, "_ctc_loss", ctc_loss_that_may_wait), _noticing("error"):
        yield


@contextmanager
def recording_host_waits(device: torch.device) -> Iterator[list[str]]:
    """Yield a list that receives the place, file:line, of each wait for the device in the block."""
    waits: list[str] = []
    if device.type != "cuda":
        yield waits
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _noticing("warn"):
            yield waits
    waits += [f"{Path(each.filename).name}:{each.lineno}" for each in caught if NOTICE in str(each.message)]


def place_of_wait(error: RuntimeError) -> str | None:
    """Return file:line of the code outside torch that waited, if this is the error of a refused wait."""
    if NOTICE not in str(error):
        return None
    torch_folder = Path(torch.__file__).parent
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if torch_folder not in Path(frame.filename).parents
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}"


@contextmanager
def _noticing(mode: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
