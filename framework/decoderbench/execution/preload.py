"""Imported by a server process that forks workers: what each of them would load anew. Nothing else imports this.

A fork is safe because this starts no thread and does not touch CUDA, not even to count devices.
"""

import os
import signal

# A signal for all processes of a run, from a terminal or a job scheduler, must not cost the workers their parent.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

RUN = os.getppid()
CHECK_SECONDS = 0.25
"""Seconds between two looks, during the imports, at whether the process of the run is still there."""


def end_without_run(number: int, frame: object) -> None:
    """End this process if that of the run is gone: the server itself would notice only after the imports."""
    if os.getppid() != RUN:
        os._exit(0)


handler = signal.signal(signal.SIGALRM, end_without_run)
signal.setitimer(signal.ITIMER_REAL, CHECK_SECONDS, CHECK_SECONDS)

import pyarrow.parquet  # noqa: E402, F401
import torch  # noqa: E402

import decoderbench.execution.work  # noqa: E402, F401

torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # with its first optimizer, PyTorch imports its compiler

signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, handler)
