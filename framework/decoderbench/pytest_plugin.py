"""The pytest option that selects the plugins for `pytest --pyargs decoderbench.testing.conformance`.

pytest loads this module in every run in an environment with decoderbench, so it imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--decoderbench`."""
    group = parser.getgroup("decoderbench")
    group.addoption(
        "--decoderbench",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="with --pyargs decoderbench.testing.conformance: check the components of this plugin, a module or a .py "
        "file; repeatable; default: all installed plugins",
    )
