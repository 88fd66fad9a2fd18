"""The conformance kit as tests: one a rule, failures that are expected by reason, and what cannot be asked."""

import textwrap
from pathlib import Path

import pytest
from planted.metrics import Constant, FirstRight
from support import SmallCTC

from decoderbench.testing import parametrize_with_checks

pytest_plugins = ["pytester"]

MODULE = """
    import pytest
    from planted.decoders import UnusedParameter
    from planted.metrics import Constant, FirstRight
    from decoderbench.testing import parametrize_with_checks

    @parametrize_with_checks({components}, expected_failures={expected})
    def test_conformance(check):
        check()
"""


def outcomes(pytester: pytest.Pytester, components: str, expected: str) -> dict[str, int]:
    pytester.makepyfile(test_mine=textwrap.dedent(MODULE.format(components=components, expected=expected)))
    options = ("-p", "no:cacheprovider", "-o", f"pythonpath={Path(__file__).parents[1]}")
    return pytester.runpytest_subprocess(*options).parseoutcomes()


def test_each_rule_is_a_test(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "[FirstRight]", "{}") == {"passed": 9}


def test_a_breach_fails_unless_it_is_expected(pytester: pytest.Pytester) -> None:
    assert outcomes(pytester, "[Constant]", "{}") == {"passed": 8, "failed": 1}
    expected = "{'tells_right_from_wrong': 'it is a constant'}"
    assert outcomes(pytester, "[Constant]", expected) == {"passed": 8, "xfailed": 1}
    # An expected failure that passes is one: the list is to stay true.
    assert outcomes(pytester, "[FirstRight]", expected) == {"passed": 8, "failed": 1}


def test_an_expected_failure_names_a_rule() -> None:
    with pytest.raises(ValueError, match="unknown rule 'tells_right_from_rong'; did you mean 'tells_right_from_wrong'"):
        parametrize_with_checks([FirstRight], expected_failures={"tells_right_from_rong": "?"})
    parametrize_with_checks([FirstRight, Constant], expected_failures={"heeds_no_order": "?"})


def test_the_name_of_a_test_tells_component_options_and_rule() -> None:
    mark = parametrize_with_checks([(SmallCTC, {})]).mark
    name, parameters = mark.args
    assert name == "check"
    assert "decoder/small_ctc()-memorises" in [parameter.id for parameter in parameters]
