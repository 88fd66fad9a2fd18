"""The option of pytest that says what `pytest --pyargs decoderbench.testing.conformance` checks.

pytest loads this in every run of whoever has decoderbench installed, so it imports nothing.
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
        help="with --pyargs decoderbench.testing.conformance: check what this plugin, a module or a .py file, "
        "registers; repeatable; everything that is installed if left out",
    )
