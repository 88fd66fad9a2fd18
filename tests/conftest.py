"""Fixtures for all tests: a separate cache, one thread, and an experiment that trains in a second.

PyTorch and what needs it are imported in the fixtures: the process that hands out tests needs neither, and the others
start after it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and PyTorch start as many as there are cores, in each test process

import gc
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import pytest
from helpers.running import TINY_PLUGIN
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.experiments import PlanCells

    from decoderbench.registry.registry import Registry

# Without a deadline, no property fails because the machine is busy. Every run draws other examples.
settings.register_profile("no_deadline", deadline=None, max_examples=50)
settings.load_profile("no_deadline")


@pytest.fixture(scope="session", autouse=True)
def _separate_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECODERBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("DECODERBENCH_EXECUTOR", "inline")  # no test imports PyTorch once more unless it is about that
        yield


@pytest.fixture(scope="session", autouse=True)
def _separate_temporary_files() -> Iterator[None]:
    """Give this process and those that it starts lock files of their own, so that tests do not wait for each other.

    The path is short, since sockets of processes are there.
    """
    folder = tempfile.mkdtemp(prefix="db-")
    # Last: the processes of multiprocessing have their sockets there until the very end.
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also in the background of a shell, which starts its jobs with the signal ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    from decoderbench.training import cores

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "SAMPLE_SECONDS", 0.0)  # other tests keep the cores busy
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_runs() -> Iterator[None]:
    """Leave out of each run what takes longer than to train a cell of a test, and what no test of a run looks at."""
    from decoderbench.data import decoding_workers
    from decoderbench.training import provenance, timing

    commit = provenance._commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LATENCY_WARM_UPS", 1)
        patch.setattr(timing, "LATENCY_RUNS", 3)
        patch.setattr(provenance, "_commit", lambda: commit)
        patch.setattr(decoding_workers, "usable_cores", lambda: 1)  # a fork of this process takes longer than to decode
        yield


@pytest.fixture(scope="session", autouse=True)
def _fonts_of_the_package_read_once() -> Iterator[None]:
    """Reading their character maps takes longer than drawing a small dataset."""
    from decoderbench_plugins.datasets.rendered_words import dataset
    from decoderbench_plugins.datasets.rendered_words.typefaces import select_typefaces

    of_package = cache(partial(select_typefaces, folder=None))

    def select(characters: str, folder: Path | None) -> Any:
        return select_typefaces(characters, folder) if folder else of_package(characters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "select_typefaces", select)
        yield


def pytest_collection_finish() -> None:
    """Exempt what is there after collection from garbage collection: each failing cell asks for one."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All installed components."""
    from decoderbench.registry.plugin_manager import build_plugin_manager
    from decoderbench.registry.registry import Registry

    return Registry(build_plugin_manager())


@pytest.fixture(scope="session")
def plan_cells(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> PlanCells:
    """Plans an experiment file by name, each once for all tests, also if several processes run them."""
    from helpers.experiments import cell_planner

    folder = tmp_path_factory.getbasetemp()
    return cell_planner(registry, folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture
def tiny_registry() -> Registry:
    """All installed components and `tiny_cnn`, which is small enough to train in a test."""
    from decoderbench.registry.plugin_manager import build_plugin_manager
    from decoderbench.registry.registry import Registry

    return Registry(build_plugin_manager([str(TINY_PLUGIN)]))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """An experiment with three cells on 100 generated images, as plain data."""
    return {
        "name": "tiny",
        "dataset": {
            "use": "synthetic_captcha",
            "charset": "01",
            "min_length": 1,
            "max_length": 2,
            "train": 64,
            "val": 16,
            "test": 20,
            "width": 80,
            "height": 40,
        },
        "image": {"height": 16, "width": 32},
        "training": {"steps": 6, "batch_size": 8, "validate_every": 3, "precision": "float32"},
        "grid": {
            "seeds": [0],
            "encoder": {"tiny": {"use": "tiny_cnn"}},
            "bridge": {"columns": {"use": "mean_height"}},
            "decoder": {
                "loop": {"use": "lstm_cell", "hidden_dim": 8},
                "ctc": {"use": "lstm_ctc", "hidden_dim": 8},
                "attention": {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4},
            },
        },
    }
