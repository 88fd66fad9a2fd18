"""Components and the framework's own device code on fake CUDA tensors: mixed devices, waits and number formats."""

import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.small_decoders import SmallCTC, SmallLSTM
from helpers.support import BRIDGES, DECODERS, ENCODERS, RECTIFIERS, REGISTRY, Options
from PIL import Image
from torch import Tensor, nn

from decoderbench import (
    Bridge,
    Charset,
    ComponentConfig,
    Dataset,
    FeatureMapSpec,
    ImageSpec,
    Labels,
    LabelSpec,
    Recognizer,
    ResidentDataset,
    Sample,
    SequenceSpec,
)
from decoderbench.data import resident_dataset
from decoderbench.data.audit import audit
from decoderbench.data.augmentation import Augmentation
from decoderbench.data.image_cache import open_store
from decoderbench.data.resident_dataset import Batch
from decoderbench.model.autoregressive import all_ended
from decoderbench.model.recognizer import as_memory
from decoderbench.options import AugmentationOptions, EvaluationOptions, ImageOptions, TrainingOptions
from decoderbench.testing import ConformanceError
from decoderbench.testing.fake_cuda import Seen, fake_cuda
from decoderbench.testing.rules.devices import BEYOND_FAKE
from decoderbench.training import evaluation, returned_texts, transcription
from decoderbench.training.finite_guard import FiniteGuard
from decoderbench.training.optimizer import build_optimizer, set_learning_rate

IMAGE = ImageSpec(channels=1, height=32, width=96)
FEATURES = FeatureMapSpec(channels=6, height=2, width=5)
MEMORY = SequenceSpec(length=6, dim=11, left_to_right=True)
LABELS = LabelSpec(charset=Charset("0123456789"), max_length=3, frames_needed=4)
TEXTS = ["", "7", "122"]

STAGES = [
    *(("rectifier", *case, IMAGE, (1, 32, 96)) for case in RECTIFIERS),
    *(("encoder", *case, IMAGE, (1, 32, 96)) for case in ENCODERS),
    *(("bridge", *case, FEATURES, (6, 2, 5)) for case in BRIDGES),
]


def build(kind: str, name: str, options: Options, *specs: object) -> Any:
    component = REGISTRY[kind][name].component
    return component(component.Config.model_validate(options), *specs)


def moved(seen: Seen, labels: Labels) -> Labels:
    return Labels(seen.move(labels.ids), seen.move(labels.lengths), labels.host_lengths)


def waits_outside(seen: Seen, *allowed: Callable[..., object]) -> list[str]:
    return [str(wait) for wait in seen.waits if not any(map(wait.is_in, allowed))]


# What is found.

