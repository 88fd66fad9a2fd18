"""What the conformance kit says about components that only work at some widths, or that lack descriptions."""

from pathlib import Path
from typing import Any

import pytest
from helpers.commands import call
from helpers.small_decoders import SmallCTC
from planted.stages import SmallBridge
from torch import Tensor, nn

from decoderbench import ComponentConfig, testing
from decoderbench.testing import ConformanceError, check_decoder, checks_of, fresh_processes

UNDESCRIBED = '''
from decoderbench import Bridge, ComponentConfig, SequenceSpec, hookimpl
from torch import nn

class Mean(Bridge):
    """The mean over the height."""

    name = "mean"

    class Config(ComponentConfig):
        scale: float = 1.0

    def __init__(self, config, features):
        super().__init__(config, features)
        self.memory = SequenceSpec(length=features.width, dim=features.channels, left_to_right=True)

    def forward(self, features):
        return features.mean(dim=2).transpose(1, 2)

@hookimpl
def register_bridges():
    return [Mean]
'''


class FourHeads(SmallCTC):
    """Attention over frames of the width of the memory."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.attention = nn.MultiheadAttention(memory.dim, 4, batch_first=True)

    def forward(self, memory: Tensor) -> Tensor:
        return super().forward(self.attention(memory, memory, memory)[0])


class ReadsPairs(SmallCTC):
    """Fails in the forward pass at odd widths."""

    def forward(self, memory: Tensor) -> Tensor:
        even, odd = memory[:, :, ::2], memory[:, :, 1::2]
        return super().forward(memory + (even + odd).mean())


class FourGroups(SmallBridge):
    """GroupNorm of the channels of the features."""

    def __init__(self, config: ComponentConfig, features: Any) -> None:
        super().__init__(config, features)
        self.norm = nn.GroupNorm(4, features.channels)


def failure_of(cls: Any, rule: str) -> ConformanceError:
    (check,) = [check for check in checks_of(cls) if check.name == rule]
    with pytest.raises(ConformanceError) as caught:
        check()
    return caught.value


@pytest.mark.parametrize("decoder", [FourHeads, ReadsPairs])
def test_decoder_that_needs_an_even_width_is_advised_to_project_the_memory(decoder: Any) -> None:
    failure = failure_of(decoder, "works_at_every_size")
    assert failure.do.startswith("it works at D = 960, not at D = 7; ")
    assert failure.do.endswith("as in nn.Linear(memory.dim, 256)")


def test_bridge_that_needs_an_even_width_is_advised_to_project_the_features() -> None:
    failure = failure_of(FourGroups, "output_matches_declaration")
    assert failure.do.startswith("it works for 960 channels, not for 7; ")
    assert failure.do.endswith("as in nn.Conv2d(features.channels, 256, kernel_size=1)")


class Raises(SmallCTC):
    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        raise ZeroDivisionError


def test_decoder_that_fails_at_every_width_gets_the_place_of_the_exception() -> None:
    with pytest.raises(ConformanceError, match=r"look at test_kit_advice\.py:\d+"):
        check_decoder(Raises)


def test_check_warns_of_options_without_a_docstring(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("can_be_registered", "options_are_described", "output_matches_declaration")  # others take seconds

    def few_checks_of(*given: Any, **options: Any) -> list[Any]:
        return [check for check in checks_of(*given, **options) if check.name in few]

    monkeypatch.setattr(testing, "checks_of", few_checks_of)
    monkeypatch.setattr(fresh_processes, "start_workers", lambda: None)
    file = tmp_path / "mean.py"
    file.write_text(UNDESCRIBED)
    status, out, err = call(capfd, "check", str(file))
    assert status == 0, out + err
    assert "  warn options_are_described: Each option has a docstring" in out
    assert "got option 'scale' of bridge 'mean' without a docstring" in out
    assert "1 component, 2 rules pass, 1 warn" in out
