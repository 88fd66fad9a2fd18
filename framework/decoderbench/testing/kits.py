"""The kits: for each kind of component, the subject class and the rules. This is the one place that knows all kinds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoderbench.component_options import ComponentOption, resolve_by_default
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import BASES, Registry
from decoderbench.testing.checks import Check, Rule
from decoderbench.testing.rules.datasets import rules_of_datasets
from decoderbench.testing.rules.decoders import rules_of_decoders
from decoderbench.testing.rules.imports import rule_of_import
from decoderbench.testing.rules.metrics import rules_of_metrics
from decoderbench.testing.rules.registration import can_be_registered, options_are_described
from decoderbench.testing.rules.stages import rules_of_stages
from decoderbench.testing.subjects.base import Subject
from decoderbench.testing.subjects.dataset import DatasetSubject
from decoderbench.testing.subjects.decoder import DecoderSubject
from decoderbench.testing.subjects.metric import MetricSubject
from decoderbench.testing.subjects.stage import StageSubject


@dataclass(frozen=True)
class Kit:
    """How to check components of one kind."""

    subject_class: type[Subject]
    rules_of: Callable[[Any], list[Rule]]


_STAGE = Kit(StageSubject, rules_of_stages)
KITS = {
    "rectifier": _STAGE,
    "encoder": _STAGE,
    "bridge": _STAGE,
    "decoder": Kit(DecoderSubject, rules_of_decoders),
    "dataset": Kit(DatasetSubject, rules_of_datasets),
    "metric": Kit(MetricSubject, rules_of_metrics),
}


def kind_of(component: object) -> str | None:
    """Return the kind of a component class, or None if it is not a component that is checked."""
    if not isinstance(component, type):
        return None
    return next((kind for kind in KITS if issubclass(component, BASES[kind])), None)


def subject_of(kind: str, cls: Any, options: Mapping[str, object], base_dir: Path = Path()) -> Subject:
    """Return the subject for a component class of a kind; components that options name are those of installed plugins.

    A registry that was built before finds them, if there is one.
    """
    resolve_by_default(_find_installed, replace=False)
    return KITS[kind].subject_class(kind, cls, options, base_dir)


def _find_installed(option: type[ComponentOption], given: Mapping[str, Any]) -> ComponentOption:
    """Resolve an option by a registry, which from now on resolves all."""
    return Registry(build_plugin_manager()).resolve(option, given)


def checks_of(
    cls: Any,
    options: Mapping[str, object] | None = None,
    *,
    kind: str | None = None,
    base_dir: Path = Path(),
    changes: Sequence[str] | None = None,
) -> list[Check]:
    """Return all checks of a component class; call each to run it.

    Args:
        cls: derived from Rectifier, Encoder, Bridge, Decoder, Dataset or Metric.
        options: of a variant that is small enough to check in seconds; default: the default options.
        kind: the intended kind; default: the kind of the base class.
        base_dir: where relative paths in the options of a dataset start.
        changes: how the import of its plugin changed global state, as in `Plugins.changes`; default: not checked.

    Raises:
        TypeError: the class is not a component.
    """
    kind = kind or kind_of(cls)
    if kind is None:
        bases = ", ".join(BASES[kind].__name__ for kind in KITS)
        raise TypeError(f"{cls!r} is not a component; pass a class derived from one of {bases}")
    subject = subject_of(kind, cls, options or {}, base_dir)
    described = [] if kind == "metric" else [Check(subject, options_are_described, advisory=True)]
    return [
        Check(subject, can_be_registered),
        *([] if changes is None else [Check(subject, rule_of_import(changes))]),
        *described,
        *(Check(subject, rule) for rule in KITS[kind].rules_of(subject)),
    ]
