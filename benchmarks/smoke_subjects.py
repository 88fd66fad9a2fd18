"""Components with their inputs, to be computed on two devices: every registered one, and CNNs of timm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decoderbench import Charset, FeatureMapSpec, ImageSpec, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.model.recognizer import Recognizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.recurrences import recording_recurrences
from helpers.support import BRIDGES, DECODERS, ENCODERS, RECTIFIERS, REGISTRY, Case

__all__ = ["REGISTRY", "TEXTS", "Subject", "labels_on", "recording_recurrences", "subjects"]

BATCH = 8
IMAGE = ImageSpec(channels=1, height=32, width=128)
FEATURES = FeatureMapSpec(channels=16, height=4, width=16)
MEMORY = SequenceSpec(length=16, dim=24, left_to_right=True)
MAP = SequenceSpec(length=16, dim=24, left_to_right=False, shape=(4, 4))
LABELS = LabelSpec(charset=Charset("0123456789"), max_length=6, frames_needed=11)
TEXTS = ("", "0", "012345", "001122", "99", "31415", "7", "8642")  # the empty one and the longest among them

# One small model each of families that differ in their layers, with the stage that reduces images by 8.
TIMM = {
    "resnet18": 2, "mobilenetv3_small_050": 2, "efficientnet_b0": 2, "convnext_atto": 1, "regnetx_002": 2,
    "densenet121": 2, "repvgg_a0": 2, "ghostnet_050": 2, "resnest14d": 2, "mnasnet_small": 2,
    "fasternet_t0": 1, "inception_next_atto": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A component with options: what it is made from, and the shape of its input."""

    kind: str
    case: Case
    specs: tuple[Any, ...]
    input_shape: tuple[int, ...]

    @property
    def title(self) -> str:
        """Kind, name and options."""
        name, options = self.case
        return " ".join([self.kind, name, *(f"{key}={value}" for key, value in options.items())])

    def build(self) -> nn.Module:
        """Return the component on the CPU, always with the same weights, as a recognizer would hold it."""
        name, options = self.case
        component = REGISTRY[self.kind][name].component
        torch.manual_seed(0)
        module: nn.Module = component(component.Config.model_validate(options), *self.specs)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.02 * torch.randn_like(parameter)  # some start at zero, which would hide what they do
        stages = {kind: nn.Identity() for kind in ("rectifier", "encoder", "bridge", "decoder")} | {self.kind: module}
        Recognizer(**stages)  # sets the memory format, and the number format of recurrences
        return module

    def inputs(self) -> Tensor:
        """Return the input, always the same."""
        return torch.randn(self.input_shape, generator=torch.Generator().manual_seed(1))

    def memory_of(self, frames: Tensor) -> Memory:
        """Return frames (B, T, D) as the memory of this decoder, a feature map if it is built for one."""
        return replace(Memory.of(frames), shape=self.specs[0].shape)

    def observe(
        self, module: nn.Module, device: torch.device, dtype: torch.dtype, autocast: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Return the outputs, or the nll of a decoder, and the gradients of a fixed projection of them, by name.

        Stages are in train mode, for their batch statistics, without dropout; decoders are in eval mode.
        """
        module.train(self.kind != "decoder")
        for part in module.modules():
            if isinstance(part, nn.RNNBase):
                part.train()  # cuDNN has no backward pass in eval mode
                part.dropout = 0.0
            if "Drop" in type(part).__name__:
                part.eval()
        inputs = self.inputs().to(device, dtype).requires_grad_()
        with torch.autocast(device.type, autocast) if autocast else nullcontext():
            if self.kind == "decoder":
                outputs = module.nll(self.memory_of(inputs), labels_on(device))
            else:
                outputs = module(inputs)
        direction = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2)).to(outputs)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        of_inputs, *of_parameters = torch.autograd.grad(outputs, [inputs, *parameters], direction, allow_unused=True)
        found = {
            "outputs": outputs.detach(),
            "gradient of the inputs": of_inputs,
            "gradients of the parameters": join([gradient for gradient in of_parameters if gradient is not None]),
        }
        return {name: value.double().cpu() for name, value in found.items() if value is not None}


def join(tensors: list[Tensor]) -> Tensor | None:
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else None


def labels_on(device: torch.device) -> Labels:
    return Labels.from_texts(TEXTS, LABELS.charset, max_length=LABELS.max_length, device=device)


def subjects(*, small: bool) -> Iterator[Subject]:
    """Yield all components with their options; if `small`, each component once."""
    timm: list[Case] = [("timm_cnn", {"model": name, "stage": stage, "keep_width": 4}) for name, stage in TIMM.items()]
    shelves = {
        "rectifier": (RECTIFIERS, (IMAGE,), (IMAGE.channels, IMAGE.height, IMAGE.width)),
        "encoder": ([*ENCODERS, *timm], (IMAGE,), (IMAGE.channels, IMAGE.height, IMAGE.width)),
        "bridge": (BRIDGES, (FEATURES,), (FEATURES.channels, FEATURES.height, FEATURES.width)),
        "decoder": (DECODERS, (MEMORY, LABELS), (MEMORY.length, MEMORY.dim)),
    }
    for kind, (cases, specs, shape) in shelves.items():
        chosen = {name: (name, options) for name, options in reversed(cases)}.values() if small else cases
        for case in chosen:
            needs_map = kind == "decoder" and REGISTRY[kind][case[0]].component.needs_map
            yield Subject(kind, case, (MAP, LABELS) if needs_map else specs, (BATCH, *shape))
