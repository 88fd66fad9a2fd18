"""Digests of source code: of a plugin with what it imports from its own folder, and of the package."""

import inspect
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from decoderbench import sources
from decoderbench.errors import PluginError
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registered, Registry
from decoderbench.sources import package_digest, plugin_digest, source_digest

HELPER = "SCALE = {}\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "plugin", "helper"),
    [
        ({"mine.py": "import helper"}, "mine.py", "helper.py"),
        ({"mine.py": "from helper import SCALE as s"}, "mine.py", "helper.py"),
        ({"mine.py": "def f():\n    if 1:\n        import helper"}, "mine.py", "helper.py"),
        ({"mine.py": "try:\n    import fast\nexcept ImportError:\n    import helper"}, "mine.py", "helper.py"),
        ({"mine.py": "import helper", "helper/__init__.py": "from .deep import SCALE"}, "mine.py", "helper/deep.py"),
        ({"mine.py": "import lib.helper"}, "mine.py", "lib/helper.py"),
        ({"mine.py": "from lib import helper"}, "mine.py", "lib/helper.py"),
        ({"mine.py": "import one", "one.py": "import two", "two.py": "import one, three"}, "mine.py", "three.py"),
        ({"mine.py": "import importlib\nimportlib.import_module('lib.helper')"}, "mine.py", "lib/helper.py"),
        ({"mine.py": "import importlib\nimportlib.import_module(name='helper')"}, "mine.py", "helper.py"),
        ({"mine.py": "__import__('helper')"}, "mine.py", "helper.py"),
        ({"mine.py": "from lib import *", "lib/__init__.py": "__all__ = ['helper']"}, "mine.py", "lib/helper.py"),
        ({"mine.py": "import helper"}, "mine.py", "helper.so"),
        ({"p/__init__.py": "", "p/mine.py": "from .helper import SCALE"}, "p/mine.py", "p/helper.py"),
        ({"p/__init__.py": "", "p/mine.py": "from . import helper"}, "p/mine.py", "p/helper.py"),
        ({"p/__init__.py": "", "p/mine.py": "from p.helper import SCALE"}, "p/mine.py", "p/helper.py"),
        ({"p/__init__.py": "", "p/mine.py": "import p.helper"}, "p/mine.py", "p/helper.py"),
        ({"p/__init__.py": "", "p/mine.py": "from . import SCALE"}, "p/mine.py", "p/__init__.py"),
        ({"p/__init__.py": "", "p/mine.py": "from p import SCALE"}, "p/mine.py", "p/__init__.py"),
        (
            {"p/__init__.py": "", "p/a/__init__.py": "", "p/b/__init__.py": "", "p/a/mine.py": "from ..b import x"},
            "p/a/mine.py",
            "p/b/x.py",
        ),
        ({"p/__init__.py": "", "p/mine.py": "import beside"}, "p/mine.py", "beside.py"),
        ({"p/__init__.py": "from .mine import f", "p/mine.py": "import p.sub.x"}, "p/mine.py", "p/sub/__init__.py"),
    ],
)
def test_digest_of_a_plugin_changes_with_what_it_imports_from_its_folder(
    tmp_path: Path, files: dict[str, str], plugin: str, helper: str
) -> None:
    write(tmp_path, {helper: HELPER.format("1.0")} | files)
    write(tmp_path, {helper: HELPER.format("1.0")})
    before = plugin_digest(tmp_path / plugin)
    write(tmp_path, {helper: HELPER.format("7.0")})
    assert plugin_digest(tmp_path / plugin) != before
    write(tmp_path, {helper: HELPER.format("1.0")})
    assert plugin_digest(tmp_path / plugin) == before


def test_digest_of_a_plugin_does_not_depend_on_comments_of_helpers_or_on_its_place(tmp_path: Path) -> None:
    write(tmp_path / "here", {"mine.py": "import helper", "helper.py": HELPER.format(1)})
    write(tmp_path / "there", {"mine.py": "import helper", "helper.py": "# how large\n" + HELPER.format(1)})
    assert plugin_digest(tmp_path / "here" / "mine.py") == plugin_digest(tmp_path / "there" / "mine.py")


