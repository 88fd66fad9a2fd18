"""Commands for authors of plugins: new, check, plugins."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decoderbench.cli.common import Overrides, PluginFolders, PluginNames, err, load_registry, out
from decoderbench.config.grid import ComponentChoice
from decoderbench.config.overrides import parse_overrides
from decoderbench.errors import ConfigError
from decoderbench.scaffold import ARGUMENTS, FAMILIES, KINDS, new_component

if TYPE_CHECKING:
    from decoderbench.registry.registry import Registered
    from decoderbench.testing import Check

PASS, FAIL, WARN, SKIP = "pass", "FAIL", "warn", "skip"


def new(
    kind: Annotated[str, typer.Argument(help=f"Kind of component: {', '.join(KINDS)}.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Name in experiments, such as my_decoder.", show_default=False)],
    family: Annotated[
        str | None,
        typer.Option("--family", help=f"Decoder family: {' or '.join(FAMILIES)}.  [default: {FAMILIES[0]}]"),
    ] = None,
    package: Annotated[
        bool, typer.Option("--package", help="Write a package with an entry point and tests, for others to install.")
    ] = False,
    into: Annotated[Path, typer.Option("--into", help="The folder to write to.")] = Path(),
) -> None:
    """Write a component that runs unchanged, as a starting point."""
    paths = new_component(kind, name, family=family, package=package, into=into)
    for path in paths:
        out.print(f"wrote {path} ({len(path.read_text(encoding='utf-8').splitlines())} lines)", markup=False)
    arguments = ARGUMENTS[kind].format(name=name)
    folder, file = shlex.quote(str(paths[0].parent)), shlex.quote(str(paths[0]))
    if package:
        steps = [f'cd {folder} && pip install -e ".[dev]" && pytest', f"decoderbench run EXPERIMENT.toml{arguments}"]
    else:
        check = [] if kind == "tracker" else [f"decoderbench check {file}"]
        steps = [*check, f"decoderbench run experiments/quickstart.toml -p {file}{arguments}"]
    out.print("next:\n" + "\n".join(f"  {step}" for step in steps), markup=False)


def check(
    what: Annotated[
        list[str],
        typer.Argument(help="A .py file, a module, or a component such as decoder/ctc.", show_default=False),
    ],
    assignments: Overrides = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the tracebacks of exceptions.")] = False,
) -> None:
    """Check components against the rules for their kind, in seconds.

    --set changes the options of a single component, as in --set hidden_dim=32.
    """
    import torch

    from decoderbench.testing import RuleSkipped
    from decoderbench.testing.fresh_processes import start_workers

    with suppress(RuleSkipped):  # the rule itself reports it
        start_workers()  # they import torch while this process imports the plugins
    torch.set_num_threads(1)  # the checked modules are too small for more
    by_plugin = [name for name in what if name.endswith(".py") or not ("/" in name or name in KINDS)]
    registry = load_registry([*(plugin or []), *by_plugin], plugins_dir)
    from decoderbench.registry.listing import components_of, find_components
    from decoderbench.testing import checks_of
    from decoderbench.testing.kits import kind_of

    chosen: list[Registered[Any]] = []
    for name in what:
        found = components_of(registry, name) if name in by_plugin else find_components(registry, name)
        own = [one for one in found if kind_of(one.component)]
        if not own:
            raise ConfigError([f"{name}: has no component to check, only hooks or executors; try it in a run"])
        chosen += own
    options = parse_overrides(assignments or [])
    if options and len(chosen) != 1:
        raise ConfigError(
            [f"--set: sets options of a single component, given {len(chosen)}; name one, as in decoder/ctc"]
        )
    if options:
        (one,) = chosen
        options = registry[one.kind].decide_options(one.name, options)
        if problems := registry[one.kind].mistakes(ComponentChoice.model_validate({**options, "use": one.name})):
            raise ConfigError([f"--set {'.'.join(map(str, place))}: {text}" for place, text in problems])
    started = time.monotonic()
    counts = Counter[str]()
    for component in chosen:
        changes = registry.plugins.changes.get(component.plugin, [])
        counts += _run_checks(component, checks_of(component.component, options, changes=changes), verbose=verbose)
    seconds = time.monotonic() - started
    verdicts = [_count(counts[FAIL], "rule") + " FAIL"] if counts[FAIL] else []
    verdicts += [f"{counts[PASS]} pass" if counts[FAIL] else _count(counts[PASS], "rule") + " pass"]
    verdicts += [f"{counts[verdict]} {verdict}" for verdict in (WARN, SKIP) if counts[verdict]]
    out.print(f"{_count(len(chosen), 'component')}, {', '.join(verdicts)}, {seconds:.1f} s", markup=False)
    if counts[FAIL]:
        raise typer.Exit(1)


def plugins(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A component such as decoder/attention_lstm, or a kind: show all options.", show_default=False
        ),
    ] = None,
    plugin: PluginNames = None,
    plugins_dir: PluginFolders = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the file and hooks of each plugin, and why others are disabled.")
    ] = False,
) -> None:
    """List all components: kind, name, origin, options with defaults."""
    registry = load_registry(plugin, plugins_dir)
    from decoderbench.registry.listing import describe_components, list_components, list_plugins

    if verbose:
        for line in list_plugins(registry.plugins):
            out.print(line, markup=False)
    for line in describe_components(registry, what) if what else list_components(registry):
        out.print(line, markup=False)
    for broken in registry.plugins.broken:
        err.print(f"disabled: {broken.reason}", markup=False)
        if verbose:
            err.print(broken.details, markup=False)


def _run_checks(component: Registered[Any], checks: list[Check], *, verbose: bool) -> Counter[str]:
    """Run all checks of a component, print a verdict for each, and return how often each verdict occurred."""
    from decoderbench.testing import ConformanceError, RuleSkipped

    out.print(f"{component.kind} {component.name}  ({component.origin})", markup=False)
    counts = Counter[str]()
    reported: dict[str, str] = {}
    for check in checks:
        started = time.monotonic()
        verdict, lines = PASS, list[str]()
        try:
            check()
        except RuleSkipped as reason:
            verdict, lines = SKIP, [str(reason)]
        except ConformanceError as failure:
            verdict, first = WARN if check.advisory else FAIL, reported.setdefault(failure.got, check.name)
            lines = [f"got the same as {first}"]
            if first == check.name:
                lines = [f"got {failure.got}", *([failure.do] if failure.do else [])]
                if verbose and failure.__cause__ is not None:
                    lines += _traceback(failure.__cause__)
        seconds = time.monotonic() - started
        out.print(f"  {verdict} {check.name}: {check.sentence}" + f"  ({seconds:.1f} s)" * (seconds >= 1), markup=False)
        for line in lines:
            out.print(f"       {line}", markup=False)
        counts[verdict] += 1
        if check.name == "can_be_registered" and verdict == FAIL:
            break
    return counts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _traceback(error: BaseException) -> list[str]:
    import traceback

    return [line for part in traceback.format_exception(error) for line in part.rstrip().split("\n")]
