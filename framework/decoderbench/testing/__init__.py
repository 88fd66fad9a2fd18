"""The conformance kit: what a component must do to take part, asked of the class itself.

    def test_my_decoder():
        check_decoder(MyDecoder, hidden_dim=32)

A check builds the component at several sizes on the CPU with random weights, and raises `ConformanceError` at the
first rule that it breaks. Give it the options of a small variant, without trained weights. `decoderbench check` asks
all rules and lists them; `parametrize_with_checks` makes each a test of its own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decoderbench.data.dataset import Dataset
from decoderbench.metrics import Metric
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.testing.checks import BASES, Check, Rule, Subject, ask_all, can_be_registered, kind_of
from decoderbench.testing.datasets import DatasetUnderCheck, rules_of_datasets
from decoderbench.testing.decoders import rules_of_decoders
from decoderbench.testing.metrics import MetricUnderCheck, rules_of_metrics
from decoderbench.testing.parametrize import parametrize_with_checks
from decoderbench.testing.rules import ConformanceError, NotAskedError
from decoderbench.testing.stages import StageUnderCheck, rules_of_stages
from decoderbench.testing.subject import DecoderUnderCheck

__all__ = [
    "Check",
    "ConformanceError",
    "NotAskedError",
    "check_bridge",
    "check_dataset",
    "check_decoder",
    "check_encoder",
    "check_metric",
    "check_rectifier",
    "checks_of",
    "parametrize_with_checks",
]

_KITS: dict[str, tuple[type[Subject], Any]] = {
    "rectifier": (StageUnderCheck, rules_of_stages),
    "encoder": (StageUnderCheck, rules_of_stages),
    "bridge": (StageUnderCheck, rules_of_stages),
    "decoder": (DecoderUnderCheck, rules_of_decoders),
    "dataset": (DatasetUnderCheck, rules_of_datasets),
    "metric": (MetricUnderCheck, rules_of_metrics),
}


def subject_of(kind: str, cls: Any, options: Mapping[str, object], base_dir: Path = Path()) -> Subject:
    """Return a component of a kind as the rules see it."""
    return _KITS[kind][0](kind, cls, options, base_dir)


def checks_of(
    cls: Any, options: Mapping[str, object] | None = None, *, kind: str | None = None, base_dir: Path = Path()
) -> list[Check]:
    """Return all checks of a component class; call each to ask it.

    Args:
        cls: derived from Rectifier, Encoder, Bridge, Decoder, Dataset or Metric.
        options: of a variant that is small enough to check in seconds; the defaults if left out.
        kind: what the class is to be; default: what it derives from.
        base_dir: where relative paths in the options of a data set start.

    Raises:
        TypeError: the class is no component.
    """
    kind = kind or kind_of(cls)
    if kind is None:
        raise TypeError(f"{cls!r} is no component; give a class derived from one of {', '.join(_names_of_bases())}")
    subject = subject_of(kind, cls, options or {}, base_dir)
    rules: list[Rule] = [can_be_registered, *_KITS[kind][1](subject)]
    return [Check(subject, rule) for rule in rules]


def check_rectifier(cls: type[Rectifier], **options: object) -> None:
    """Check a rectifier class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    ask_all(checks_of(cls, options, kind="rectifier"))


def check_encoder(cls: type[Encoder], **options: object) -> None:
    """Check an encoder class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    ask_all(checks_of(cls, options, kind="encoder"))


def check_bridge(cls: type[Bridge], **options: object) -> None:
    """Check a bridge class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    ask_all(checks_of(cls, options, kind="bridge"))


def check_decoder(cls: type[Decoder], **options: object) -> None:
    """Check a decoder class with the given options; raise `ConformanceError` at the first rule that it breaks.

    A decoder that derives straight from `Decoder` is not asked the rules that only a family can promise.
    """
    ask_all(checks_of(cls, options, kind="decoder"))


def check_dataset(cls: type[Dataset], base_dir: Path = Path(), **options: object) -> None:
    """Check a data set class with the given options; raise `ConformanceError` at the first rule that it breaks."""
    ask_all(checks_of(cls, options, kind="dataset", base_dir=base_dir))


def check_metric(cls: type[Metric]) -> None:
    """Check a metric class; raise `ConformanceError` at the first rule that it breaks."""
    ask_all(checks_of(cls, kind="metric"))


def _names_of_bases() -> list[str]:
    return [base.__name__ for base in BASES.values()]