@pytest.mark.parametrize(
    "files",
    [
        {"mine.py": "import torch, math", "other.py": HELPER},
        {"p/__init__.py": "from . import mine, other", "p/mine.py": "import torch", "p/other.py": HELPER},
        {"p/__init__.py": "from . import mine", "p/mine.py": "from decoderbench.model import ctc"},
        {"mine.py": "from decoderbench import hookimpl", "decoderbench.py": HELPER},
    ],
)
def test_plugin_that_imports_nothing_of_its_own_has_the_digest_of_its_file(
    tmp_path: Path, files: dict[str, str]
) -> None:
    write(tmp_path, files)
    (file,) = tmp_path.rglob("mine.py")
    assert plugin_digest(file) == source_digest(file)


def test_built_in_components_have_the_digests_of_their_files(registry: Registry) -> None:
    stages = [one for kind in ("rectifier", "encoder", "bridge", "decoder") for one in registry[kind].values()]
    assert len(stages) > 15
    for one in stages:
        file = Path(inspect.getfile(one.component))
        is_package = (file.parent / "__init__.py").read_text(encoding="utf-8").count("hookimpl") > 0
        assert one.source_digest() == (plugin_digest if is_package else source_digest)(file), one.name


def test_only_modules_of_the_same_distribution_count_in_site_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"mine.py": "import mine_layers, theirs", "mine_layers.py": HELPER, "theirs.py": HELPER})
    monkeypatch.setattr(sources, "_site_packages", lambda: {tmp_path})
    owners = {"mine": ["mine"], "mine_layers": ["mine"], "theirs": ["another"]}
    monkeypatch.setattr(sources, "_distributions", lambda: owners)
    before = plugin_digest(tmp_path / "mine.py")
    write(tmp_path, {"theirs.py": HELPER * 2})
    assert plugin_digest(tmp_path / "mine.py") == before
    write(tmp_path, {"mine_layers.py": HELPER * 2})
    assert plugin_digest(tmp_path / "mine.py") != before


def test_helper_that_was_loaded_from_a_folder_below_that_of_the_plugin_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"mine.py": "import helper_below", "lib/helper_below.py": HELPER.format(1)})
    alone = plugin_digest(tmp_path / "mine.py")
    loaded = types.SimpleNamespace(__file__=str(tmp_path / "lib" / "helper_below.py"))
    monkeypatch.setitem(sys.modules, "helper_below", loaded)  # type: ignore[arg-type]
    before = plugin_digest(tmp_path / "mine.py")
    write(tmp_path, {"lib/helper_below.py": HELPER.format(7)})
    assert len({alone, before, plugin_digest(tmp_path / "mine.py")}) == 3


def test_helpers_of_one_name_in_two_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("one", "two"):
        write(tmp_path / place, {"mine.py": "import shared_helper", "shared_helper.py": HELPER.format(1)})
        monkeypatch.syspath_prepend(str(tmp_path / place))
    import shared_helper  # type: ignore[import-not-found]

    assert Path(shared_helper.__file__).parent.name == "two"
    try:
        plugin_digest(tmp_path / "two" / "mine.py")
        with pytest.raises(PluginError, match=r"imports shared_helper, which in this process is .*two.shared"):
            plugin_digest(tmp_path / "one" / "mine.py")
    finally:
        del sys.modules["shared_helper"]


def test_helper_that_python_cannot_parse_counts_by_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"mine.py": "def f():\n    import helper", "helper.py": "x = ="})
    before = plugin_digest(tmp_path / "mine.py")
    write(tmp_path, {"helper.py": "x == ="})
    assert plugin_digest(tmp_path / "mine.py") != before


COMPONENT = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from decoderbench import hookimpl
from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC
import scale_of_mine

class Mine(LSTMCTC):
    name = "mine"
    scale = scale_of_mine.SCALE

@hookimpl
def register_decoders():
    return [Mine]

@hookimpl
def run_cell(cell, context):
    return None
