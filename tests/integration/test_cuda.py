"""Training and scoring on a GPU; skipped without one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from decoderbench import Experiment, run
from decoderbench.config.cell import Cell
from decoderbench.planning.prepare import prepare
from decoderbench.registry.registry import Registry
from decoderbench.training.finite_guard import FiniteGuard
from decoderbench.training.local_context import build_recognizer

pytestmark = pytest.mark.cuda


def plan(tiny: dict[str, Any], registry: Registry, folder: Path) -> tuple[Cell, ...]:
    experiment = Experiment(**tiny)
    return prepare(experiment, registry=registry, base_dir=folder).cells


def test_run_trains_a_grid_on_the_gpu(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    tiny["augmentation"] = {"rotate": 5, "translate": 0.1, "contrast": 0.1, "noise": 0.1}
    tiny["training"]["precision"] = "auto"
    frame = run(Experiment(**tiny), registry=tiny_registry, results=tmp_path, device="cuda")
    assert set(frame["status"]) == {"done"}
    assert set(frame["device"]) == {torch.cuda.get_device_name()}
    assert (frame["peak_memory_mb"] > 0).all()


def test_nll_is_equal_on_cpu_and_gpu(tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path) -> None:
    from decoderbench.labels import Charset, Labels

    images = torch.randn(5, 1, 16, 32)
    texts = ["0", "11", "01", "", "10"]
    cells = plan(tiny, tiny_registry, tmp_path)
    assert len(cells) == 3
    for cell in cells:
        scores = []
        for name in ("cpu", "cuda"):
            device = torch.device(name)
            recognizer = build_recognizer(cell, tiny_registry, device).eval()
            labels = Labels.from_texts(texts, Charset("01"), device=device)
            with torch.no_grad():
                scores.append(recognizer.nll(images.to(device), labels).cpu())
        torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-3)


def test_finite_guard_names_the_first_non_finite_step_at_its_next_check() -> None:
    from decoderbench.errors import DivergedError

    guard = FiniteGuard(torch.device("cuda"))
    assert guard.interval > 7
    for step in range(1, guard.interval):
        loss = torch.tensor(float("nan") if step >= 7 else 1.0, device="cuda")
        guard.record(step, loss, torch.ones((), device="cuda"))
    with pytest.raises(DivergedError, match="loss is nan at step 7"):
        guard.check()
