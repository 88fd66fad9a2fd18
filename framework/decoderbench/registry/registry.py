"""Registry: the one typed door to the registered components, and the check of what an experiment says of them."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from decoderbench import __version__
from decoderbench.config.experiment import NAME_PATTERN, ComponentChoice, Location, explain_options
from decoderbench.data.dataset import Dataset
from decoderbench.errors import PluginError, UnknownNameError, did_you_mean
from decoderbench.identity import source_digest
from decoderbench.metrics import BUILT_IN, Metric
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.options import ComponentConfig
from decoderbench.registry import core_components
from decoderbench.registry.hookspecs import PROJECT
from decoderbench.registry.plugin_loading import Origin
from decoderbench.registry.plugin_manager import BrokenPlugin, HookCaller, Plugins, whatever_it_raises

logger = logging.getLogger("decoderbench")
T = TypeVar("T")
Problem = tuple[Location, str]


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A component class, and who brought it."""

    kind: str
    name: str
    component: type[T]
    origin: str
    plugin: str
    shipped: bool = False

    @property
    def config_class(self) -> type[ComponentConfig]:
        """The component's options; a metric has none."""
        return getattr(self.component, "Config", ComponentConfig)

    def source_digest(self) -> str:
        """Return a digest of the file that defines the class: an edited component is another component."""
        return source_digest(Path(inspect.getfile(self.component)))


class Shelf(Mapping[str, Registered[T]]):
    """The registered components of one kind, by name."""

    def __init__(self, kind: str, base: type[T], left_out: Sequence[BrokenPlugin] = ()) -> None:
        self.kind, self.base, self.left_out = kind, base, left_out
        self._components: dict[str, Registered[T]] = {}
        self._contested: dict[str, str] = {}

    def __getitem__(self, name: str) -> Registered[T]:
        try:
            return self._components[name]
        except KeyError:
            raise UnknownNameError(self.unknown(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._components))

    def __len__(self) -> int:
        return len(self._components)

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def unknown(self, name: str) -> str:
        """Return what to tell somebody who asked for a name that is not here."""
        if name in self._contested:
            return self._contested[name]
        known = list(self)
        missing = "".join(
            f"; left out, so that its components are missing: {plugin.reason}" for plugin in self.left_out
        )
        registered = f"registered: {', '.join(known) or 'none'}"
        return f"unknown {self.kind} {name!r}{did_you_mean(name, known)}; {registered}{missing}"

    def add(self, component: object, plugin: str, origin: str, shipped: bool = False) -> None:
        """Put a class on the shelf.

        Raises:
            PluginError: it is not fit for the shelf, or its name is taken. What ships keeps its name; of others
                nobody has a contested one, so that it does not depend on who came first.
        """
        if not (inspect.isclass(component) and issubclass(component, self.base)):
            raise PluginError(
                f"offers {component!r:.80} as {self.kind}; offer a class derived from {self.base.__name__}"
            )
        what = f"{self.kind} {component.__name__}"
        if missing := sorted(getattr(component, "__abstractmethods__", ())):
            raise PluginError(f"{what} does not implement {', '.join(missing)}")
        name = getattr(component, "name", None)
        if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
            raise PluginError(
                f"{what} has the name {name!r}; give it one of a-z, 0-9, _ . - that begins with a-z or 0-9"
            )
        if self.kind == "metric" and name in BUILT_IN:
            raise PluginError(f"{what} has the name {name!r} of a metric that every record has; give it another")
        config = getattr(component, "Config", None)
        if self.kind != "metric" and not (inspect.isclass(config) and issubclass(config, ComponentConfig)):
            raise PluginError(f"{self.kind} {name!r} has no options; nest a Config derived from ComponentConfig")
        if name in self._contested:
            raise PluginError(self._contested[name])
        if name in self._components:
            other = self._components[name]
            problem = (
                f"two plugins register {self.kind} {name!r}: {_home(other.component)} of {other.origin} and "
                f"{_home(component)} of {origin}; rename one"
            )
            if plugin != other.plugin:
                problem += f", or leave one out with -p no:{other.plugin} or -p no:{plugin}"
            if not other.shipped:
                self._contested[name] = problem
                del self._components[name]
            raise PluginError(problem)
        self._components[name] = Registered(self.kind, name, component, origin, plugin, shipped)

    def configure(self, choice: ComponentChoice) -> tuple[Registered[T], ComponentConfig]:
        """Return the component that an experiment chose, and its options with all defaults.

        Raises:
            UnknownNameError: if nobody registered the name.
            ValidationError: if the options are wrong; `problems` explains them.
        """
        registered = self[choice.use]
        return registered, registered.config_class.model_validate(choice.options)

    def problems(self, choice: ComponentChoice) -> list[Problem]:
        """Return what is wrong with a choice, each with its place below the choice."""
        if choice.use not in self:
            return [(("use",), self.unknown(choice.use))]
        try:
            self.configure(choice)
        except ValidationError as error:
            whose = f"{self.kind} {choice.use!r}: "
            return [(place, whose + text) for place, text in explain_options(error, self[choice.use].config_class)]
        return []