"""


def test_helper_of_a_component_and_of_a_trainer_is_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"mine.py": COMPONENT, "scale_of_mine.py": HELPER.format("1.0")})
    monkeypatch.setattr(sys, "path", list(sys.path))
    found: list[Any] = []
    for scale in ("1.0", "7.0"):
        write(tmp_path, {"scale_of_mine.py": HELPER.format(scale)})
        plugins = build_plugin_manager([str(tmp_path / "mine.py")])
        found.append((Registry(plugins)["decoder"]["mine"].source_digest(), plugins.trainers()))
        sys.modules.pop("scale_of_mine")
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


def test_package_digest_depends_on_the_model_and_not_on_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "decoderbench"
    shutil.copytree(sources.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "PACKAGE", copy)

    def digest() -> str:
        package_digest.cache_clear()
        return package_digest()

    original = digest()
    seen = {original}
    for name in ("model/ctc.py", "training/trainer.py", "data/augmentation.py", "labels.py", "seeds.py"):
        with (copy / name).open("a") as file:
            file.write("\nEDITED = 1\n")
        seen.add(digest())
    assert len(seen) == 6
    last = digest()
    for name in ("report/tables.py", "cli/running.py", "testing/kits.py", "errors.py"):
        with (copy / name).open("a") as file:
            file.write("\nEDITED = 1\n")
    assert digest() == last
    monkeypatch.setattr(sources, "PACKAGE", copy.rename(tmp_path / "moved"))
    assert digest() == last
    package_digest.cache_clear()


@pytest.mark.parametrize("library", ["json", "torch", "sys"])
def test_library_may_have_the_name_of_a_file_beside_a_plugin(tmp_path: Path, library: str) -> None:
    write(tmp_path, {"mine.py": f"import {library}", f"{library}.py": HELPER})
    assert plugin_digest(tmp_path / "mine.py") == source_digest(tmp_path / "mine.py")


def test_libraries_of_a_virtual_environment_below_the_folder_of_a_plugin_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / ".venv" / "site-packages"
    write(tmp_path, {"mine.py": "import drawing, spread.part"})
    monkeypatch.setattr(sources, "_site_packages", lambda: {installed})
    for name in ("drawing", "spread.part"):
        write(installed, {f"{name.replace('.', '/')}.py": HELPER})
        loaded = types.SimpleNamespace(__file__=str(installed / f"{name.replace('.', '/')}.py"))
        monkeypatch.setitem(sys.modules, name, loaded)  # type: ignore[arg-type]
    assert plugin_digest(tmp_path / "mine.py") == source_digest(tmp_path / "mine.py")


def test_helpers_of_one_name_in_two_folders_without_init_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two"):
        write(tmp_path / place, {"mine.py": "import parts.helper", "parts/helper.py": HELPER})
    loaded = types.SimpleNamespace(__file__=str(tmp_path / "two" / "parts" / "helper.py"))
    monkeypatch.setitem(sys.modules, "parts.helper", loaded)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"imports parts.helper, which in this process is .*two.parts"):
        plugin_digest(tmp_path / "one" / "mine.py")


def test_component_that_a_component_derives_from_is_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, {"mine.py": COMPONENT, "scale_of_mine.py": HELPER.format("1.0")})

    def load() -> Registered[Any]:
        return Registry(build_plugin_manager([str(tmp_path / "mine.py")]))["decoder"]["mine"]

    mine = load()
    before = mine.source_digest()
    edited = tmp_path / "edited" / "lstm_ctc.py"
    base = Path(inspect.getfile(mine.component.__mro__[1]))
    assert base.name == "lstm_ctc.py"
    write(tmp_path, {"edited/lstm_ctc.py": base.read_text() + "\nEDITED = 1\n"})
    getfile = inspect.getfile
    monkeypatch.setattr(inspect, "getfile", lambda one: str(edited) if Path(getfile(one)) == base else getfile(one))
    assert mine.source_digest() == before, "a class keeps the digest of what was imported"
    assert load().source_digest() != before
    sys.modules.pop("scale_of_mine")
