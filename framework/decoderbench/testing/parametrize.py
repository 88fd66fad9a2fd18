"""The conformance kit in pytest: one test per rule and component."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from decoderbench.errors import did_you_mean
from decoderbench.testing.assertions import ConformanceError, RuleSkipped
from decoderbench.testing.checks import Check
from decoderbench.testing.kits import checks_of

if TYPE_CHECKING:
    import pytest  # imported inside the functions: `decoderbench check` works without pytest

Component = Any
"""A class, or a pair of a class and its options."""


def parametrize_with_checks(
    components: Iterable[Component],
    *,
    expected_failures: Mapping[str, str] | None = None,
    base_dir: Path = Path(),
) -> pytest.MarkDecorator:
    """Return a decorator that turns each check of each component into a test.

        @parametrize_with_checks([MyDecoder, (MyDecoder, {"hidden_dim": 32})])
        def test_conformance(check):
            check()

    A rule that cannot be checked for a component is a skipped test, with the reason.

    Args:
        components: classes, or pairs of a class and its options.
        expected_failures: rule name -> reason. Such a test must fail: if it passes, it is reported as a failure, so
            that the list stays correct.
        base_dir: where relative paths in the options of a dataset start.

    Raises:
        ValueError: an expected failure is not a rule of any of the components.
    """
    import pytest

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
    """Return checks as parameters of a test, each with its ID and, if it is expected to fail, the reason."""
    import pytest

    def parameter(check: Check) -> Any:
        reason = expected_failures.get(check.name)
        marks = [pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)] if reason is not None else []
        return pytest.param(_skip_in_pytest(check), id=str(check), marks=marks)

    return [parameter(check) for check in checks]


def _skip_in_pytest(check: Check) -> Callable[[], None]:
    """Wrap a check so that pytest reports `RuleSkipped` as a skipped test."""
    import pytest

    def run() -> None:
        __tracebackhide__ = True
        try:
            check()
        except RuleSkipped as reason:
            pytest.skip(str(reason))

    return run
