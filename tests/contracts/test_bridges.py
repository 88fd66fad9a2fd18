"""Every registered bridge conforms, and the kit catches bridges that are broken in one place."""

from typing import Any

import pytest
import torch
from support import BRIDGES, REGISTRY, Options
from torch import Tensor, nn

from decoderbench import Bridge, ComponentConfig, FeatureMapSpec, InfeasibleError, SequenceSpec
from decoderbench.testing import ConformanceError, check_bridge


@pytest.mark.parametrize(("name", "options"), BRIDGES, ids=str)
def test_it_conforms(name: str, options: Options) -> None:
    check_bridge(REGISTRY.bridges[name].component, **options)


class Small(Bridge):
    """The mean over the height, and a linear layer over each column."""

    name = "small"
    Config = ComponentConfig

    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width, dim=8, left_to_right=True)
        self.linear = nn.Linear(features.channels, 8)

    def forward(self, features: Tensor) -> Tensor:
        memory: Tensor = self.linear(features.mean(dim=2).transpose(1, 2))
        return memory


class OnlyOneRow(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        if features.height > 1:
            raise InfeasibleError(f"bridge small reads one row, given {features.height}")


@pytest.mark.parametrize("healthy", [Small, OnlyOneRow])
def test_what_the_faults_are_planted_in_conforms(healthy: type[Bridge]) -> None:
    check_bridge(healthy)


class WrongLength(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width * features.height, dim=8, left_to_right=True)


class RefusesAll(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        raise InfeasibleError("bridge small reads nothing")


class HalfPrecision(Small):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).half()


class NeedsContiguous(Small):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.view(features.shape[0], -1).view(features.shape))


class MixesTheBatch(Small):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features - features.mean(dim=0))


class InPlace(Small):
    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            features += 1
        return super().forward(features)


class Detached(Small):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.detach())


class UnusedParameter(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.position = nn.Parameter(torch.zeros(8))


class LooksAtWeights(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        if self.linear.weight.abs().max().item() > 9:
            nn.init.zeros_(self.linear.weight)


class FixedDevice(Small):
    def __init__(self, config: ComponentConfig, features: FeatureMapSpec) -> None:
        super().__init__(config, features)
        self.register_buffer("position", torch.arange(8, device="cpu"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (WrongLength, r"`memory` declares.*got \(2, 5, 8\) where \(2, 15, 8\) is declared, for FeatureMapSpec\(chann"),
        (RefusesAll, "got bridge small reads nothing;.*accept one of these at least"),
        (HalfPrecision, "in float32; got torch.float16; leave number formats to the recogniser"),
        (NeedsContiguous, "got RuntimeError: view size is not compatible"),
        (MixesTheBatch, "a batch gives what its single images give.*mix nothing across the batch"),
        (InPlace, "got a batch that was changed in place; work on a copy"),
        (Detached, "got no finite gradient for the features; keep it in the graph"),
        (UnusedParameter, "got no gradient for position; use these parameters"),
        (LooksAtWeights, "builds on the meta device.*got RuntimeError: Tensor.item"),
        (FixedDevice, "builds on the meta device.*got values in position.*create tensors on the default device"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_caught(fault: type[Bridge], said: str) -> None:
    with pytest.raises(ConformanceError, match=f"(?s)^bridge 'small' breaks the rule: .*{said}"):
        check_bridge(fault)


def test_a_class_of_another_kind_is_refused() -> None:
    other: Any = REGISTRY.decoders["lstm_ctc"].component
    with pytest.raises(ConformanceError, match="as bridge; offer a class derived from Bridge"):
        check_bridge(other)
