"""The command line: run, compare, prepare, plan, report; new, check, plugins.

Torch is imported only by commands that need it.

Exit status: 0 done, 1 some cell failed or some rule is broken, 2 usage or configuration, 3 data, 4 cells left pending,
130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from decoderbench import __version__
from decoderbench.cli import authoring, running
from decoderbench.cli.common import err, out
from decoderbench.errors import DecoderBenchError

app = typer.Typer(
    name="decoderbench",
    help="Which decoder should turn a CNN's features into text, and how sure are we?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(running.run)
app.command()(running.compare)
app.command()(running.prepare)
app.command()(running.plan)
app.command()(running.report)
app.command()(authoring.new)
app.command()(authoring.check)
app.command()(authoring.plugins)


def main() -> None:
    """Run the command line and turn what users can cause into one message and an exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("decoderbench").setLevel(logging.INFO)
    try:
        app()
    except DecoderBenchError as error:
        err.print(f"{error}", markup=False)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        err.print(f"{error.filename or 'a file'}: {error.strerror or error}; finished cells are kept", markup=False)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(__version__, markup=False)
        raise typer.Exit
