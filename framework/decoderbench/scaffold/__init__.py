"""`decoderbench new`: a component that runs as it is, to be changed; one file, or a package for others to install."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from decoderbench.errors import ConfigError, did_you_mean

KINDS = ("decoder", "encoder", "bridge", "rectifier", "dataset", "metric", "tracker")
FAMILIES = ("autoregressive", "ctc")

# What to type after `decoderbench run experiments/quickstart.toml -p FILE`, so that the component takes part.
TAKES_PART = {
    "decoder": " --add decoder.mine={name}",
    "encoder": " --add encoder.mine={name}",
    "bridge": " --add bridge.mine={name}",
    "rectifier": " --add rectifier.mine={name}",
    "dataset": " --set dataset={name}",
    "metric": "",
    "tracker": "",
}

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
decoderbench plugins --verbose         # it is among them: nothing else has to be said
decoderbench run EXPERIMENT.toml{takes_part}
```
""",
    "src/{package}/__init__.py": '"""The {kind} `{name}` for decoderbench."""\n',
}
_CONFORMANCE_TEST = '''\
"""Each rule of decoderbench's conformance kit is a test."""

from collections.abc import Callable

from decoderbench.testing import parametrize_with_checks
from {package}.{name} import {class_name}


# With a pair of the class and its options another variant is checked as well; expected_failures={{rule: reason}}
# names what is known to be broken.
@parametrize_with_checks([{class_name}])
def test_conformance(check: Callable[[], None]) -> None:
    check()
'''
_TRACKER_TEST = '''\
"""The tracker is found, and hears of a run."""

from decoderbench.registry.plugin_manager import build_plugin_manager


def test_it_is_loaded() -> None:
    plugins = build_plugin_manager()
    assert plugins.manager.has_plugin("{name}"), plugins.broken
'''


def new_component(kind: str, name: str, *, family: str | None = None, package: bool = False, into: Path) -> list[Path]:
    """Write a component of a kind, and return the files.

    Args:
        kind: one of `KINDS`.
        name: what experiments call it, and the file.
        family: of a decoder, one of `FAMILIES`; autoregressive if left out.
        package: whether to write a distribution of its own, with an entry point and tests, instead of one file.
        into: the folder to write to.

    Raises:
        ConfigError: an unknown kind or family, a name that no module can have, or a file that exists already.
    """
    source = files(__package__).joinpath("templates", f"{_template_of(kind, family)}.py").read_text(encoding="utf-8")
    if not re.fullmatch("[a-z]([a-z0-9_]{0,62}[a-z0-9])?", name) or keyword.iskeyword(name):
        rule = "must be a-z, 0-9 and _, begin with a letter, not end with _ and be no word of Python"
        raise ConfigError([f"name {name!r}: {rule}, as in my_{kind}"])
    class_name = "".join(part.capitalize() for part in name.split("_"))
    component = source.replace("my_component", name).replace("MyComponent", class_name)
    if package and name == "plugins":
        raise ConfigError(["name 'plugins': decoderbench_plugins is the package of what ships; choose another name"])
    if not package:
        return _write(into, {f"{name}.py": component})
    words = {
        "kind": kind,
        "name": name,
        "class_name": class_name,
        "package": f"decoderbench_{name}",
        "distribution": f"decoderbench-{name.replace('_', '-')}",
        "takes_part": TAKES_PART[kind].format(name=name),
        "tested": "a run finds it" if kind == "tracker" else "each rule of the conformance kit",
    }
    test = _TRACKER_TEST if kind == "tracker" else _CONFORMANCE_TEST
    texts = {path: text.format(**words) for path, text in (_PACKAGE | {"tests/test_conformance.py": test}).items()}
    texts["src/{package}/{name}.py"] = component
    return _write(into / words["distribution"], {path.format(**words): text for path, text in texts.items()})


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
    if there := [str(path) for path in paths if path.exists()]:
        raise ConfigError([f"{there[0]}: exists already and is not overwritten; choose another name, or move it away"])
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(paths)
