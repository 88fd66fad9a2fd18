"""The form in which every benchmark reports: one figure per line of JSON, on disk before the next one is measured."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from figure_file import FigureWriter, append_synced, parser, with_threads

from decoderbench.training.cores import choose_threads
from decoderbench.training.devices import choose_device, device_name, start_device, synchronize

__all__ = ["Figures", "append_synced", "parser", "seconds", "start", "versions"]


class Figures(FigureWriter):
    """Prints the figures of one part of a benchmark, and appends them to a file if there is one.

    Attributes:
        device: where it measures.
    """

    def __init__(self, part: str, device: torch.device, path: Path | None = None) -> None:
        name = with_threads(device_name(device), torch.get_num_threads(), device.type)
        super().__init__(part, path, name, versions())
        self.device = device


def versions() -> str:
    """Return the versions that a figure depends on."""
    cuda = f", CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return f"Python {platform.python_version()}, torch {torch.__version__}{cuda}, timm {timm.__version__}"


def start(part: str, given: argparse.Namespace) -> Figures:
    """Start the device, with as many threads as a cell gets there, and return the writer of a part's figures."""
    device = choose_device(given.device)
    if (threads := choose_threads(None, device)) is not None:
        torch.set_num_threads(threads)
    start_device(device)
    return Figures(part, device, given.out)


def seconds(device: torch.device, run: Callable[[], object]) -> float:
    """Return the seconds that a function takes, with the device synchronized before and after."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin
