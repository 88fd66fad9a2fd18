"""Imported by a server process that forks workers: what each of them would load anew. Nothing else imports this.

A fork is safe because this starts no thread and does not touch CUDA, not even to count devices.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import pyarrow.parquet  # noqa: F401
import torch

import decoderbench.execution.work  # noqa: F401

torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # with its first optimizer, PyTorch imports its compiler
