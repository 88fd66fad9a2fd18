"""The metrics that a run or a report computes: the built-in ones and those of plugins. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from decoderbench.errors import PluginError
from decoderbench.metrics import Definition, Transcriptions, built_in_definitions
from decoderbench.registry.plugin_manager import Plugins

if TYPE_CHECKING:
    from decoderbench.metrics import Metric
    from decoderbench.registry.registry import Registered


def definitions_with(metrics: Mapping[str, Registered[Metric]]) -> dict[str, Definition]:
    """Return the built-in metrics and these registered ones, by name."""
    return {**built_in_definitions(), **{name: _definition(metric) for name, metric in metrics.items()}}


def definitions_of(plugins: Plugins) -> dict[str, Definition]:
    """Return the built-in metrics and those that the plugins register, by name.

    The registry, and with it torch, is imported only if there is a plugin with metrics.
    """
    if not any(plugins.hooks("register_metrics")):
        return dict(built_in_definitions())
    from decoderbench.registry.registry import Registry

    return definitions_with(Registry(plugins)["metric"])


def _definition(metric: Registered[Metric]) -> Definition:
    """Return a registered metric, whose object is made at its first score."""
    make = cache(metric.component)

    def compute(texts: Transcriptions) -> object:
        # Lists of its own, so that a metric that sorts them changes no other number.
        return make().score(list(texts.references), list(texts.hypotheses))

    def terms(texts: Transcriptions) -> tuple[Sequence[float], Sequence[float]] | None:
        return make().per_sample(list(texts.references), list(texts.hypotheses))

    return Definition(metric.name, _source(metric), compute, metric.component.higher_is_better, terms)


def _source(metric: Registered[Metric]) -> str:
    try:
        return metric.source_digest()
    except (OSError, TypeError, PluginError):  # of a class that no file defines
        return ""
