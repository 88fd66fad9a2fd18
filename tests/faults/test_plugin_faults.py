"""Broken plugins that are installed: each is reported in one line and stops only a run that names it."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import call
from helpers.distributions import DECODER, install, load, loaded
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import train

from decoderbench.errors import PluginError, UnknownNameError
from decoderbench.registry.global_state import undoing_changes
from decoderbench.registry.plugin_manager import Plugins, build_plugin_manager
from decoderbench.registry.registry import Registry

HEAD = "from decoderbench import Decoder, hookimpl\n"

# By fault: the source of the plugin and a part of the reported line.
BROKEN = {
    "import_error": (
        "import no_such_package",
        "ModuleNotFoundError: No module named 'no_such_package' (import_error.py:1)",
    ),
    "syntax_error": ("def (", "SyntaxError: invalid syntax"),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero (raises.py:1)"),
    "exits": ("import sys\nsys.exit(0)", "SystemExit: 0 (exits.py:2)"),
    "skips": ("import pytest\npytest.skip('x', allow_module_level=True)", "Skipped: x"),
    "other_api": ("DECODERBENCH_API = 99\n" + HEAD, "needs version 99 of the plugin API (DECODERBENCH_API)"),
    "no_hook": ("x = 1", "it registers nothing; mark a function such as register_decoders with @hookimpl"),
    "misspelled_hook": (HEAD + "@hookimpl\ndef register_decoder(): return []", "unknown hook 'register_decoder'"),
    "unknown_argument": (HEAD + "@hookimpl\ndef cell_started(cell, wrong): pass", "Argument(s) {'wrong'} are declared"),
    "hook_raises": (HEAD + "@hookimpl\ndef register_decoders(): return 1 / 0", "raised in register_decoders: ZeroDiv"),
    "hook_exits": (
        HEAD + "@hookimpl\ndef register_decoders(): raise SystemExit(0)",
        "raised in register_decoders: Sys",
    ),
    "wrong_type": (HEAD + "@hookimpl\ndef register_decoders(): return 5", "raised in register_decoders: TypeError"),
    "no_class": (
        HEAD + "@hookimpl\ndef register_decoders(): return [42]",
        "registers 42 as decoder; derive the class from",
    ),
    "abstract": (HEAD + "@hookimpl\ndef register_decoders(): return [Decoder]", "decoder Decoder does not implement"),
    "bad_name": (DECODER.format(name="../up"), "decoder Linear has the name '../up'"),
    "unmarked": (
        DECODER.format(name="lost").replace("@hookimpl\n", ""),
        "its function register_decoders is not marked",
    ),
    "silent_error": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        "could not be loaded: Odd, whose text cannot be shown (silent_error.py:3)",
    ),
    "skips_in_a_hook": (
        HEAD + "import pytest\n@hookimpl\ndef register_decoders(): pytest.importorskip('no_such_package')",
        "raised in register_decoders: Skipped: could not import 'no_such_package'",
    ),
    "names_a_text": (
        HEAD + "@hookimpl\ndef plugin_modules(): return 'json'",
        "raised in plugin_modules: it returned 'json'; return a list of names of modules",
    ),
    "names_no_text": (
        HEAD + "@hookimpl\ndef plugin_modules(): return [[]]",
        "raised in plugin_modules: it returned a list with []; name modules by text",
    ),
    "taken_name": (DECODER.format(name="lstm_ctc"), "two plugins register decoder 'lstm_ctc': "),
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that installs a distribution of one module for this test."""

    def add(name: str, text: str, *, entry: str = "", value: str = "", folder: str = "site") -> Path:
        where = install(tmp_path / folder, f"dist-{name}", {entry or name: value or name}, {name: text})
        monkeypatch.syspath_prepend(where)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return where

    return add


