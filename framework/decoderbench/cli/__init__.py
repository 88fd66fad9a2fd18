"""The command line: run, worker, compare, finetune, prepare, plan, audit, report, contrast, power, reproduce, predict,
evaluate, export, pack, demo, status, merge, verify, clean; new, check, plugins.

Torch is imported only by commands that need it.

Exit status: 0 done, 1 some cell failed, some rule is broken, `verify` found damage or `reproduce` another result, 2
usage or configuration, 3 data, 4 cells left pending, 130 and 143 interrupted by SIGINT and SIGTERM. If several apply: 2
and 3, then 130 and 143, then 1, then 4.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand

from decoderbench import __version__
from decoderbench.cli import (
    auditing,
    authoring,
    comparing,
    housekeeping,
    integrity,
    merging,
    packing,
    planning,
    reading,
    reproducing,
    running,
    sharing,
    status,
    working,
)
from decoderbench.cli.common import err, out
from decoderbench.cli.interrupts import exit_status_of, raising_on_sigterm
from decoderbench.cli.terminal import SafeFormatter, accept_every_character, keeping_stdout, refuse_closed_output
from decoderbench.errors import DecoderBenchError, PluginError
from decoderbench.exception_text import describe_error
from decoderbench.files.storage import storage_error_of

USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__base__)


class _Command(TyperCommand):
    """A command on whose standard output nothing else prints, and that nothing else can end, such as a plugin."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with keeping_stdout():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:  # typer would say nothing, and end with 130 after SIGTERM too
            err.print("interrupted", markup=False)
            raise typer.Exit(exit_status_of(error)) from None
        except (SystemExit, GeneratorExit) as error:  # the commands themselves raise typer.Exit
            if isinstance(error.__context__, BrokenPipeError):  # from rich: the reader of the output has gone
                raise
            raise PluginError(
                f"a plugin ended the command: {describe_error(error)}; correct it, or disable it"
            ) from error


app = typer.Typer(
    name="decoderbench",
    help="Which decoder should turn a CNN's features into text, and how sure are we?",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(cls=_Command)(running.run)
app.command(cls=_Command)(working.worker)
app.command(cls=_Command)(running.compare)
app.command(cls=_Command)(running.finetune)
app.command(cls=_Command)(planning.prepare)
app.command(cls=_Command)(planning.plan)
app.command(cls=_Command)(auditing.audit)
app.command(cls=_Command)(running.report)
app.command(cls=_Command)(comparing.contrast)
app.command(cls=_Command)(comparing.power)
app.command(cls=_Command)(reproducing.reproduce)
app.command(cls=_Command)(reading.predict)
app.command(cls=_Command)(reading.evaluate)
app.command(cls=_Command)(sharing.export)
app.command(cls=_Command)(packing.pack)
app.command(cls=_Command)(sharing.demo)
app.command(cls=_Command)(status.status)
app.command(cls=_Command)(merging.merge)
app.command(cls=_Command)(integrity.verify)
app.command(cls=_Command)(housekeeping.clean)
app.command(cls=_Command)(authoring.new)
app.command(cls=_Command)(authoring.check)
app.command(cls=_Command)(authoring.plugins)


def main() -> None:
    """Run the command line and turn what users can cause into one message and an exit status."""
    accept_every_character()
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("decoderbench").setLevel(logging.INFO)
    try:
        refuse_closed_output()
        with raising_on_sigterm():
            if status := app(standalone_mode=False):
                sys.exit(status)
    except (KeyboardInterrupt, typer.Abort) as error:
        err.print("interrupted", markup=False)
        sys.exit(exit_status_of(error if isinstance(error, KeyboardInterrupt) else error.__cause__))
    except USAGE_ERROR as error:
        text = io.StringIO()
        error.show(text)  # type: ignore[attr-defined]
        err.print(text.getvalue().rstrip(), markup=False)
        sys.exit(2)
    except DecoderBenchError as error:
        err.print(f"{error}", markup=False)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)  # a run may have cells left
    except OSError as error:
        end = storage_error_of(error)
        place = f"{error.filename}: {error.strerror or error}" if error.filename else describe_error(error)
        err.print(f"{end or place}; finished cells are kept", markup=False)
        sys.exit(end.exit_code if end else 2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(__version__, markup=False)
        raise typer.Exit
