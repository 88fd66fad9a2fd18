"""The pages of built-in components, one per kind: docstrings and options."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from decoderbench.kinds import REGISTERED
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registered, Registry
from sitegen.options import option_lines


def component_pages() -> dict[str, str]:
    """Return the page of each kind."""
    registry = Registry(build_plugin_manager())
    built_in = {kind: [one for one in registry[kind].values() if one.builtin] for kind in REGISTERED}
    return {
        f"reference/components/{kind}": "\n".join(_lines(kind, components))
        for kind, components in built_in.items()
        if components
    }


def _lines(kind: str, components: list[Registered[Any]]) -> Iterator[str]:
    yield f"# {kind.capitalize()}s"
    for one in components:
        yield f"\n## {one.name}\n"
        module = sys.modules[one.component.__module__]
        for text in (module.__doc__, one.component.__doc__):
            yield inspect.cleandoc(text or "") + "\n"
        for name, option in one.options.items():
            if name not in one.common_options:  # the page of the experiment file has these
                yield from option_lines(name, option, index=False)