def reasons(plugins: Plugins) -> list[str]:
    return [broken.reason for broken in plugins.broken]


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_plugin_is_disabled_with_one_line(
    fault: str, installed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    text, message = BROKEN[fault]
    installed(fault, text)
    installed("working", DECODER.format(name="working"))
    with caplog.at_level(logging.WARNING):
        plugins = build_plugin_manager()
        registry = Registry(plugins)
    assert {"working", "ctc"} < set(registry["decoder"])
    assert "attention_lstm" in registry["decoder"]
    (reason,) = reasons(plugins)
    assert message in reason
    assert reason.startswith(f"plugin {fault}")
    assert "\n" not in reason
    (line,) = caplog.messages
    assert line.startswith(f"{reason}; ")
    assert line.endswith(" is disabled (decoderbench plugins --verbose shows more)")
    assert "Traceback" in plugins.broken[0].details
    Registry(plugins)
    assert caplog.messages == [line]  # not reported again

    # If it is named, the same plugin is an error.
    for as_entry_point in (True, False) if fault != "taken_name" else (True,):
        with pytest.raises(PluginError, match="plugin ") as caught:
            Registry(build_plugin_manager([fault], installed=as_entry_point))
        assert message in str(caught.value)
    assert "working" in Registry(build_plugin_manager([f"no:{fault}"]))["decoder"]


def test_report_of_a_broken_plugin_names_distribution_and_version(installed: Callable[..., Path]) -> None:
    installed("lazy", HEAD + "@hookimpl\ndef register_decoders(): return 1 / 0")
    plugins = build_plugin_manager()
    Registry(plugins)
    assert reasons(plugins)[0].startswith("plugin lazy of dist-lazy 1.0 raised in register_decoders: ")


def test_entry_point_to_a_missing_module_or_attribute_is_reported(installed: Callable[..., Path]) -> None:
    installed("partial", HEAD, value="partial:nothing")
    installed("absent", HEAD, value="no_such_module")
    absent, partial = reasons(build_plugin_manager())
    assert "absent of dist-absent 1.0 could not be loaded: ModuleNotFoundError: No module named 'no_such_m" in absent
    assert "partial of dist-partial 1.0 could not be loaded: AttributeError: module 'partial' has no attr" in partial


@pytest.mark.parametrize("order", [1, -1])
def test_entry_points_of_one_name_in_two_distributions_are_both_refused(
    tmp_path: Path, order: int, monkeypatch: Any
) -> None:
    for name in ("first", "second"):
        install(tmp_path / name, f"dist-{name}", {"twin": f"twin_{name}"}, {f"twin_{name}": DECODER.format(name=name)})
    for folder in [tmp_path / "first", tmp_path / "second"][::order]:
        monkeypatch.syspath_prepend(folder)
    plugins = build_plugin_manager()
    (reason,) = reasons(plugins)
    assert reason == (
        "plugin twin of dist-first 1.0 and dist-second 1.0 could not be loaded: two distributions have an entry "
        "point of that name, for the modules twin_first and twin_second; uninstall one, or load one by its module, as "
        "in -p twin_first"
    )
    decoders = Registry(build_plugin_manager(["twin_second"]))["decoder"]
    assert ("second" in decoders, "first" in decoders) == (True, False)


@pytest.mark.parametrize("order", [1, -1])
def test_component_registered_by_two_distributions_is_available_from_neither(
    tmp_path: Path, order: int, monkeypatch: Any
) -> None:
    for name in ("alpha", "beta"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        install(tmp_path / name, f"dist-{name}", {name: name}, {name: DECODER.format(name="mine")})
    for folder in [tmp_path / "alpha", tmp_path / "beta"][::order]:
        monkeypatch.syspath_prepend(folder)
    decoders = Registry(build_plugin_manager())["decoder"]
    assert "mine" not in decoders
    with pytest.raises(UnknownNameError) as caught:
        decoders["mine"]
    assert str(caught.value) == (
        "two plugins register decoder 'mine': alpha.Linear of dist-alpha 1.0 and beta.Linear of dist-beta 1.0; "
        "rename one, or disable one with -p no:alpha or -p no:beta"
    )
    assert Registry(build_plugin_manager(["no:alpha"]))["decoder"]["mine"].origin == "dist-beta 1.0"


def test_second_entry_point_for_the_same_module_is_refused(
    installed: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    installed("shared_plugin", DECODER.format(name="shared"))
    monkeypatch.syspath_prepend(install(tmp_path / "other", "dist-other", {"other": "shared_plugin"}, {}))
    plugins = build_plugin_manager()
    assert "its module is that of plugin other of dist-other 1.0; rename one" in reasons(plugins)[0]
    assert "shared" in Registry(plugins)["decoder"]


def test_module_takes_precedence_over_a_file_of_its_name_with_a_warning(
    installed: Callable[..., Path], tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    where = installed("both", DECODER.format(name="of_module"))
    (tmp_path / "both.py").write_text(DECODER.format(name="of_file"))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        plugins = build_plugin_manager(["both"], installed=False)
    assert caplog.messages == [f"plugin both is the module {where}/both.py; for the file, give -p ./both.py"]
    assert list(Registry(plugins)["decoder"]) == ["of_module"]


def test_files_of_the_same_name_are_two_plugins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(DECODER.format(name=name))
    registry = Registry(build_plugin_manager([str(tmp_path / name / "mine.py") for name in ("one", "two")]))
    one, two = registry["decoder"]["one"], registry["decoder"]["two"]
    assert one.source_digest() != two.source_digest()
    again = [str(tmp_path / "one" / "mine.py")] * 2
    assert "one" in Registry(build_plugin_manager(again))["decoder"]


def test_plugin_object_without_a_hash_is_refused(installed: Callable[..., Path]) -> None:
    text = (
        "from dataclasses import dataclass\n@dataclass\nclass Plugin:\n    x: int = 0\n"
        "    @hookimpl\n    def register_decoders(self): return []\nplugin = Plugin()\n"
    )
    installed("unhashable", HEAD + text, value="unhashable:plugin")
    plugins = build_plugin_manager()
    assert "could not be loaded: Plugin objects cannot be hashed; use a module" in reasons(plugins)[0]
    assert "lstm_ctc" in Registry(plugins)["decoder"]


CHANGES_STATE = "import os, torch\ntorch.set_default_dtype(torch.float64)\nos.environ['OMP_NUM_THREADS'] = '7'\n"


@pytest.mark.parametrize("way", ["entry point", "file", "module", "folder", "plugin_modules", "environment"])
def test_global_state_changed_by_an_import_is_named_and_restored(
    way: str,
    installed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text, before = CHANGES_STATE + DECODER.format(name="mine"), os.environ["OMP_NUM_THREADS"]
    named, folders, plugin = [], [], "changer"
    if way == "entry point":
        installed("changer", text)
    elif way == "module":
        installed("changer", text, entry="unused", value="json")
        named = ["changer"]
    elif way == "plugin_modules":
        installed("outer", HEAD + "@hookimpl\ndef plugin_modules(): return ['changer']")
        installed("changer", text, entry="unused", value="json", folder="changer")
    else:
        file = tmp_path / "files" / "changer.py"
        file.parent.mkdir()
        file.write_text(text)
        plugin = "changer.py" if way == "folder" else str(file)
        if way == "folder":
            folders = [file.parent]
        elif way == "file":
            named = [str(file)]
        else:
            monkeypatch.setenv("DECODERBENCH_PLUGINS", str(file))
    monkeypatch.delitem(sys.modules, "changer", raising=False)
    plugins = build_plugin_manager(named, folders)
    assert "mine" in Registry(plugins)["decoder"]
    assert torch.get_default_dtype() is torch.float32
    assert os.environ["OMP_NUM_THREADS"] == before
    said = (
        f"importing plugin {plugin} changed global state (the default dtype, the environment: OMP_NUM_THREADS); "
        "restored"
    )
    assert said in caplog.messages
    assert plugins.changes == {plugin: [said]}


@pytest.mark.parametrize("hook", ["register_decoders", "register_metrics", "plugin_modules"])
def test_global_state_changed_by_a_hook_at_registration_is_named_and_restored(hook: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + f"import torch\n@hookimpl\ndef {hook}():\n    torch.set_num_threads(3)\n    return []\n")
    plugins = build_plugin_manager([str(file)])
    Registry(plugins)
    assert torch.get_num_threads() == 1
    said = f"{hook} of plugin {file} changed global state (the number of threads); restored"
    assert plugins.changes == {str(file): [said]}


def test_built_in_plugins_change_no_global_state() -> None:
    said: list[str] = []
    names = [name for name in sys.modules if name.startswith("decoderbench_plugins")]
    with pytest.MonkeyPatch.context() as patch, undoing_changes(said.append):
        for name in names:
            patch.delitem(sys.modules, name)
        Registry(build_plugin_manager())
    assert said == []


FRESH = """
import os, sys
from decoderbench.registry.plugin_manager import build_plugin_manager
plugins = build_plugin_manager([sys.argv[1]], installed=False)
assert "torch" in sys.modules
import torch
print(plugins.changes[sys.argv[1]])
print(torch.get_num_threads(), torch.get_default_dtype(), os.environ["OMP_NUM_THREADS"], torch.backends.mkldnn.enabled)
"""


def test_switches_of_a_plugin_that_imports_torch_first_are_named_and_undone(tmp_path: Path) -> None:
    file = tmp_path / "first.py"
    file.write_text(
        "import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch\ntorch.set_default_dtype(torch.float64)\n"
        "torch.backends.mkldnn.enabled = False\n" + DECODER.format(name="mine")
    )
    finished = subprocess.run(
        [sys.executable, "-c", FRESH, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert finished.stdout.splitlines() == [
        f"['importing plugin {file} changed global state (the default dtype, torch.backends.mkldnn.enabled, the "
        "environment: OMP_NUM_THREADS); restored']",
        "2 torch.float32 2 True",
    ], finished.stderr


def test_corrupt_entry_points_are_reported_and_ignored(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    where = install(tmp_path, "dist-garbled", {"garbled": "garbled"}, {"garbled": ""})
    (where / "dist_garbled-1.0.dist-info" / "entry_points.txt").write_bytes(b"[decoderbench]\n\xff\xfe")
    monkeypatch.syspath_prepend(where)
    assert "lstm_ctc" in Registry(build_plugin_manager())["decoder"]
    assert "dist_garbled-1.0.dist-info has corrupt entry points" in caplog.text


def test_file_named_by_two_paths_is_one_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.py").write_text(DECODER.format(name="mine"))
    (tmp_path / "link.py").symlink_to(tmp_path / "folder" / "mine.py")
    monkeypatch.chdir(tmp_path)
    plugins = build_plugin_manager(["folder/../folder/mine.py", "link.py"], ["folder"])
    assert "mine" in Registry(plugins)["decoder"]
    assert plugins.broken == []


def test_files_of_the_same_name_in_two_plugin_folders_are_both_loaded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(DECODER.format(name=name))
    decoders = Registry(build_plugin_manager(folders=[tmp_path / "one", tmp_path / "two"]))["decoder"]
    assert {"one", "two"} <= set(decoders)
    decoders = Registry(build_plugin_manager(["no:mine.py"], [tmp_path / "one"]))["decoder"]
    assert "one" not in decoders


def test_plugin_modules_are_loaded_recursively(installed: Callable[..., Path]) -> None:
    name_more = HEAD + "@hookimpl\ndef plugin_modules(): return [{!r}]"
    installed("outer", name_more.format("middle"))
    for module, text in (("middle", name_more.format("inner")), ("inner", DECODER.format(name="innermost"))):
        installed(module, text, entry="unused", value="json", folder=module)
        sys.modules.pop(module, None)
    assert "innermost" in Registry(build_plugin_manager(["outer"]))["decoder"]


def test_broken_metric_or_report_column_fails_no_cell(
    tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "failing.py").write_text(
        "from decoderbench import Metric, hookimpl\n"
        "class Failing(Metric):\n    name = 'failing'\n    def score(self, references, hypotheses): return 1 / 0\n"
        "@hookimpl\ndef register_metrics(): return [Failing]\n"
        "@hookimpl\ndef report_columns(record): return {'status': 'fine', 'moon': 'full'}\n"
    )
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN)], [tmp_path]))
    frame = train(tiny, registry, tmp_path / "out")
    assert set(frame["status"]) == {"done"}
    assert frame["failing"].isna().all()
    assert set(frame["moon"]) == {"full"}
    assert "metric failing failed and has no score: ZeroDivisionError: division by zero" in caplog.text
    assert "report column 'status' already exists" in caplog.text


def test_no_option_excludes_plugins_and_refuses_unknown_names() -> None:
    with pytest.raises(PluginError, match=r"^no:bundeld: no plugin has that name; did you mean 'bundled'"):
        build_plugin_manager(["no:bundeld"])
    assert len(Registry(build_plugin_manager(["no:bundled"]))["decoder"]) == 0
    assert len(Registry(build_plugin_manager(["no:decoderbench_plugins.decoders.ctc"], builtin=False))["decoder"]) == 0
    remaining = Registry(build_plugin_manager(["no:decoderbench_plugins.decoders.ctc"]))["decoder"]
    assert ("ctc" in remaining, "lstm_ctc" in remaining) == (False, True)


def test_plugins_are_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(DECODER.format(name="mine"))
    monkeypatch.setenv("DECODERBENCH_PLUGINS", f"{tmp_path}/mine.py, no:decoderbench_plugins.decoders.ctc")
    decoders = Registry(build_plugin_manager())["decoder"]
    assert ("mine" in decoders, "ctc" in decoders) == (True, False)


def test_worker_process_loads_the_same_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.py").write_text(DECODER.format(name="one"))
    (tmp_path / "two.py").write_text(DECODER.format(name="two"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECODERBENCH_PLUGINS", "two.py")
    plugins = build_plugin_manager(["no:decoderbench_plugins.decoders.ctc"], ["folder"])
    monkeypatch.chdir("/")
    monkeypatch.delenv("DECODERBENCH_PLUGINS")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(load, plugins.sources).result(timeout=120)
    assert there == loaded(plugins)
    assert {name for name, _ in there} >= {"one.py", str(tmp_path / "two.py"), "decoderbench_plugins.decoders.lstm_ctc"}


def test_broken_plugin_stops_only_the_run_that_uses_it(
    tiny: dict[str, Any],
    tmp_path: Path,
    installed: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = ("import_error", "exits", "hook_raises", "taken_name")
    for fault in faults:
        installed(fault, BROKEN[fault][0])
    file = tmp_path / "tiny.toml"
    tiny["training"]["steps"] = 1
    file.write_text(to_toml(tiny))
    command = ["run", str(file), "-p", str(TINY_PLUGIN), "--results", str(tmp_path / "out"), "--device", "cpu"]

    status, out, err = call(capfd, *command, "--add", "decoder.mine=import_error")
    assert status == 2
    assert "disabled, so its components are missing: plugin import_error of dist-import_error" in err
    assert not (tmp_path / "out").exists()
    caplog.clear()
    status, out, err = call(capfd, *command)
    assert status == 0, out + err
    assert "[3/3]" in out  # the built-in component keeps its name
    for fault in faults:
        assert sum(line.startswith(f"plugin {fault}") for line in caplog.messages) == 1
    assert "Traceback" not in out + err + caplog.text


def test_plugin_that_hangs_is_named_while_it_hangs_and_when_ctrl_c_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "hangs.py"
    file.write_text("import signal, threading\nthreading.Event().wait(0.3)\nsignal.raise_signal(signal.SIGINT)\n")
    monkeypatch.setattr("decoderbench.registry.hook_calls.SECONDS_TO_WAIT", 0.01)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_plugin_manager([str(file)], installed=False)
    finally:
        signal.signal(signal.SIGINT, before)
    hangs = (
        f"importing plugin {file} has taken 0.01 s so far; Ctrl-C ends the command, -p no:{file} leaves the plugin out"
    )
    assert caplog.messages == [hangs, f"interrupted in: importing plugin {file}"]


def test_plugin_file_that_has_the_name_of_a_library_replaces_no_import_of_it(tmp_path: Path) -> None:
    for name in ("torch", "json", "decoderbench"):
        (tmp_path / f"{name}.py").write_text(DECODER.format(name=f"of_{name}"))
    decoders = Registry(build_plugin_manager(folders=[tmp_path]))["decoder"]
    assert {"of_torch", "of_json", "of_decoderbench"} <= set(decoders)
    assert "tensor" in dir(sys.modules["torch"])


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", "a\nb", "<b>", "x" * 65, "", "Ctc", "ﬃ", "ctc\u200b", "=1+1", "a|b", "\x1b[31m", "-x", 7, None],
)
def test_component_with_an_unsafe_name_is_refused_and_both_are_named(tmp_path: Path, name: Any) -> None:
    file = tmp_path / "unsafe.py"
    file.write_text(DECODER.format(name=name))
    with pytest.raises(PluginError) as caught:
        Registry(build_plugin_manager([str(file)], installed=False))
    assert f"plugin {file} was refused in register_decoders: decoder Linear has the name {name!r}; use a-z" in str(
        caught.value
    )


def test_plugin_that_exits_does_not_end_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    site = install(tmp_path, "dist-exits", {"exits": "exits"}, {"exits": "import sys\nsys.exit(0)"})
    monkeypatch.syspath_prepend(site)
    status, out, err = call(capfd, "plugins")
    assert status == 0
    assert "decoder lstm_ctc" in out
    assert "disabled: plugin exits of dist-exits 1.0 could not be loaded: SystemExit: 0 (exits.py:2)" in err
