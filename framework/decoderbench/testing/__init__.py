"""The conformance kit: rules that every component must satisfy to take part in experiments.

    def test_my_decoder():
        check_decoder(MyDecoder, hidden_dim=32)

A check builds the component at several sizes on the CPU with random weights, and raises `ConformanceError` at the
first rule that fails. Pass the options of a small variant, without trained weights. `decoderbench check` runs all
rules and lists the verdicts; `parametrize_with_checks` makes one test of each rule.
"""

from pathlib import Path

from decoderbench.data.dataset import Dataset
from decoderbench.metrics import Metric
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.testing.assertions import ConformanceError, RuleSkipped
from decoderbench.testing.checks import Check, run_all
from decoderbench.testing.kits import checks_of
from decoderbench.testing.parametrize import parametrize_with_checks

__all__ = [
    "Check",
    "ConformanceError",
    "RuleSkipped",
    "check_bridge",
    "check_dataset",
    "check_decoder",
    "check_encoder",
    "check_metric",
    "check_rectifier",
    "checks_of",
    "parametrize_with_checks",
]


def check_rectifier(cls: type[Rectifier], **options: object) -> None:
    """Check a rectifier class with the given options; raise `ConformanceError` at the first rule that fails."""
    run_all(checks_of(cls, options, kind="rectifier"))


def check_encoder(cls: type[Encoder], **options: object) -> None:
    """Check an encoder class with the given options; raise `ConformanceError` at the first rule that fails."""
    run_all(checks_of(cls, options, kind="encoder"))


def check_bridge(cls: type[Bridge], **options: object) -> None:
    """Check a bridge class with the given options; raise `ConformanceError` at the first rule that fails."""
    run_all(checks_of(cls, options, kind="bridge"))


def check_decoder(cls: type[Decoder], **options: object) -> None:
    """Check a decoder class with the given options; raise `ConformanceError` at the first rule that fails.

    Rules that only a family can guarantee do not apply to a class that derives directly from `Decoder`.
    """
    run_all(checks_of(cls, options, kind="decoder"))


def check_dataset(cls: type[Dataset], base_dir: Path = Path(), **options: object) -> None:
    """Check a dataset class with the given options; raise `ConformanceError` at the first rule that fails."""
    run_all(checks_of(cls, options, kind="dataset", base_dir=base_dir))


def check_metric(cls: type[Metric]) -> None:
    """Check a metric class; raise `ConformanceError` at the first rule that fails."""
    run_all(checks_of(cls, kind="metric"))
