"""The conformance kit in pytest: one test per rule, expected failures, and IDs of tests."""

import textwrap
from pathlib import Path

import pytest
from helpers.commands import run_pytest
from helpers.small_decoders import SmallCTC
from planted.metrics import Constant, FirstRight

from decoderbench.testing import parametrize_with_checks

MODULE = """
    from planted.metrics import Constant, FirstRight
    from decoderbench.testing import parametrize_with_checks

    EXPECTED = {"distinguishes_right_from_wrong": "it is a constant"}

    @parametrize_with_checks([FirstRight])
    def test_correct(check):
        check()

    @parametrize_with_checks([Constant])
    def test_faulty(check):
        check()

    @parametrize_with_checks([Constant], expected_failures=EXPECTED)
    def test_expected_failure(check):
        check()

    @parametrize_with_checks([FirstRight], expected_failures=EXPECTED)
    def test_unexpected_pass(check):
        check()
"""


def test_each_rule_is_a_test_that_fails_unless_expected(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(MODULE))
    # Both metrics give no numbers per image, which skips two rules, and three of a constant.
    results = {"passed": 10 + 8 + 8 + 9, "failed": 1 + 1, "skipped": 2 + 3 + (1 + 3) + 2}
    assert run_pytest(tmp_path, "-rA", "test_mine.py") == results
    printed = capfd.readouterr().out
    name = "metric/first_right()-distinguishes_right_from_wrong"
    assert f"FAILED test_mine.py::test_faulty[{name}]" in printed
    assert f"XFAIL test_mine.py::test_expected_failure[{name}] - it is a constant" in printed
    # An expected failure that passes is a failure, so that the list stays correct.
    assert f"FAILED test_mine.py::test_unexpected_pass[{name}]" in printed


def test_expected_failure_must_name_a_rule() -> None:
    with pytest.raises(ValueError, match="unknown rule 'distinguishes_right'; did you mean 'distinguishes_right_from"):
        parametrize_with_checks([FirstRight], expected_failures={"distinguishes_right": "?"})
    parametrize_with_checks([FirstRight, Constant], expected_failures={"is_order_invariant": "?"})


def test_id_of_test_names_component_options_and_rule() -> None:
    mark = parametrize_with_checks([(SmallCTC, {})]).mark
    name, parameters = mark.args
    assert name == "check"
    assert "decoder/small_ctc()-memorizes_six_texts" in [parameter.id for parameter in parameters]
