"""The conformance kit as tests: one a rule, failures that are expected by reason, and what cannot be asked."""

import textwrap
from pathlib import Path

import pytest
from helpers.support import SmallCTC
from planted.metrics import Constant, FirstRight

from decoderbench.testing import parametrize_with_checks

pytest_plugins = ["pytester"]

MODULE = """
    from planted.metrics import Constant, FirstRight
    from decoderbench.testing import parametrize_with_checks

    EXPECTED = {"tells_right_from_wrong": "it is a constant"}

    @parametrize_with_checks([FirstRight])
    def test_whole(check):
        check()

    @parametrize_with_checks([Constant])
    def test_broken(check):
        check()

    @parametrize_with_checks([Constant], expected_failures=EXPECTED)
    def test_broken_as_expected(check):
        check()

    @parametrize_with_checks([FirstRight], expected_failures=EXPECTED)
    def test_whole_unexpectedly(check):
        check()
"""


def test_each_rule_is_a_test_and_a_breach_fails_unless_it_is_expected(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine=textwrap.dedent(MODULE))
    options = ("-p", "no:cacheprovider", "-rA", "-o", f"pythonpath={Path(__file__).parents[1]}")
    result = pytester.runpytest_subprocess(*options)
    assert result.parseoutcomes() == {"passed": 9 + 8 + 8 + 8, "failed": 1 + 1, "xfailed": 1}
    name = "metric/first_right()-tells_right_from_wrong"
    result.stdout.fnmatch_lines_random(
        [
            f"FAILED test_mine.py::test_broken?{name}?*",
            f"XFAIL test_mine.py::test_broken_as_expected?{name}? - it is a constant",
            # An expected failure that passes is one: the list is to stay true.
            f"FAILED test_mine.py::test_whole_unexpectedly?{name}?*",
        ]
    )


def test_an_expected_failure_names_a_rule() -> None:
    with pytest.raises(ValueError, match="unknown rule 'tells_right_from_rong'; did you mean 'tells_right_from_wrong'"):
        parametrize_with_checks([FirstRight], expected_failures={"tells_right_from_rong": "?"})
    parametrize_with_checks([FirstRight, Constant], expected_failures={"heeds_no_order": "?"})


def test_the_name_of_a_test_tells_component_options_and_rule() -> None:
    mark = parametrize_with_checks([(SmallCTC, {})]).mark
    name, parameters = mark.args
    assert name == "check"
    assert "decoder/small_ctc()-memorizes" in [parameter.id for parameter in parameters]