WAITS: dict[str, tuple[str, Callable[[Tensor, Tensor], object]]] = {
    "item": ("a value", lambda x, host: x.sum().item()),
    "bool": ("a value", lambda x, host: bool(x.any())),
    "float": ("a value", lambda x, host: float(x[0, 0])),
    "tolist": ("a value", lambda x, host: x.tolist()),
    "range": ("a value", lambda x, host: range(x.long()[0, 0])),  # type: ignore[arg-type]
    "cpu": ("a copy from cuda to cpu", lambda x, host: x.cpu()),
    "upload": ("a copy from cpu to cuda", lambda x, host: host.to("cuda")),
    "element assigned": ("a copy from cpu to cuda", lambda x, host: operator.setitem(x, (0, 0), 1.0)),
    "copy_": ("a copy from cpu to cuda", lambda x, host: x.copy_(host)),
    "torch.tensor": ("a copy from cpu to cuda", lambda x, host: torch.tensor([1.0], device="cuda")),
    "new_tensor": ("a copy from cpu to cuda", lambda x, host: x.new_tensor(1.0)),
    "list as index": ("a copy from cpu to cuda", lambda x, host: x[[0, 1]]),
    "index on the host": ("an index on the host", lambda x, host: x[host[0].long()]),
    "mask": ("an index that is a mask", lambda x, host: x[x > 0]),
    "mask, assigned": ("an index that is a mask", lambda x, host: operator.setitem(x, x > 0, x.sum())),
    "masked_select": ("masked_select", lambda x, host: x.masked_select(x > 0)),
    "nonzero": ("nonzero", lambda x, host: x.nonzero()),
    "where": ("nonzero", lambda x, host: torch.where(x > 0)),
    "unique": ("unique", lambda x, host: x.unique()),
    "allclose": ("torch.allclose", lambda x, host: torch.allclose(x, x)),
    "format": ("a tensor that is printed", lambda x, host: f"{x}"),
    "str": ("a tensor that is printed", lambda x, host: str(x)),
    "equal": ("torch.equal", lambda x, host: torch.equal(x, x)),
    "repeat_interleave": ("repeat_interleave", lambda x, host: x.repeat_interleave(x[0].long(), dim=1)),
    "linalg": ("torch.linalg", lambda x, host: torch.linalg.inv(x)),
    "ctc_loss": (
        "ctc_loss with lengths on the device",
        lambda x, host: F.ctc_loss(x[:, None], x[:1].long(), x[0, :1].long(), x[0, :1].long(), reduction="none"),
    ),
}
NO_WAITS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "upload that does not block": lambda x, host: host.to("cuda", non_blocking=True),
    "copy_ that does not block": lambda x, host: x.copy_(host, non_blocking=True),
    "value of the host": lambda x, host: host.sum().item(),
    "number": lambda x, host: torch.where(x > 0, 0.0, 2.0 * x).clamp(min=1),
    "number of the host": lambda x, host: x * torch.tensor(2.0),
    "row assigned": lambda x, host: operator.setitem(x, 0, 1.0),
    "number assigned by mask": lambda x, host: operator.setitem(x, x > 0, 1.0),
    "masked_fill": lambda x, host: x.masked_fill(x > 0, 1.0),
    "repeat_interleave": lambda x, host: x.repeat_interleave(3, dim=0),
    "repeat_interleave of a given size": lambda x, host: x.repeat_interleave(x[0].long(), dim=1, output_size=5),
    "one_hot": lambda x, host: F.one_hot(x.long(), 5),
    "new on the device": lambda x, host: torch.full((2,), 1.0, device=x.device) + x.new_zeros(2),
}


def waits_of(run: Callable[[Tensor, Tensor], object], *, inference: bool) -> list[str]:
    with fake_cuda() as seen, torch.inference_mode() if inference else nullcontext():
        with suppress(*BEYOND_FAKE):
            run(seen.move(torch.rand(2, 2)), torch.ones(2, 2))
        assert all(wait.place.startswith("test_fake_cuda.py:") for wait in seen.waits)
        return [wait.operation for wait in seen.waits]


@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
@pytest.mark.parametrize("name", WAITS)
def test_wait_for_the_device_is_found(name: str, inference: bool) -> None:
    operation, run = WAITS[name]
    assert any(operation in found for found in waits_of(run, inference=inference))


@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
@pytest.mark.parametrize("name", NO_WAITS)
def test_work_without_a_wait_is_not_reported(name: str, inference: bool) -> None:
    assert waits_of(NO_WAITS[name], inference=inference) == []


MIXES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": operator.add,
    "mm": torch.matmul,
    "cat": lambda x, host: torch.cat([x, host]),
    "gather": lambda x, host: x.gather(0, host),
    "index": lambda x, host: host[x],
    "index_put_": lambda x, host: operator.setitem(x, x, host[:, None]),
}


@pytest.mark.parametrize("name", MIXES)
def test_mix_of_devices_is_refused(name: str) -> None:
    host = torch.ones(2, 2, dtype=torch.int64)
    with fake_cuda() as seen:
        on_device = seen.move(host)
        with pytest.raises(ConformanceError, match=f"got {name} of tensors on cpu and cuda; create tensors on the dev"):
            MIXES[name](on_device, host)


