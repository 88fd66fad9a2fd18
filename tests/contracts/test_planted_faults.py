"""The conformance kit catches what is broken, each rule something, and passes what is whole."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from helpers.support import REGISTRY, SmallCTC, SmallLSTM
from planted import Fault, datasets, decoders, leaks, metrics, stages
from torch import nn

from decoderbench.testing import ConformanceError, check_bridge, check_decoder, checks_of

FAULTS = [*decoders.FAULTS, *leaks.FAULTS, *stages.FAULTS, *datasets.FAULTS, *metrics.FAULTS]
HEALTHY = [*decoders.HEALTHY, *stages.HEALTHY, *datasets.HEALTHY, *metrics.HEALTHY]
STAGES = {"rectifier", "encoder", "bridge"}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_caught_by_its_rule(fault: Fault) -> None:
    (check,) = [check for check in checks_of(fault.cls, kind=fault.kind) if check.name == fault.rule]
    with pytest.raises(ConformanceError, match=f"(?s)^{fault.kind} '.*' breaks the rule: .*{fault.said}"):
        check()


@pytest.mark.parametrize("healthy", HEALTHY)
def test_what_the_faults_are_planted_in_conforms(healthy: Any) -> None:
    for check in checks_of(healthy):
        check()


def test_every_rule_catches_a_planted_fault() -> None:
    asked = defaultdict(set)
    caught = defaultdict(set)
    for cls in HEALTHY:
        for check in checks_of(cls):
            asked["stage" if check.subject.kind in STAGES else check.subject.kind].add(check.name)
    for fault in FAULTS:
        caught["stage" if fault.kind in STAGES else fault.kind].add(fault.rule)
    assert asked == caught


def test_as_many_faults_are_planted_as_were_asked_for() -> None:
    assert len(leaks.FAULTS) >= 8
    assert len(decoders.FAULTS) >= 20


def test_a_check_names_the_rule_the_breach_and_the_next_move() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_decoder(decoders.UnusedParameter)
    assert str(caught.value) == (
        "decoder 'small_lstm' breaks the rule: A gradient reaches every parameter and, behind an encoder, what comes "
        "in; got no gradient for spare.weight, spare.bias; use these parameters or do not create them"
    )


def test_an_exception_is_told_with_the_line_of_the_component() -> None:
    (check,) = [check for check in checks_of(decoders.NeedsContiguous) if check.name == "scores_each_image"]
    with pytest.raises(ConformanceError, match=r"; look at decoders\.py:\d+$"):
        check()


def test_a_class_of_another_kind_is_refused() -> None:
    other: Any = REGISTRY.decoders["lstm_ctc"].component
    with pytest.raises(ConformanceError, match="as bridge; offer a class derived from Bridge"):
        check_bridge(other)
    with pytest.raises(TypeError, match="'int'> is no component; give a class derived from one of Rectifier, Encoder"):
        checks_of(int)


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    check_decoder(SmallCTC)
    assert torch.equal(before, torch.get_rng_state())


class SpectralNorm(SmallCTC):
    """Unusual but right: each forward in training mode moves a buffer, whatever the labels are."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.hidden = nn.utils.parametrizations.spectral_norm(self.hidden)


class TiedWeights(SmallLSTM):
    """Unusual but right: one tensor of two names."""

    def __init__(self, config: Any, memory: Any, labels: Any) -> None:
        super().__init__(config, memory, labels)
        self.project = nn.Linear(32, 16)
        self.head = nn.Linear(16, self.vocabulary_size)
        self.embed = nn.Embedding(self.vocabulary_size, 16)
        self.begin = nn.Parameter(torch.randn(16))
        self.head.weight = self.embed.weight

    def step(self, token: Any, state: Any, memory: Any) -> Any:
        known = self.embed(token.clamp(max=self.end))
        read = torch.where((token == self.start)[:, None], self.begin, known)
        hidden, cell = self.cell(torch.cat([read, memory.mean(dim=1)], dim=-1), state)
        return self.head(self.project(hidden)), (hidden, cell)


@pytest.mark.parametrize("unusual", [SpectralNorm, TiedWeights])
def test_what_is_unusual_and_right_conforms(unusual: Any) -> None:
    check_decoder(unusual)
