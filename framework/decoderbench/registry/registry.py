"""Registry: the components that the loaded plugins offer, and the check of what an experiment says about them."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from decoderbench import __version__
from decoderbench.component_options import ComponentOption, Resolve, resolve_by_default
from decoderbench.config.grid import ComponentChoice, DatasetChoice
from decoderbench.config.mistakes import Location, explain_mistakes
from decoderbench.config.typed_values import decide, put, text_of, value_of
from decoderbench.data.dataset import Dataset
from decoderbench.errors import PluginError, UnknownNameError, did_you_mean
from decoderbench.exception_text import describe_error
from decoderbench.kinds import REGISTERED
from decoderbench.metrics import BUILT_IN, Metric
from decoderbench.model.stages import Bridge, Decoder, Encoder, Rectifier
from decoderbench.options import ComponentConfig, refuse
from decoderbench.registry import core_components
from decoderbench.registry.choices import choice_of, choices, datasets_of_settings
from decoderbench.registry.executor import Executor
from decoderbench.registry.hook_calls import HookCaller, report_exceptions
from decoderbench.registry.hookspecs import PROJECT
from decoderbench.registry.plugin_loading import Origin
from decoderbench.registry.plugin_manager import BrokenPlugin, Plugins
from decoderbench.sources import plugin_digest

logger = logging.getLogger("decoderbench")
T = TypeVar("T")
Mistake = tuple[Location, str]

COMPONENT_NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"
"""The names that components may have: no two differ in case only, and all can be part of a path."""

CORE = "decoderbench core"  # with a space: no module can have this name

BASES: dict[str, type] = dict(
    zip(REGISTERED, (Rectifier, Encoder, Bridge, Decoder, Dataset, Metric, Executor), strict=True)
)
"""The base class of each kind of component."""


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A component class, and the plugin that registered it."""

    kind: str
    name: str
    component: type[T]
    origin: str
    plugin: str
    builtin: bool = False

    @property
    def config_class(self) -> type[ComponentConfig]:
        """The component's options; a metric has none."""
        return getattr(self.component, "Config", ComponentConfig)

    @property
    def options(self) -> dict[str, FieldInfo]:
        """The options that an experiment may set by name: those of the component, and those of every such component."""
        return {**self.config_class.model_fields, **self.common_options}

    @property
    def common_options(self) -> dict[str, FieldInfo]:
        """The options of every component of the kind, which the framework applies."""
        return {name: field for name, field in choice_of(self.kind).model_fields.items() if name != "use"}

    def source_digest(self) -> str:
        """Return a digest of the file that defines the class and of what it imports from its own folder.

        The same of the components that it derives from counts too, so an edited component is another component. The
        digest is that of the files when first asked for: later edits do not change the loaded code.

        Raises:
            OSError, TypeError: no file defines the class, as in a notebook.
            PluginError: as `plugin_digest` raises it.
        """
        component: type = self.component
        return _source_digest(component, BASES[self.kind])


