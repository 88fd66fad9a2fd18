"""Commands for those who write plugins: new, check, plugins."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoderbench.cli.common import Overrides, PluginFolders, PluginNames, err, load_registry, out
from decoderbench.config.experiment import ComponentChoice
from decoderbench.config.overrides import parse_overrides
from decoderbench.errors import ConfigError
from decoderbench.scaffold import FAMILIES, KINDS, TAKES_PART, new_component

if TYPE_CHECKING:
    from decoderbench.registry.registry import Registered
    from decoderbench.testing import Check


def new(
    kind: Annotated[str, typer.Argument(help=f"What to write: {', '.join(KINDS)}.", show_default=False)],
    name: Annotated[str, typer.Argument(help="What experiments will call it, as in my_decoder.", show_default=False)],
    family: Annotated[
        str | None, typer.Option("--family", help=f"Of a decoder: {' or '.join(FAMILIES)}.  [default: {FAMILIES[0]}]")
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="Write a package with an entry point and tests, for others to install.")
    ] = False,
    into: Annotated[Path, typer.Option("--into", help="The folder to write to.")] = Path(),
) -> None:
    """Write a component that runs as it is, for you to change."""
    paths = new_component(kind, name, family=family, package=package, into=into)
    for path in paths:
        out.print(f"wrote {path} ({len(path.read_text(encoding='utf-8').splitlines())} lines)", markup=False)
    takes_part = TAKES_PART[kind].format(name=name)
    folder, file = shlex.quote(str(paths[0].parent)), shlex.quote(str(paths[0]))
    if package:
        steps = [f'cd {folder} && pip install -e ".[dev]" && pytest', f"decoderbench run EXPERIMENT.toml{takes_part}"]
    else:
        check = [] if kind == "tracker" else [f"decoderbench check {file}"]
        steps = [*check, f"decoderbench run experiments/quickstart.toml -p {file}{takes_part}"]
    out.print("next:\n" + "\n".join(f"  {step}" for step in steps), markup=False)


def check(
    what: Annotated[
        list[str],
        typer.Argument(help="A .py file, a module, or what is registered, as in decoder/ctc.", show_default=False),
    ],
    assignments: Overrides = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the tracebacks of what a component raised.")] = False,
) -> None:
    """Check components against the rules that all of their kind keep; nothing is trained for long.

    With --set the one component is checked with other options, as in --set hidden_dim=32.
    """
    import torch

    from decoderbench.testing import NotAskedError
    from decoderbench.testing.processes import start_workers

    with suppress(NotAskedError):  # which the rule then says
        start_workers()  # they import torch while this process does
    torch.set_num_threads(1)  # what is checked is too small for more
    by_plugin = [name for name in what if name.endswith(".py") or not ("/" in name or name in KINDS)]
    registry = load_registry([*(plugin or []), *by_plugin], plugins_dir)
    from decoderbench.registry.listing import components_of, find_components
    from decoderbench.testing import checks_of

    chosen: list[Registered[Any]] = []
    for name in what:
        own = components_of(registry, name) if name in by_plugin else find_components(registry, name)
        if not own:
            raise ConfigError([f"{name}: registers no component that could be checked, only hooks; try a run with it"])
        chosen += own
    options = parse_overrides(assignments or [])
    if options and len(chosen) != 1:
        raise ConfigError(
            [f"--set: sets options of one component, {len(chosen)} are checked; name one, as in decoder/ctc"]
        )
    if options:
        (one,) = chosen
        if problems := registry[one.kind].mistakes(ComponentChoice.model_validate({**options, "use": one.name})):
            raise ConfigError([f"--set {'.'.join(map(str, place))}: {text}" for place, text in problems])
    started = time.monotonic()
    broken = sum(_ask(one, checks_of(one.component, options), verbose=verbose) for one in chosen)
    seconds = time.monotonic() - started
    verdict = f"{broken} rule{'s' * (broken != 1)} broken" if broken else "all rules kept"
    out.print(f"{len(chosen)} component{'s' * (len(chosen) != 1)}, {verdict}, {seconds:.1f} s", markup=False)
    if broken:
        raise typer.Exit(1)


def plugins(
    what: Annotated[
        str | None,
        typer.Argument(
            help="One component or kind, as in decoder/attention_lstm: all its options.", show_default=False
        ),
    ] = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show each plugin's file and hooks, and why others were left out.")
    ] = False,
) -> None:
    """List every component: kind, name, where it comes from, options with defaults."""
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.registry.listing import describe_components, list_components, list_plugins

    if verbose:
        for line in list_plugins(registry.plugins):
            out.print(line, markup=False)
    for line in describe_components(registry, what) if what else list_components(registry):
        out.print(line, markup=False)
    for broken in registry.plugins.broken:
        err.print(f"left out: {broken.reason}", markup=False)
        if verbose:
            err.print(broken.details, markup=False)


def _ask(component: Registered[Any], checks: list[Check], *, verbose: bool) -> int:
    """Ask all checks of a component, say what came of each, and return how many were broken."""
    from decoderbench.testing import ConformanceError, NotAskedError

    out.print(f"{component.kind} {component.name}  ({component.origin})", markup=False)
    told: set[str] = set()
    broken = 0
    for one in checks:
        started = time.monotonic()
        try:
            one()
            verdict, lines = "kept  ", []
        except NotAskedError as reason:
            verdict, lines = "      ", [f"not asked: {reason}"]
        except ConformanceError as breach:
            broken += 1
            again = breach.got in told
            told.add(breach.got)
            verdict = "BROKEN"
            lines = [f"got {breach.got}" + ", as above" * again, *([breach.do] if breach.do and not again else [])]
            if verbose and breach.__cause__ is not None and not again:
                lines += _traceback(breach.__cause__)
        seconds = time.monotonic() - started
        out.print(f"  {verdict} {one.name}: {one.sentence}" + f"  ({seconds:.1f} s)" * (seconds >= 1), markup=False)
        for line in lines:
            out.print(f"         {line}", markup=False)
        if one.name == "can_be_registered" and verdict == "BROKEN":
            break
    return broken


def _traceback(error: BaseException) -> list[str]:
    import traceback

    return [line for part in traceback.format_exception(error) for line in part.rstrip().split("\n")]
