"""Peak memory of training and of transcription, with a simulated allocator."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoderbench.data.resident_dataset import Batch
from decoderbench.labels import Labels
from decoderbench.training.memory import TrainingMemory, transcription_peak_mb

NO_LABELS = Labels(torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), ())
MB = 1_000_000


class Allocator:
    """Counts bytes as PyTorch's allocator does."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def take(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def spike(self, size: int) -> None:
        self.take(size)
        self.now -= size

    def reset(self, device: Any) -> None:
        self.peak = self.now


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    allocator = Allocator()
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocator.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: allocator.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", allocator.reset)
    return allocator


def test_peak_of_training_leaves_out_the_dataset_and_evaluations(allocator: Allocator) -> None:
    allocator.spike(900 * MB)  # of an earlier cell
    allocator.take(100 * MB)  # the images
    memory = TrainingMemory(torch.device("cuda"))
    allocator.take(10 * MB)  # weights
    allocator.spike(30 * MB)  # a step
    with memory.not_counted():
        allocator.spike(500 * MB)  # an evaluation
    assert memory.peak_mb() == 40
    allocator.spike(35 * MB)
    assert memory.peak_mb() == 45


def test_peak_of_training_holds_although_an_evaluation_fails(allocator: Allocator) -> None:
    memory = TrainingMemory(torch.device("cuda"))

    def evaluate() -> None:
        allocator.spike(500 * MB)
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"), memory.not_counted():
        evaluate()
    assert memory.peak_mb() == 0


def test_peak_of_transcription_is_that_of_weights_images_and_activations(allocator: Allocator) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(MB // 4))
            self.again = self.weight  # shared weights count once

        def transcribe(self, images: Tensor, columns: None, *, beam_size: int) -> None:
            assert beam_size == 3
            allocator.spike(7 * MB)

    class OnCuda(torch.Tensor):
        device = torch.device("cuda")

    allocator.take(800 * MB)  # optimizer and other leftovers of training
    reader: Any = Reader()
    images = torch.zeros(MB // 2).as_subclass(OnCuda)
    assert transcription_peak_mb(reader, Batch(images, NO_LABELS), 3) == 1 + 2 + 7


def test_nothing_is_measured_on_a_cpu() -> None:
    memory = TrainingMemory(torch.device("cpu"))
    with memory.not_counted():
        pass
    assert memory.peak_mb() is None
    reader: Any = None
    assert transcription_peak_mb(reader, Batch(torch.zeros(1), NO_LABELS)) is None
