"""Loading plugins: what arrives, what is refused, and that one broken plugin never takes others with it."""

import logging
from pathlib import Path

import pytest
from helpers.distributions import DECODER

from decoderbench.config.experiment import ComponentChoice
from decoderbench.errors import PluginError, UnknownNameError
from decoderbench.registry.plugin_manager import build_plugin_manager
from decoderbench.registry.registry import Registry


def write(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.write_text(text)
    return path


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.py", DECODER.format(name="linear_ctc"))
    registry = Registry(build_plugin_manager([str(file)]))
    assert registry["decoder"]["linear_ctc"].origin == str(file)
    assert registry["decoder"]["lstm_ctc"].origin.startswith("decoderbench ")


def test_a_folder_of_files(tmp_path: Path) -> None:
    write(tmp_path, "one.py", DECODER.format(name="one"))
    write(tmp_path, "two.py", DECODER.format(name="two"))
    registry = Registry(build_plugin_manager(folders=[tmp_path]))
    assert {"one", "two"} < set(registry["decoder"])


def test_a_module_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "importable_plugin.py", DECODER.format(name="importable"))
    monkeypatch.syspath_prepend(tmp_path)
    assert "importable" in Registry(build_plugin_manager(["importable_plugin"]))["decoder"]


def test_a_plugin_file_shadows_no_module(tmp_path: Path) -> None:
    import json

    file = write(tmp_path, "json.py", DECODER.format(name="shadow"))
    assert "shadow" in Registry(build_plugin_manager([str(file)]))["decoder"]
    import json as again

    assert again is json


def test_a_name_registered_twice_is_refused_naming_both(tmp_path: Path) -> None:
    file = write(tmp_path, "twin.py", DECODER.format(name="lstm_ctc"))
    with pytest.raises(PluginError) as caught:
        Registry(build_plugin_manager([str(file)]))
    message = str(caught.value)
    assert "two plugins register decoder 'lstm_ctc'" in message
    assert "decoderbench_plugins.decoders.lstm_ctc.LSTMCTC" in message
    assert str(file) in message


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_a_broken_plugin_leaves_the_others_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    write(tmp_path, "broken.py", text)
    write(tmp_path, "whole.py", DECODER.format(name="whole"))
    with caplog.at_level(logging.WARNING):
        plugins = build_plugin_manager(folders=[tmp_path])
    assert {"whole", "lstm_ctc"} < set(Registry(plugins)["decoder"])
    (broken,) = plugins.broken
    assert said in broken.reason
    assert "\n" not in broken.reason
    assert broken.name == "broken.py"
    assert "Traceback" in broken.details
    assert broken.reason in caplog.text

    with pytest.raises(PluginError) as caught:
        build_plugin_manager([str(tmp_path / "broken.py")])
    assert said in str(caught.value)


def test_a_misspelled_hook_is_told_the_right_name(tmp_path: Path) -> None:
    file = write(
        tmp_path, "typo.py", "from decoderbench import hookimpl\n@hookimpl\ndef register_decodrs():\n    return []"
    )
    with pytest.raises(PluginError, match="did you mean 'register_decoders'"):
        build_plugin_manager([str(file)])


def test_a_named_plugin_without_a_hook_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "idle.py", "x = 1")
    with pytest.raises(PluginError, match="registers nothing; mark a function"):
        build_plugin_manager([str(file)])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [42]", "registers 42 as decoder; derive the class from Decoder"),
        ("return [Decoder]", "does not implement"),
        ("return 5", "raised in register_decoders: TypeError"),
        ("raise ValueError('no')", "raised in register_decoders: ValueError: no"),
    ],
)
def test_what_is_no_component(tmp_path: Path, body: str, said: str) -> None:
    text = f"from decoderbench import Decoder, hookimpl\n@hookimpl\ndef register_decoders():\n    {body}"
    plugins = build_plugin_manager([str(write(tmp_path, "odd.py", text))])
    try:
        Registry(plugins)
        message = plugins.broken[0].reason
    except PluginError as error:
        message = str(error)
    assert said in message


@pytest.mark.parametrize("name", ["Upper", "with space", "../up", "a/b", "", "x" * 80, "<b>"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, "named.py", DECODER.format(name=name))
    with pytest.raises(PluginError, match="has the name"):
        Registry(build_plugin_manager([str(file)]))


def test_nothing_comes_from_entry_points_if_they_are_off() -> None:
    assert len(Registry(build_plugin_manager(installed=False))["decoder"]) == 0


def test_choices_are_checked_by_name_and_option(registry: Registry) -> None:
    registered, config = registry["decoder"].configure(ComponentChoice(use="lstm_ctc", hidden_dim=32))
    assert registered.config_class(hidden_dim=32) == config
    with pytest.raises(UnknownNameError, match="did you mean 'lstm_ctc'"):
        registry["decoder"].configure(ComponentChoice(use="lstm_cct"))
    ((place, said),) = registry["decoder"].mistakes(ComponentChoice(use="lstm_ctc", hiden_dim=32))
    assert place == ("hiden_dim",)
    assert "did you mean 'hidden_dim'" in said


def test_trace_prints_each_hook_call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DECODERBENCH_TRACE", "1")
    Registry(build_plugin_manager())
    printed = capsys.readouterr().err
    assert "hook register_decoders() -> " in printed
    assert "hook register_decoders = [" in printed