class Components(Mapping[str, Registered[T]]):
    """The registered components of one kind, by name.

    Args:
        kind: of all of them.
        disabled: plugins whose components are missing.
        resolve: finds the components that options name; by default, in the registry that was built last.
    """

    def __init__(self, kind: str, disabled: Sequence[BrokenPlugin] = (), resolve: Resolve | None = None) -> None:
        self.kind, self.disabled, self._resolve = kind, disabled, resolve
        self._components: dict[str, Registered[T]] = {}
        self._contested: dict[str, str] = {}

    def __getitem__(self, name: str) -> Registered[T]:
        try:
            return self._components[name]
        except KeyError:
            raise UnknownNameError(self.explain_unknown(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._components))

    def __len__(self) -> int:
        return len(self._components)

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def explain_unknown(self, name: str) -> str:
        """Return the message for somebody who asked for a name that is not registered."""
        if name in self._contested:
            return self._contested[name]
        known = list(self)
        if name.lstrip().startswith("{"):
            example = f'{{ use = "{known[0] if known else "name"}" }}'
            return (
                f"unknown {self.kind} {name!r}; a table needs use and has texts in quotes, as in {example}; "
                f"registered: {', '.join(known) or 'none'}"
            )
        disabled = "".join(f"; disabled, so its components are missing: {plugin.reason}" for plugin in self.disabled)
        registered = f"registered: {', '.join(known) or 'none'}"
        return f"unknown {self.kind} {name!r}{did_you_mean(name, known)}; {registered}{disabled}"

    def add(self, component: object, plugin: str, origin: str, builtin: bool = False) -> None:
        """Register a class.

        Built-in components keep their names. If two other plugins claim one name, neither gets it, so the result does
        not depend on which came first.

        Raises:
            PluginError: the class does not fulfill its contract, or its name is taken.
        """
        base = BASES[self.kind]
        if not (inspect.isclass(component) and issubclass(component, base)):
            raise PluginError(f"registers {component!r:.80} as {self.kind}; derive the class from {base.__name__}")
        what = f"{self.kind} {component.__name__}"
        if missing := sorted(getattr(component, "__abstractmethods__", ())):
            raise PluginError(f"{what} does not implement {', '.join(missing)}")
        name = getattr(component, "name", None)
        if not isinstance(name, str) or not re.fullmatch(COMPONENT_NAME, name):
            raise PluginError(f"{what} has the name {name!r}; use a-z, 0-9, _ . - and begin with a-z or 0-9")
        if self.kind == "decoder" and hasattr(component, "infeasible"):
            raise PluginError(
                f"decoder {name!r} defines infeasible, which nothing calls since plugin API version 2; raise "
                f"InfeasibleError in its constructor"
            )
        if self.kind == "metric" and name in BUILT_IN:
            raise PluginError(f"{what} has the name {name!r}, which is a metric of every record; give it another name")
        if self.kind != "metric":
            self._refuse_other_than_options(component, name)
        if name in self._contested:
            raise PluginError(self._contested[name])
        if name in self._components:
            self._contest(name, component, plugin, origin)
        self._components[name] = Registered(self.kind, name, cast("type[T]", component), origin, plugin, builtin)

    def configure(self, choice: ComponentChoice) -> tuple[Registered[T], ComponentConfig]:
        """Return the component that an experiment chose, and its options with all defaults.

        Raises:
            UnknownNameError: the name is not registered.
            ValidationError: the options are wrong; `mistakes` explains them.
        """
        registered = self[choice.use]
        return registered, registered.config_class.model_validate(choice.options, context=self._resolve)

    def mistakes(self, choice: ComponentChoice) -> list[Mistake]:
        """Return what is wrong with a choice, each with its location within the choice."""
        _, mistakes = self.try_to_configure(choice)
        return mistakes

    def try_to_configure(self, choice: ComponentChoice) -> tuple[ComponentConfig | None, list[Mistake]]:
        """Return the options of a choice with all defaults, or None and what is wrong, as `mistakes` does."""
        if choice.use not in self:
            return None, [(("use",), self.explain_unknown(choice.use))]
        component = f"{self.kind} {choice.use!r}: "
        try:
            return self.configure(choice)[1], []
        except ValidationError as error:
            known = self[choice.use]
            mistakes = explain_mistakes(error, known.config_class, further=known.common_options)
            return None, [(place, component + text) for place, text in mistakes]
        except Exception as error:  # noqa: BLE001 - a validator of a plugin may raise anything
            text = f"{component}its options raised {describe_error(error)}; raise ValueError with a reason"
            return None, [((), text)]

    def decide_options(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return plain options: those typed on a command line are text where the component wants text."""
        return decide(options, self[name].config_class if name in self else BaseModel)

    def _refuse_other_than_options(self, component: type, name: str) -> None:
        config = getattr(component, "Config", None)
        if not (inspect.isclass(config) and issubclass(config, ComponentConfig)):
            raise PluginError(f"{self.kind} {name!r} has no options; nest a Config derived from ComponentConfig")
        for option in choice_of(self.kind).model_fields.keys() & config.model_fields:
            raise PluginError(
                f"option {option!r} of {self.kind} {name!r} is an option that every {self.kind} has already; rename it"
            )
        for option, field in config.model_fields.items():
            if (get_origin(field.annotation) or field.annotation) in (set, frozenset):
                raise PluginError(
                    f"option {option!r} of {self.kind} {name!r} is a set, whose order differs between processes; make "
                    f"it a tuple"
                )

    def _contest(self, name: str, component: type, plugin: str, origin: str) -> None:
        """Raise `PluginError` for a second component of a name; the first one loses the name unless it is built in."""
        other = self._components[name]
        mistake = (
            f"two plugins register {self.kind} {name!r}: {_qualified_name(other.component)} of {other.origin} and "
            f"{_qualified_name(component)} of {origin}; rename one"
        )
        if plugin != other.plugin:
            mistake += f", or disable one with -p no:{other.plugin} or -p no:{plugin}"
        if not other.builtin:
            self._contested[name] = mistake
            del self._components[name]
        raise PluginError(mistake)


class Registry(Mapping[str, Components[Any]]):
    """The components of each kind, as in `registry["decoder"]["attention_lstm"]`.

    Raises:
        PluginError: a plugin that the user named registers an invalid component, or claims a name that is taken. Any
            other plugin then loses that component, and one line reports it.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        plugins.add(core_components, CORE)
        plugins.origins[CORE] = Origin(f"{PROJECT} {__version__}", core_components.__file__)
        self._kinds = {kind: Components[Any](kind, plugins.broken, self.resolve) for kind in REGISTERED}
        resolve_by_default(self.resolve)
        for components in self.values():
            for plugin, hook in plugins.hooks(f"register_{components.kind}s"):
                self._register(components, plugin, hook)
        self._read_sources()

    def __getitem__(self, kind: str) -> Components[Any]:
        return self._kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def resolve(self, option: type[ComponentOption], given: Mapping[str, Any]) -> ComponentOption:
        """Return the component that an option of another one names; raise `ValidationError` for mistakes."""
        choice, components = ComponentChoice.model_validate(given), self[option.kind]
        config, mistakes = components.try_to_configure(choice)  # once: its options may be components too
        refuse(dict(mistakes), {}, option.__name__)
        registered = components[choice.use]
        return option(choice.use, cast("BaseModel", config), registered.component, registered.source_digest())

    def _register(self, components: Components[Any], plugin: str, hook: HookCaller) -> None:
        """Register what a plugin offers of one kind; one plugin must not stop the others."""
        kind, name = components.kind, f"register_{components.kind}s"
        offered: list[object] = []
        report = partial(self.plugins.report_broken, plugin)
        raised = partial(report, doing=f"raised in {name}", loses=f"every {kind} of it")
        with report_exceptions(raised), self.plugins.guarding(plugin, f"{name} of plugin {plugin}"):
            for classes in hook():
                if inspect.isclass(classes):
                    raise PluginError(f"it returned a class; return a list, as in [{classes.__name__}]")
                offered += classes
            if not offered:
                logger.warning("plugin %s returned nothing from %s; return [MyClass]", plugin, name)
        origin, builtin = str(self.plugins.origins.get(plugin, plugin)), self.plugins.is_builtin(plugin)
        for component in offered:
            with report_exceptions(partial(report, doing=f"was refused in {name}", loses=f"that {kind}")):
                components.add(component, plugin, origin, builtin)

    def _read_sources(self) -> None:
        """Compute the digests of plugins now, while their files are still those that were imported."""
        with suppress(PluginError):
            self.plugins.trainers()
        for components in self.values():
            for registered in components.values():
                if not registered.builtin:
                    with suppress(OSError, TypeError, PluginError):
                        registered.source_digest()

    def mistakes(self, data: Mapping[str, Any]) -> list[Mistake]:
        """Return what is wrong with the component names and options of an experiment, given as plain data.

        Works on data with other mistakes too, so one run reports every mistake.
        """
        found: list[Mistake] = []
        for kind, place, given in choices(data):
            try:
                choice = choice_of(kind).model_validate(given)
            except ValidationError:
                continue  # the check of the experiment itself reports it
            found += [(place + below, text) for below, text in self[kind].mistakes(choice)]
        for place, _, changed in datasets_of_settings(data):
            with suppress(ValidationError):
                mistakes = self["dataset"].mistakes(DatasetChoice.model_validate(changed))
                found += [(place + below, text) for below, text in mistakes if (("dataset", *below), text) not in found]
        return found

    def decide_options(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return an experiment, given as data, in which the options of its components are plain: as `decide` does."""
        for kind, place, given in choices(data):
            choice = value_of(given)
            choice = choice if isinstance(choice, Mapping) else {"use": given}
            use = text_of(choice.get("use"))
            if isinstance(use, str):
                options = {name: value for name, value in choice.items() if name != "use"}
                data = put(data, place, {"use": use, **self[kind].decide_options(use, options)})
        for place, change, changed in datasets_of_settings(data):
            use = text_of(changed.get("use")) if isinstance(changed, Mapping) else None
            if isinstance(use, str) and isinstance(value_of(change), Mapping):
                named = {name: text_of(value) for name, value in value_of(change).items() if name == "use"}
                options = {name: value for name, value in value_of(change).items() if name != "use"}
                data = put(data, place, named | self["dataset"].decide_options(use, options))
        return dict(data)


@cache
def _source_digest(component: type, contract: type) -> str:
    components = [base for base in component.__mro__[1:] if issubclass(base, contract)]
    derived_from = [base for base in components if base.__module__.partition(".")[0] != PROJECT]
    return plugin_digest(*(Path(inspect.getfile(one)) for one in (component, *derived_from)))


def _qualified_name(component: type) -> str:
    return f"{component.__module__}.{component.__qualname__}"
