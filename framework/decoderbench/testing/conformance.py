"""Tests of every registered component with its default options.

pytest --pyargs decoderbench.testing.conformance --decoderbench my_decoder.py
"""

from collections.abc import Callable

import pytest

from decoderbench.errors import PluginError
from decoderbench.registry.listing import components_of
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry
from decoderbench.testing.kits import checks_of
from decoderbench.testing.parametrize import parameters_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Generate one test per check."""
    plugins: list[str] = metafunc.config.getoption("--decoderbench")
    try:
        registry = Registry(build_plugin_manager(plugins))
    except PluginError as error:
        raise pytest.UsageError(str(error)) from None
    components = [registered for of_kind in registry.values() for registered in of_kind.values()]
    if plugins:
        components = [registered for name in plugins for registered in components_of(registry, name)]
        if not components:
            raise pytest.UsageError(f"--decoderbench {' '.join(plugins)}: registers no component to check")
    # Options without a default, such as the path of a dataset, are known to the user only.
    ready = [one for one in components if not any(o.is_required() for o in one.config_class.model_fields.values())]
    changes = registry.plugins.changes
    checks = [check for one in ready for check in checks_of(one.component, changes=changes.get(one.plugin, []))]
    metafunc.parametrize("check", parameters_of(checks))


def test_conformance(check: Callable[[], None]) -> None:
    """Run one check."""
    check()
