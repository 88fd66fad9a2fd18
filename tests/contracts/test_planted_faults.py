"""Each rule of the conformance kit catches a planted fault; correct components pass all rules."""

from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
import torch
from helpers.small_decoders import SmallCTC
from helpers.support import REGISTRY
from planted import Fault, datasets, decoders, leaks, metrics, readers, stages
from planted.unusual import SpectralNorm, TiedWeights

from decoderbench import ComponentConfig, Decoder, Hypotheses
from decoderbench.testing import ConformanceError, RuleSkipped, check_bridge, check_decoder, checks_of, fake_cuda

FAULTS = [*decoders.FAULTS, *readers.FAULTS, *leaks.FAULTS, *stages.FAULTS, *datasets.FAULTS, *metrics.FAULTS]
HEALTHY = [*decoders.HEALTHY, *readers.HEALTHY, *stages.HEALTHY, *datasets.HEALTHY, *metrics.HEALTHY]
STAGES = {"rectifier", "encoder", "bridge"}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_rule_catches_planted_fault(fault: Fault) -> None:
    (check,) = [check for check in checks_of(fault.cls, kind=fault.kind) if check.name == fault.rule]
    with pytest.raises(
        ConformanceError, match=f"(?s)^{fault.kind} '.*' breaks the rule {fault.rule}: .*{fault.message}"
    ):
        check()


@pytest.mark.parametrize("healthy", HEALTHY)
def test_component_without_fault_passes_all_rules(healthy: Any) -> None:
    for check in checks_of(healthy):
        with suppress(RuleSkipped):
            check()


def test_every_rule_catches_a_planted_fault() -> None:
    rules = defaultdict(set)
    catches = defaultdict(set)
    for cls in HEALTHY:
        for check in checks_of(cls):
            rules["stage" if check.subject.kind in STAGES else check.subject.kind].add(check.name)
    for fault in FAULTS:
        catches["stage" if fault.kind in STAGES else fault.kind].add(fault.rule)
    assert set(rules) == {"stage", "decoder", "dataset", "metric"}
    assert catches == rules


def test_every_rule_has_a_docstring_of_one_sentence() -> None:
    for check in (check for cls in HEALTHY for check in checks_of(cls)):
        assert (check.rule.__doc__ or "").partition("\n")[0].endswith("."), check.name


def test_failure_names_rule_finding_and_fix() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_decoder(decoders.UnusedParameter)
    assert str(caught.value) == (
        "decoder 'small_lstm' breaks the rule every_parameter_gets_gradient: Training gives every parameter a finite "
        "gradient, and also the input if an earlier stage learns through it; got no gradient for spare.weight, "
        "spare.bias; use these parameters or do not create them"
    )


def test_exception_points_to_line_of_component() -> None:
    (check,) = [check for check in checks_of(decoders.NeedsContiguous) if check.name == "nll_is_one_number_per_image"]
    with pytest.raises(ConformanceError, match=r"; look at decoders\.py:\d+$"):
        check()


def test_class_of_another_kind_is_refused() -> None:
    other: Any = REGISTRY["decoder"]["lstm_ctc"].component
    with pytest.raises(ConformanceError, match="as bridge; derive the class from Bridge"):
        check_bridge(other)
    with pytest.raises(
        TypeError, match="'int'> is not a component; pass a class derived from one of Rectifier, Encoder"
    ):
        checks_of(int)


def test_check_preserves_random_state_of_caller() -> None:
    before = torch.get_rng_state()
    check_decoder(SmallCTC)
    assert torch.equal(before, torch.get_rng_state())


class SearchesOnTheHost(Decoder):
    """Unusual but correct: a decoder of no family, whose search reads values."""

    name = "searches_on_the_host"
    Config = ComponentConfig
    reads_padding = True

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.inner = SmallCTC(config, memory, labels)

    def nll(self, memory: Any, labels: Any) -> torch.Tensor:
        return self.inner.nll(memory, labels)

    def transcribe(self, memory: Any, *, beam_size: int = 1) -> Hypotheses:
        assert memory.isfinite().all() or memory.is_cuda  # a read; fake tensors say False
        return self.inner.transcribe(memory, beam_size=beam_size)


def run_rule(cls: Any, name: str) -> None:
    (check,) = [check for check in checks_of(cls) if check.name == name]
    check()


def test_search_of_no_family_may_wait_for_the_device() -> None:
    run_rule(SearchesOnTheHost, "does_not_wait_for_device")


def test_decoder_that_needs_values_is_not_blamed_for_mixed_devices() -> None:
    with pytest.raises(RuleSkipped, match="it needs values, which fake tensors do not have: DynamicOutputShape"):
        run_rule(decoders.IndexesByMask, "stays_on_one_device")


def test_devices_are_not_checked_without_fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(fake_cuda, "_try_out", refuse)
    with pytest.raises(RuleSkipped, match="has no fake CUDA tensors: Torch not compiled with CUDA enabled"):
        run_rule(SmallCTC, "stays_on_one_device")


@pytest.mark.parametrize("unusual", [SpectralNorm, TiedWeights])
def test_unusual_but_correct_decoder_passes(unusual: Any) -> None:
    check_decoder(unusual)
