"""The rules about CUDA, checked on fake tensors of it: no GPU is needed."""

from __future__ import annotations

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from decoderbench.labels import Labels
from decoderbench.model.autoregressive import all_ended
from decoderbench.testing.assertions import ConformanceError, RuleSkipped, expect
from decoderbench.testing.subjects.base import ModuleSubject

# What fake tensors cannot do: give values, sizes that depend on values, and results of operators without a fake kernel.
BEYOND_FAKE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
# The kit moves labels when it needs them; in training they are on the device before.
MAY_WAIT = (Labels.from_texts, all_ended)


def stays_on_one_device(subject: ModuleSubject) -> None:
    """After a move to CUDA all tensors of training and inference are there; fake tensors substitute for a GPU."""
    use = subject.on_cuda
    for error in sorted(use.errors, key=lambda error: not isinstance(error, ConformanceError)):
        values = use.waits_in_training or use.waits_in_inference  # which are all zero here, and may cause the error
        if not isinstance(error, ConformanceError) and (values or isinstance(error, BEYOND_FAKE)):
            raise RuleSkipped(f"it needs values, which fake tensors do not have: {type(error).__name__}: {error}")
        raise error


def does_not_wait_for_device(subject: ModuleSubject) -> None:
    """Training and inference never wait for CUDA, except once per character to learn whether all texts have ended."""
    use = subject.on_cuda
    waits = [*use.waits_in_training, *([] if subject.may_wait_in_inference else use.waits_in_inference)]
    refused = [str(wait) for wait in waits if not any(map(wait.is_in, MAY_WAIT))]
    expect(
        not refused,
        got=f"a wait for {', then for '.join(dict.fromkeys(refused))}",
        do="keep values on the device: torch.where for an if, masked_fill or a product for x[mask], "
        "Labels.host_lengths for lengths as numbers, torch.full or a buffer for torch.tensor",
    )
    if use.errors:
        raise RuleSkipped("it stops early on fake tensors of CUDA: see the rule stays_on_one_device")
