"""Training and scoring on a GPU; skipped without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from helpers.host_waits import place_of_wait, refusing_host_waits
from helpers.recurrences import recording_recurrences
from helpers.small_decoders import SmallCTC
from helpers.training import add_variant
from torch import Tensor, nn

from decoderbench import Charset, Experiment, Labels, hookimpl, run
from decoderbench.config.cell import Cell
from decoderbench.data.resident_dataset import ResidentDataset
from decoderbench.errors import DivergedError
from decoderbench.planning.prepare import prepare
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry
from decoderbench.training.building import build_recognizer
from decoderbench.training.devices import use_ieee_float32
from decoderbench.training.finite_guard import FiniteGuard
from decoderbench.training.local_context import LocalContext
from decoderbench.training.trainer import Trainer

pytestmark = pytest.mark.cuda

DEVICE = torch.device("cuda")
TEXTS = ["0", "11", "01", "", "10"]


@pytest.fixture(autouse=True)
def _float32_is_float32() -> Iterator[None]:
    with preserving_global_state():
        use_ieee_float32()
        yield


def plan(tiny: dict[str, Any], registry: Registry) -> dict[str, Cell]:
    return {cell.decoder.label: cell for cell in prepare(Experiment(**tiny), registry=registry).cells}


def test_run_trains_a_grid_on_the_gpu(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["augmentation"] = {"rotate": 5, "translate": 0.1, "contrast": 0.1, "noise": 0.1}
    tiny["training"]["precision"] = "auto"
    frame = run(Experiment(**tiny), registry=tiny_registry, results=tmp_path, device="cuda")
    assert set(frame["status"]) == {"done"}
    assert set(frame["device"]) == {torch.cuda.get_device_name()}
    training, transcription = frame["train_peak_memory_mb"], frame["infer_peak_memory_mb"]
    assert (training > 0).all()
    assert (transcription > 0).all()
    assert (training != transcription).all()


@pytest.mark.parametrize("decoder", ["loop", "ctc", "attention"])
def test_nll_and_gradients_are_equal_on_cpu_and_gpu(
    tiny: dict[str, Any], tiny_registry: Registry, decoder: str
) -> None:
    cell = plan(tiny, tiny_registry)[decoder]
    images = torch.randn(len(TEXTS), 1, 16, 32)
    found = []
    for device in (torch.device("cpu"), DEVICE):
        recognizer = build_recognizer(cell, tiny_registry, device)
        nll = recognizer.nll(images.to(device), Labels.from_texts(TEXTS, Charset("01"), device=device))
        gradients = torch.autograd.grad(nll.sum(), list(recognizer.parameters()))
        found.append([nll.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_recurrences_before_the_decoder_run_in_float32_although_the_other_layers_run_in_bfloat16(
    tiny: dict[str, Any], tiny_registry: Registry
) -> None:
    tiny["grid"]["bridge"] = {"recurrent": {"use": "mean_height", "lstm_layers": 1, "lstm_dim": 8}}
    tiny["training"]["precision"] = "bfloat16"
    recognizer = build_recognizer(plan(tiny, tiny_registry)["ctc"], tiny_registry, DEVICE)
    formats = []
    recognizer.encoder.register_forward_hook(lambda module, inputs, output: formats.append(output.dtype))
    with recording_recurrences(DEVICE) as recurrences:
        memory = recognizer.memory(torch.randn(5, 1, 16, 32, device=DEVICE))
    assert formats == [torch.bfloat16]
    assert recurrences == ["float32"]
    assert memory.frames.dtype == torch.float32


class CellsStarted:
    """An observer that notes, at the start of each cell, what the cells before have left.

    Attributes:
        allocated: bytes of the device that tensors fill.
        alive: decoders that were too large and still exist.
    """

    def __init__(self, too_large: WeakSet[nn.Module]) -> None:
        self.allocated: list[int] = []
        self.alive: list[int] = []
        self._too_large = too_large

    @hookimpl
    def cell_started(self, cell: Any) -> None:
        self.allocated.append(torch.cuda.memory_allocated(DEVICE))
        self.alive.append(len(self._too_large))


def test_memory_of_a_cell_that_ran_out_is_free_when_the_next_one_starts(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    too_large: WeakSet[nn.Module] = WeakSet()
    size = 2 * torch.cuda.get_device_properties(DEVICE).total_memory

    def nll(self: SmallCTC, memory: Tensor, labels: Labels) -> Tensor:
        too_large.add(self)
        return SmallCTC.nll(self, memory, labels) + torch.empty(size, dtype=torch.uint8, device=memory.device)[0]

    add_variant(tiny_registry, "decoder", SmallCTC, "too_large", nll=nll)
    # The first cell makes cuBLAS allocate its workspaces, which stay.
    tiny["grid"]["decoder"] = {
        "before": {"use": "ctc"},
        "too large": {"use": "too_large"},
        "after": {"use": "lstm_ctc"},
    }
    started = CellsStarted(too_large)
    tiny_registry.plugins.add(started, "cells started")
    frame = run(Experiment(**tiny), registry=tiny_registry, results=tmp_path, device="cuda")
    statuses = dict(zip(frame["decoder"], frame["status"], strict=True))
    assert statuses == {"before": "done", "too large": "oom", "after": "done"}
    assert started.alive == [0, 0, 0]
    assert started.allocated[2] <= started.allocated[1]


def test_a_planted_host_wait_is_refused() -> None:
    value = torch.ones(1, device=DEVICE)
    with pytest.raises(RuntimeError) as caught, refusing_host_waits(DEVICE):
        bool(value)
    assert (place_of_wait(caught.value) or "").startswith("test_cuda.py")


@pytest.mark.parametrize("decoder", ["loop", "ctc", "attention"])
def test_training_step_does_not_wait_for_the_gpu(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, decoder: str
) -> None:
    tiny["training"]["precision"] = "auto"
    prepared = prepare(Experiment(**tiny), registry=tiny_registry)
    dataset = ResidentDataset(prepared.inputs.images, prepared.inputs.audit, DEVICE)
    (cell,) = (cell for cell in prepared.cells if cell.decoder.label == decoder)
    trainer = Trainer(cell, LocalContext(cell, tiny_registry, dataset, tmp_path, environment={}))
    for step, batch in enumerate(trainer.context.batches(6), start=1):
        if step <= 3:  # the first ones load kernels
            trainer.take_step(batch)
        else:
            with refusing_host_waits(DEVICE):
                trainer.take_step(batch)


def test_finite_guard_names_the_first_non_finite_step_at_its_next_check() -> None:
    guard = FiniteGuard(DEVICE)
    assert guard.interval > 7
    for step in range(1, guard.interval):
        loss = torch.tensor(float("nan") if step >= 7 else 1.0, device=DEVICE)
        guard.record(step, loss, torch.ones((), device=DEVICE))
    with pytest.raises(DivergedError, match="loss is nan at step 7"):
        guard.check()
