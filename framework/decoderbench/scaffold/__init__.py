"""`decoderbench new`: writes a component that runs unchanged, as one file or as a package for others to install."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from decoderbench import kinds
from decoderbench.errors import ConfigError, did_you_mean
from decoderbench.files.storage import write_atomically

KINDS = (*kinds.KINDS, "tracker")
FAMILIES = ("autoregressive", "ctc", "per_character")

ARGUMENTS = {
    "decoder": " --add decoder.mine={name}",
    "encoder": " --add encoder.mine={name}",
    "bridge": " --add bridge.mine={name}",
    "rectifier": " --add rectifier.mine={name}",
    "dataset": " --set dataset={name}",
    "metric": "",
    "tracker": "",
}
"""Further arguments for `decoderbench run experiments/quickstart.toml -p FILE` to use the component."""

_PACKAGE = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "The {kind} {name} for decoderbench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["decoderbench"]

[project.optional-dependencies]
dev = ["pytest"]

[project.entry-points.decoderbench]
{name} = "{package}.{name}"

[tool.hatch.build.targets.wheel]
packages = ["src/{package}"]
""",
    "README.md": """\
# {distribution}

The {kind} `{name}` for decoderbench.

```console
pip install -e ".[dev]" && pytest      # {tested}
decoderbench plugins --verbose         # lists it: installed plugins are found without configuration
decoderbench run EXPERIMENT.toml{arguments}
```
""",
    "src/{package}/__init__.py": '"""The {kind} `{name}` for decoderbench."""\n',
}
_CONFORMANCE_TEST = '''\
"""The conformance kit of decoderbench: one test per rule."""

from collections.abc import Callable

from decoderbench.testing import parametrize_with_checks
from {package}.{name} import {class_name}


# To check another variant too, add a pair of the class and its options. expected_failures={{rule: reason}} lists
# rules that are known to fail.
@parametrize_with_checks([{class_name}])
def test_conformance(check: Callable[[], None]) -> None:
    check()
'''
_TRACKER_TEST = '''\
"""The tracker is found and loaded."""

from decoderbench.registry.plugin_manager import build_plugin_manager


def test_it_is_loaded() -> None:
    plugins = build_plugin_manager()
    assert plugins.manager.has_plugin("{name}"), plugins.broken
'''


def new_component(kind: str, name: str, *, family: str | None = None, package: bool = False, into: Path) -> list[Path]:
    """Write a component of a kind, and return the paths of its files.

    Args:
        kind: one of `KINDS`.
        name: the name of the component in experiments, and of its file.
        family: of a decoder, one of `FAMILIES`; default: autoregressive.
        package: whether to write a distribution with an entry point and tests, instead of one file.
        into: the folder to write to.

    Raises:
        ConfigError: an unknown kind or family, a name that is not a valid module name, or a file that exists already.
    """
    source = files(__package__).joinpath("templates", f"{_template_of(kind, family)}.py").read_text(encoding="utf-8")
    if not re.fullmatch("[a-z]([a-z0-9_]{0,62}[a-z0-9])?", name) or keyword.iskeyword(name):
        rule = "use a-z, 0-9 and _, begin with a letter, do not end with _, and use no Python keyword"
        raise ConfigError([f"name {name!r}: {rule}, as in my_{kind}"])
    class_name = "".join(part.capitalize() for part in name.split("_"))
    component = source.replace("my_component", name).replace("MyComponent", class_name)
    if package and name == "plugins":
        raise ConfigError(["name 'plugins': decoderbench_plugins is the built-in package; choose another name"])
    if not package:
        return _write(into, {f"{name}.py": component})
    fields = {
        "kind": kind,
        "name": name,
        "class_name": class_name,
        "package": f"decoderbench_{name}",
        "distribution": f"decoderbench-{name.replace('_', '-')}",
        "arguments": ARGUMENTS[kind].format(name=name),
        "tested": "it can be loaded" if kind == "tracker" else "one test per rule of the conformance kit",
    }
    test = _TRACKER_TEST if kind == "tracker" else _CONFORMANCE_TEST
    texts = {path: text.format(**fields) for path, text in (_PACKAGE | {"tests/test_conformance.py": test}).items()}
    texts["src/{package}/{name}.py"] = component
    return _write(into / fields["distribution"], {path.format(**fields): text for path, text in texts.items()})


def _template_of(kind: str, family: str | None) -> str:
    if kind not in KINDS:
        raise ConfigError([f"kind {kind!r}: unknown{did_you_mean(kind, KINDS)}; choose one of {', '.join(KINDS)}"])
    if kind != "decoder":
        if family is not None:
            raise ConfigError([f"--family {family}: only decoders have families; leave it out"])
        return kind
    family = family or FAMILIES[0]
    if family not in FAMILIES:
        raise ConfigError(
            [f"--family {family}: unknown{did_you_mean(family, FAMILIES)}; choose one of {', '.join(FAMILIES)}"]
        )
    return f"{family}_decoder"


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    paths = {folder / path: text for path, text in texts.items()}
    if existing := [str(path) for path in paths if path.exists()]:
        raise ConfigError([f"{existing[0]}: exists already and is not overwritten; choose another name or move it"])
    for path, text in paths.items():
        write_atomically(path, text.encode())
    return list(paths)
