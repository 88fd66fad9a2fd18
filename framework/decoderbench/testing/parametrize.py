"""The kit as tests of pytest: each rule of each component is a test of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from decoderbench.errors import did_you_mean

if TYPE_CHECKING:
    import pytest

    from decoderbench.testing.checks import Check

Component = Any
"""A class, or a pair of a class and its options."""


def parametrize_with_checks(
    components: Iterable[Component],
    *,
    expected_failures: Mapping[str, str] | None = None,
    base_dir: Path = Path(),
) -> pytest.MarkDecorator:
    """Return a decorator that makes a test of each check of each component.

        @parametrize_with_checks([MyDecoder, (MyDecoder, {"hidden_dim": 32})])
        def test_conformance(check):
            check()

    A rule that cannot be asked of a component is a skipped test, with the reason.

    Args:
        components: classes, each alone or in a pair with its options.
        expected_failures: name of a rule -> why it is known to be broken. Such a test must fail: once it passes, it
            is reported, so that the list stays true.
        base_dir: where relative paths in the options of a data set start.

    Raises:
        ValueError: an expected failure names no rule of any of the components.
    """
    import pytest

    from decoderbench.testing import checks_of

    pairs = [component if isinstance(component, tuple) else (component, {}) for component in components]
    checks = [check for cls, options in pairs for check in checks_of(cls, options, base_dir=base_dir)]
    expected = expected_failures or {}
    known = sorted({check.name for check in checks})
    for name in expected:
        if name not in known:
            raise ValueError(
                f"expected_failures names the unknown rule {name!r}{did_you_mean(name, known)}; "
                f"rules of these components: {', '.join(known)}"
            )

    return pytest.mark.parametrize("check", parameters_of(checks, expected))


def parameters_of(checks: Iterable[Check], expected_failures: Mapping[str, str] = MappingProxyType({})) -> list[Any]:
    """Return checks as parameters of a test, each with its name and, if it is expected to fail, the reason."""
    import pytest

    from decoderbench.testing.rules import ConformanceError

    def parameter(check: Check) -> Any:
        reason = expected_failures.get(check.name)
        marks = [pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)] if reason is not None else []
        return pytest.param(_skipping(check), id=str(check), marks=marks)

    return [parameter(check) for check in checks]


def _skipping(check: Check) -> Callable[[], None]:
    """Return a check that pytest reports as skipped where it cannot be asked."""
    import pytest

    from decoderbench.testing.rules import NotAskedError

    def ask() -> None:
        __tracebackhide__ = True
        try:
            check()
        except NotAskedError as reason:
            pytest.skip(str(reason))

    return ask
