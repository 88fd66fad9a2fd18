"""Tests of every component that a plugin registers, with its default options.

pytest --pyargs decoderbench.testing.conformance --decoderbench my_decoder.py
"""

from collections.abc import Callable

import pytest

from decoderbench.errors import PluginError
from decoderbench.registry.listing import components_of
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.testing import checks_of
from decoderbench.testing.parametrize import parameters_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check."""
    chosen: list[str] = metafunc.config.getoption("--decoderbench")
    try:
        registry = Registry(build_plugin_manager(chosen))
    except PluginError as error:
        raise pytest.UsageError(str(error)) from None
    components = [one for shelf in registry.shelves() for one in shelf.values()]
    if chosen:
        components = [one for name in chosen for one in components_of(registry, name)]
        if not components:
            raise pytest.UsageError(f"--decoderbench {' '.join(chosen)}: registers no component that could be checked")
    # Where its images lie, only the user of a data set knows.
    ready = [one for one in components if not any(o.is_required() for o in one.config_class.model_fields.values())]
    checks = [check for registered in ready for check in checks_of(registered.component)]
    metafunc.parametrize("check", parameters_of(checks))


def test_conformance(check: Callable[[], None]) -> None:
    """Ask it."""
    check()
