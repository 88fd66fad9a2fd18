"""Nobody escapes the conformance kit: what is shipped is registered, and what is registered is checked."""

import importlib
import pkgutil
from typing import Any

import pytest
import support

from decoderbench.registry.registry import Shelf

KINDS = [
    ("rectifiers", support.REGISTRY.rectifiers, support.RECTIFIERS, support.RECTIFIER_OPTIONS),
    ("encoders", support.REGISTRY.encoders, support.ENCODERS, support.ENCODER_OPTIONS),
    ("bridges", support.REGISTRY.bridges, support.BRIDGES, support.BRIDGE_OPTIONS),
    ("decoders", support.REGISTRY.decoders, support.DECODERS, support.DECODER_OPTIONS),
]


def test_no_shipped_plugin_is_left_out() -> None:
    assert support.REGISTRY.plugins.broken == []


@pytest.mark.parametrize(("folder", "shelf", "cases", "options"), KINDS, ids=[kind[0] for kind in KINDS])
def test_every_registered_component_is_checked(
    folder: str, shelf: Shelf[Any], cases: list[support.Case], options: dict[str, list[support.Options]]
) -> None:
    assert {name for name, _ in cases} == set(shelf)
    assert set(options) <= set(shelf)


@pytest.mark.parametrize(("folder", "shelf"), [kind[:2] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_every_file_of_a_folder_registers_something(folder: str, shelf: Shelf[Any]) -> None:
    package = importlib.import_module(f"decoderbench_plugins.{folder}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")}
    homes = {registered.component.__module__ for registered in shelf.values()}
    assert files
    assert files <= homes
