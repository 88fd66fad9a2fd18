"""Plugins: loading files, folders and modules, errors, and that a broken plugin disables no other."""

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from helpers.distributions import DECODER

from decoderbench.config.grid import ComponentChoice
from decoderbench.errors import PluginError, UnknownNameError
from decoderbench.registry.plugin_loading import import_file
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry


def write(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.write_text(text)
    return path


def test_file_is_loaded_as_a_plugin(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.py", DECODER.format(name="linear_ctc"))
    registry = Registry(build_plugin_manager([str(file)]))
    assert registry["decoder"]["linear_ctc"].origin == str(file)
    assert registry["decoder"]["lstm_ctc"].origin.startswith("decoderbench ")


def test_each_file_of_a_folder_is_loaded_as_a_plugin(tmp_path: Path) -> None:
    write(tmp_path, "one.py", DECODER.format(name="one"))
    write(tmp_path, "two.py", DECODER.format(name="two"))
    registry = Registry(build_plugin_manager(folders=[tmp_path]))
    assert {"one", "two"} < set(registry["decoder"])


def test_module_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "importable_plugin.py", DECODER.format(name="importable"))
    monkeypatch.syspath_prepend(tmp_path)
    assert "importable" in Registry(build_plugin_manager(["importable_plugin"]))["decoder"]


def test_plugin_file_does_not_replace_a_module_of_its_name(tmp_path: Path) -> None:
    file = write(tmp_path, "json.py", DECODER.format(name="shadow"))
    assert "shadow" in Registry(build_plugin_manager([str(file)]))["decoder"]
    assert sys.modules["json"] is json


def test_component_registered_twice_is_refused_with_both_origins(tmp_path: Path) -> None:
    file = write(tmp_path, "twin.py", DECODER.format(name="lstm_ctc"))
    with pytest.raises(PluginError) as caught:
        Registry(build_plugin_manager([str(file)]))
    error = str(caught.value)
    assert "two plugins register decoder 'lstm_ctc'" in error
    assert "decoderbench_plugins.decoders.lstm_ctc.LSTMCTC" in error
    assert str(file) in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' (broken.py:1)"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py:1)"),
        (
            "from decoderbench import hookimpl\n@hookimpl\ndef register_decoder():\n    return []",
            "unknown hook 'register_decoder'",
        ),
        (
            "from decoderbench import hookimpl\n@hookimpl\ndef register_decoders(wrong):\n    return []",
            "Argument(s) {'wrong'}",
        ),
    ],
)
def test_broken_plugin_is_disabled_with_one_line_unless_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, message: str
) -> None:
    write(tmp_path, "broken.py", text)
    write(tmp_path, "working.py", DECODER.format(name="working"))
    with caplog.at_level(logging.WARNING):
        plugins = build_plugin_manager(folders=[tmp_path])
    assert {"working", "lstm_ctc"} < set(Registry(plugins)["decoder"])
    (broken,) = plugins.broken
    assert message in broken.reason
    assert "\n" not in broken.reason
    assert broken.name == "broken.py"
    assert "Traceback" in broken.details
    assert broken.reason in caplog.text

    with pytest.raises(PluginError) as caught:
        build_plugin_manager([str(tmp_path / "broken.py")])
    assert message in str(caught.value)


def test_misspelled_hook_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = write(
        tmp_path, "typo.py", "from decoderbench import hookimpl\n@hookimpl\ndef register_decodrs():\n    return []"
    )
    with pytest.raises(PluginError, match="did you mean 'register_decoders'"):
        build_plugin_manager([str(file)])


def test_named_plugin_without_a_hook_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "no_hook.py", "x = 1")
    with pytest.raises(PluginError, match="registers nothing; mark a function"):
        build_plugin_manager([str(file)])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [42]", "registers 42 as decoder; derive the class from Decoder"),
        ("return [Decoder]", "does not implement"),
        ("return 5", "raised in register_decoders: TypeError"),
        ("raise ValueError('no')", "raised in register_decoders: ValueError: no"),
    ],
)
def test_registering_something_other_than_a_component_is_refused(tmp_path: Path, body: str, message: str) -> None:
    text = f"from decoderbench import Decoder, hookimpl\n@hookimpl\ndef register_decoders():\n    {body}"
    plugins = build_plugin_manager([str(write(tmp_path, "invalid.py", text))])
    with pytest.raises(PluginError) as caught:
        Registry(plugins)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["Upper", "with space", "../up", "a/b", "", "x" * 80, "<b>"])
def test_component_name_that_is_unsafe_in_a_path_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, "named.py", DECODER.format(name=name))
    with pytest.raises(PluginError, match="has the name"):
        Registry(build_plugin_manager([str(file)]))


def test_installed_false_loads_no_entry_points(registry: Registry) -> None:
    assert "lstm_ctc" in registry["decoder"]
    assert list(Registry(build_plugin_manager(installed=False))["decoder"]) == []


def test_configure_checks_name_and_options_of_a_choice(registry: Registry) -> None:
    registered, config = registry["decoder"].configure(ComponentChoice(use="lstm_ctc", hidden_dim=32))
    assert isinstance(config, registered.config_class)
    assert config.model_dump()["hidden_dim"] == 32
    with pytest.raises(UnknownNameError, match="did you mean 'lstm_ctc'"):
        registry["decoder"].configure(ComponentChoice(use="lstm_cct"))
    ((place, mistake),) = registry["decoder"].mistakes(ComponentChoice(use="lstm_ctc", hiden_dim=32))
    assert place == ("hiden_dim",)
    assert "did you mean 'hidden_dim'" in mistake


def test_trace_prints_each_hook_call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DECODERBENCH_TRACE", "1")
    Registry(build_plugin_manager())
    printed = capsys.readouterr().err
    assert "hook register_decoders() -> " in printed
    assert "hook register_decoders = [" in printed


def test_file_edited_within_a_second_at_the_same_size_runs_its_new_code(tmp_path):
    file, times = tmp_path / "edited.py", (10**9, 10**9)
    for scale in (1, 2):
        file.write_text(f"SCALE = {scale}\n", encoding="utf-8")
        os.utime(file, times)
        assert scale == import_file("edited_within_a_second", file).SCALE
