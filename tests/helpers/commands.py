"""The command line, called in this process."""

import sys
from typing import Any

import pytest

from decoderbench import cli


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process; return exit status, stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["decoderbench", *arguments])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code
    printed = capfd.readouterr()
    return int(status or 0), printed.out, printed.err