class Registry:
    """Every component that the loaded plugins offer.

    Raises:
        PluginError: if a plugin that the user named offers what is unfit, or claims a name that is taken. Any other
            plugin then loses that component, with one line.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        plugins.add(core_components, "core")
        plugins.origins["core"] = Origin(f"{PROJECT} {__version__}", core_components.__file__)
        # mypy would have a concrete class here; a shelf takes the contract.
        left_out = plugins.broken
        self.rectifiers: Shelf[Rectifier] = Shelf("rectifier", Rectifier, left_out)  # type: ignore[type-abstract]
        self.encoders: Shelf[Encoder] = Shelf("encoder", Encoder, left_out)  # type: ignore[type-abstract]
        self.bridges: Shelf[Bridge] = Shelf("bridge", Bridge, left_out)  # type: ignore[type-abstract]
        self.decoders: Shelf[Decoder] = Shelf("decoder", Decoder, left_out)  # type: ignore[type-abstract]
        self.datasets: Shelf[Dataset] = Shelf("dataset", Dataset, left_out)  # type: ignore[type-abstract]
        self.metrics: Shelf[Metric] = Shelf("metric", Metric, left_out)  # type: ignore[type-abstract]
        for shelf in self.shelves():
            for plugin, hook in plugins.hooks(f"register_{shelf.kind}s"):
                self._fill(shelf, plugin, hook)

    def _fill(self, shelf: Shelf[Any], plugin: str, hook: HookCaller) -> None:
        """Put what a plugin offers on a shelf; one plugin must not stop the others."""
        where = f"register_{shelf.kind}s"
        offered: list[object] = []
        with whatever_it_raises(
            partial(self.plugins.report_broken, plugin, doing=f"raised in {where}", loses=f"every {shelf.kind} of it")
        ):
            for components in hook():
                if inspect.isclass(components):
                    raise PluginError(f"it returned a class, not several; return [{components.__name__}]")
                offered += components
            if not offered:
                logger.warning("plugin %s offers nothing in %s; return [MyClass]", plugin, where)
        for component in offered:
            with whatever_it_raises(
                partial(self.plugins.report_broken, plugin, doing=f"was refused in {where}", loses=f"that {shelf.kind}")
            ):
                shelf.add(
                    component, plugin, str(self.plugins.origins.get(plugin, plugin)), self.plugins.is_shipped(plugin)
                )

    def shelves(self) -> tuple[Shelf[Any], ...]:
        """Return the shelf of each kind."""
        return self.rectifiers, self.encoders, self.bridges, self.decoders, self.datasets, self.metrics

    def problems(self, data: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with the component names and options of an experiment, as plain data.

        Works on data that is wrong elsewhere too, so that one reading reports every mistake.
        """
        grid = data.get("grid")
        axes = grid if isinstance(grid, Mapping) else {}
        choices: list[tuple[Shelf[Any], Location, Any]] = [(self.datasets, ("dataset",), data.get("dataset"))]
        for shelf in (self.rectifiers, self.encoders, self.bridges, self.decoders):
            variants = axes.get(shelf.kind)
            if isinstance(variants, Mapping):
                choices += [(shelf, ("grid", shelf.kind, label), given) for label, given in variants.items()]
        found: list[Problem] = []
        for shelf, place, given in choices:
            try:
                choice = ComponentChoice.model_validate(given)
            except ValidationError:
                continue  # the experiment's own check reports it
            found += [(place + below, text) for below, text in shelf.problems(choice)]
        return found


def _home(component: type) -> str:
    return f"{component.__module__}.{component.__qualname__}"