class Mixed(nn.Module):
    """Recurrences of all sorts, and a mask that `to` does not move if it is a plain tensor."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        self.lstm, self.gru, self.cell = nn.LSTM(3, 4, num_layers=2), nn.GRU(4, 4, bidirectional=True), nn.GRUCell(8, 3)
        mask = torch.ones(3)
        if registered:
            self.register_buffer("mask", mask)
        else:
            self.mask = mask

    def forward(self, frames: Tensor) -> Tensor:
        hidden: Tensor = self.cell(self.gru(self.lstm(frames)[0])[0][-1])
        return hidden * self.mask


@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
def test_plain_tensor_stays_on_the_host_and_a_buffer_moves(inference: bool) -> None:
    for registered in (True, False):
        module = Mixed(registered=registered)
        with fake_cuda() as seen, torch.inference_mode() if inference else nullcontext():
            frames = seen.move(torch.rand(5, 2, 3))
            if registered:
                output = seen.move(module)(frames)
                assert (output.shape, output.device.type) == ((2, 3), "cuda")
                assert waits_outside(seen) == []
                assert [call.function for call in seen.recurrences] == ["lstm", "gru"]
            else:
                with pytest.raises(ConformanceError, match="mul of tensors on cpu and cuda"):
                    seen.move(module)(frames)


# Components.


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage[0]}-{stage[1]}-{stage[2]}")
def test_stage_stays_on_the_device_and_never_waits(stage: Any) -> None:
    kind, name, options, spec, shape = stage
    module = build(kind, name, options, spec)
    with fake_cuda() as seen:
        assert seen.move(module)(seen.move(torch.rand(2, *shape))).device.type == "cuda"
        assert waits_outside(seen) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, marks=[pytest.mark.slow] if name == before else [], id=f"{name}-{options}")
        for (before, _), (name, options) in pairwise([("", {}), *DECODERS])
    ],
)
def test_decoder_stays_on_the_device_and_waits_only_for_the_end_of_the_texts(name: str, options: Options) -> None:
    spec = replace(MEMORY, shape=(2, 3)) if REGISTRY["decoder"][name].component.needs_map else MEMORY
    decoder, labels = build("decoder", name, options, spec, LABELS), Labels.from_texts(TEXTS, LABELS.charset)
    with fake_cuda() as seen:
        decoder, labels = seen.move(decoder), moved(seen, labels)
        memory = as_memory(seen.move(torch.rand(3, 6, 11)), spec, 6)
        assert decoder.loss(memory, labels).device.type == "cuda"
        assert waits_outside(seen) == []
        decoder.eval()
        assert decoder.nll(memory, labels).device.type == "cuda"
        assert waits_outside(seen, all_ended) == []  # the nll of a refined text begins with a reading
        for beam_size in [size for size in (1, 3) if size <= (decoder.largest_beam or size)]:
            seen.waits.clear()
            with torch.inference_mode():
                read = decoder.transcribe(memory, beam_size=beam_size)
            assert {part.device.type for part in (read.ids, read.lengths, read.log_prob)} == {"cuda"}
            assert waits_outside(seen, all_ended) == []
            assert len(seen.waits) <= LABELS.max_length + 1


# The framework.


def test_finite_guard_waits_only_in_its_check() -> None:
    with fake_cuda() as seen:
        guard = FiniteGuard(torch.device("cuda"))
        for step in (1, 2, 3):
            guard.record(step, torch.rand((), device="cuda"), torch.rand((), device="cuda"))
        assert waits_outside(seen) == []
        guard.check()
        assert waits_outside(seen, FiniteGuard.check) == []
        assert seen.waits


def test_clipping_and_optimizer_never_wait() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2))
    with fake_cuda() as seen:
        optimizer = build_optimizer(seen.move(module), TrainingOptions())
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            assert nn.utils.clip_grad_norm_(module.parameters(), 5.0).device.type == "cuda"
            set_learning_rate(optimizer, 1e-3)
            optimizer.step()
        assert waits_outside(seen) == []


def test_augmentation_never_waits() -> None:
    options = AugmentationOptions(
        rotate=4.0, shear=0.15, scale=0.12, translate=0.08, contrast=0.3, brightness=0.1, noise=0.05
    )
    augment = Augmentation(options, 0, torch.device("cpu"))  # a generator of CUDA needs a GPU
    with fake_cuda() as seen:
        labels = Labels.from_texts(["a", "b"], Charset("ab"))
        images, columns = torch.zeros(2, 1, 8, 16, dtype=torch.uint8), torch.tensor([9, 16])
        augmented = augment(Batch(seen.move(images), labels, seen.move(columns)), 3)
        assert (augmented.images.dtype, augmented.images.device.type) == (torch.float32, "cuda")
        assert waits_outside(seen) == []


class Digits(Dataset):
    name = "digits"
    Config = ComponentConfig

    def samples(self) -> Sequence[Sample]:
        return [Sample(text, text, split) for text, split in (("1", "train"), ("22", "val"), ("3", "test"))]  # type: ignore[arg-type]

    def load_image(self, index: int) -> Image.Image:
        image = Image.new("L", (96, 32), index)
        image.putpixel((0, 0), 255)
        return image

    def fingerprint(self) -> str:
        return "digits"


@pytest.mark.parametrize("free_memory", [1 << 30, 0], ids=["images on the device", "images on the host"])
def test_batches_and_evaluation_wait_only_for_results(
    free_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_dataset, "_free_memory", lambda device: free_memory)
    dataset = Digits(ComponentConfig(), tmp_path)
    store = open_store(dataset, dataset.samples(), ImageOptions(height=32, width=96), cache_dir=tmp_path, workers=1)
    found = audit(dataset.samples(), charset=LABELS.charset, max_length=3)
    recognizer = build_recognizer(build("bridge", "mean_height", {}, small_encoder().features), SmallLSTM)
    with fake_cuda() as seen:
        data = ResidentDataset(store, found.with_images(store), torch.device("cuda"))
        recognizer = seen.move(recognizer)
        seen.waits.clear()
        images, labels, _ = data.gather(np.array([0, 1])).to_float()
        assert data.resident == (free_memory > 0)
        assert waits_outside(seen) == []
        assert (images.device, labels.ids.device, labels.host_lengths) == (labels.lengths.device, images.device, (1, 2))
        evaluation.evaluate(recognizer, data, np.array([0, 1, 2]), EvaluationOptions(batch_size=2))
        assert waits_outside(seen, transcription.copy_to_host, all_ended) == []
        assert any(wait.is_in(transcription.copy_to_host) for wait in seen.waits)


def test_evaluation_with_details_waits_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident_dataset, "_free_memory", lambda device: 1 << 30)
    dataset = Digits(ComponentConfig(), tmp_path)
    store = open_store(dataset, dataset.samples(), ImageOptions(height=32, width=96), cache_dir=tmp_path, workers=1)
    found = audit(dataset.samples(), charset=LABELS.charset, max_length=3)
    recognizer = build_recognizer(build("bridge", "mean_height", {}, small_encoder().features), SmallCTC)
    with fake_cuda() as seen:
        data = ResidentDataset(store, found.with_images(store), torch.device("cuda"))
        recognizer = seen.move(recognizer)
        seen.waits.clear()
        evaluation.evaluate(recognizer, data, np.array([0, 1, 2]), EvaluationOptions(batch_size=2), with_details=True)
        assert waits_outside(seen, transcription.copy_to_host, returned_texts.copy_to_host) == []
        assert any(wait.is_in(returned_texts.copy_to_host) for wait in seen.waits)


# Number formats.


class GRUBridge(Bridge):
    name = "gru_bridge"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width, dim=8, left_to_right=True)
        self.gru = nn.GRU(features.channels, 8, batch_first=True)

    def forward(self, features: Tensor) -> Tensor:
        frames = features.mean(dim=2).transpose(1, 2)
        memory: Tensor = self.gru(frames, frames.new_zeros(1, len(frames), 8))[0]
        return memory


def small_encoder() -> Any:
    return build("encoder", "timm_cnn", {"model": "test_resnet", "stage": 2}, IMAGE)


def build_recognizer(bridge: Bridge, decoder: type[SmallCTC | SmallLSTM], dtype: torch.dtype | None = None) -> Any:
    rectifier = build("rectifier", "none", {}, IMAGE)
    return Recognizer(
        rectifier, small_encoder(), bridge, decoder(ComponentConfig(), bridge.memory, LABELS), dtype=dtype
    )


BRIDGES_WITH_RECURRENCE: dict[str, Callable[[FeatureMapSpec], Bridge]] = {
    "bilstm": lambda features: build("bridge", "bilstm", {}, features),
    "mean_height": lambda features: build("bridge", "mean_height", {"lstm_layers": 2, "lstm_dim": 4}, features),
    "plugin": lambda features: GRUBridge(ComponentConfig(), features),
}


@pytest.mark.parametrize("name", BRIDGES_WITH_RECURRENCE)
def test_recurrences_run_in_float32_while_the_rest_runs_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    bridge = BRIDGES_WITH_RECURRENCE[name](small_encoder().features)
    recognizer = build_recognizer(bridge, SmallCTC, torch.bfloat16)
    given: list[torch.dtype] = []
    bridge.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].dtype))
    with fake_cuda() as seen:
        memory = seen.move(recognizer).memory(seen.move(torch.rand(2, 1, 32, 96)))
    assert given == [torch.bfloat16]  # the features come from convolutions under autocast
    assert memory.frames.dtype == torch.float32
    assert {call.dtypes for call in seen.recurrences} == {frozenset({torch.float32})}
    assert waits_outside(seen) == []
