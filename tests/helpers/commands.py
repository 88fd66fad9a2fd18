"""The command line and pytest, called in this process."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decoderbench import cli


def leave_out_figures(patch: pytest.MonkeyPatch) -> None:
    """Write reports without figures and with an empty page, which take longer to draw than a small cell to train."""
    patch.setattr("decoderbench.report.draw_figures", lambda analysis: {})
    patch.setattr("decoderbench.report.html.html_report", lambda analysis, *, command: "")


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process, without figures in a report; return exit status, stdout and stderr."""
    status = run_command(*arguments)
    printed = capfd.readouterr()
    return status, printed.out, printed.err


def run_command(*arguments: str) -> int:
    """Run the command line in this process, without figures in a report; return the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch)
        patch.setattr(sys, "argv", ["decoderbench", *arguments])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code
    return int(status or 0)


def run_pytest(folder: Path, *arguments: str) -> Counter[str]:
    """Run pytest on a folder in this process, which saves the imports of a new one; count the outcomes of tests."""
    outcomes: Counter[str] = Counter()

    class CountsOutcomes:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                outcomes[report.outcome] += 1

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.outcome != "passed":
                outcomes[report.outcome] += 1

    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        pytest.main([*options, *arguments], plugins=[CountsOutcomes()])
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]
    return outcomes
