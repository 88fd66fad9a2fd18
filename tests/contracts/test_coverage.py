"""Every built-in component is registered, and every registered component is checked."""

import importlib
import pkgutil
from typing import Any

import pytest
from helpers import support

from decoderbench.registry.registry import Components

KINDS = [
    ("rectifiers", support.REGISTRY["rectifier"], support.RECTIFIERS, support.RECTIFIER_OPTIONS),
    ("encoders", support.REGISTRY["encoder"], support.ENCODERS, support.ENCODER_OPTIONS),
    ("bridges", support.REGISTRY["bridge"], support.BRIDGES, support.BRIDGE_OPTIONS),
    ("decoders", support.REGISTRY["decoder"], support.DECODERS, support.DECODER_OPTIONS),
]


def test_every_built_in_plugin_is_loaded() -> None:
    assert support.REGISTRY.plugins.broken == []


@pytest.mark.parametrize(("folder", "components", "cases", "options"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_registered_component_is_checked(
    folder: str, components: Components[Any], cases: list[support.Case], options: dict[str, list[support.Options]]
) -> None:
    assert {name for name, _ in cases} == set(components)
    assert set(options) <= set(components)


@pytest.mark.parametrize(("folder", "components"), [kind[:2] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_every_file_registers_a_component(folder: str, components: Components[Any]) -> None:
    package = importlib.import_module(f"decoderbench_plugins.{folder}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")}
    sources = {registered.component.__module__ for registered in components.values()}
    assert files
    assert {file for file in files if not any(f"{source}.".startswith(f"{file}.") for source in sources)} == set()
