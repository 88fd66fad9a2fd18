"""From an idea to a row of the table: new, check, run."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.commands import call, run_pytest
from helpers.distributions import install
from helpers.running import TINY_PLUGIN, to_toml

from decoderbench.scaffold import FAMILIES, KINDS, new_component

PARTS = [(kind, None) for kind in KINDS if kind != "decoder"] + [("decoder", family) for family in FAMILIES]


@pytest.mark.parametrize(("kind", "family"), PARTS)
def test_new_component_is_short_passes_check_and_runs(
    kind: str,
    family: str | None,
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capfd, "new", kind, "my_own", *(["--family", family] if family else []))
    assert status == 0, err
    assert len((tmp_path / "my_own.py").read_text().splitlines()) <= 50
    *_, run = out.splitlines()
    if kind != "tracker":
        assert "  decoderbench check my_own.py" in out
        status, checked, err = call(capfd, "check", "my_own.py")
        assert status == 0, checked + err
        assert re.search(r"^1 component, \d+ rules pass, ", checked, re.MULTILINE)

    # Run the command that `new` prints, with a smaller experiment.
    tiny["image"] = {"height": 32, "width": 64}
    tiny["labels"] = {"charset": "0123456789"}
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    (tmp_path / "tiny.toml").write_text(to_toml(tiny))
    _, command, file, *arguments = run.split()
    assert (command, file) == ("run", "experiments/quickstart.toml")
    status, out, err = call(capfd, "run", "tiny.toml", *arguments, "-p", str(TINY_PLUGIN), "--device", "cpu")
    assert status == 0, out + err
    cells = pd.read_csv(tmp_path / "results" / "tiny" / "tables/cells.csv")
    assert set(cells["status"]) == {"done"}
    if kind in ("decoder", "encoder", "bridge", "rectifier"):
        assert len(cells) == 2
        assert "mine" in set(cells[kind])
    elif kind == "dataset":
        assert set(cells["dataset"]) == {"my_own"}
    elif kind == "metric":
        assert cells["my_own"].between(0, 1).all()
    else:
        lines = [json.loads(line) for line in (tmp_path / "results" / "tiny" / "my_own.jsonl").read_text().splitlines()]
        assert [line["event"] for line in lines].count("cell finished") == 1


@pytest.mark.parametrize(("kind", "family"), PARTS)
def test_new_component_satisfies_ruff(kind: str, family: str | None, tmp_path: Path) -> None:
    new_component(kind, "my_own", family=family, into=tmp_path)
    settings = Path(__file__).parents[2] / "pyproject.toml"
    for task in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *task, "--config", str(settings), str(tmp_path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_new_package_has_entry_point_and_tests(kind: str, tmp_path: Path) -> None:
    paths = new_component(kind, "my_own", package=True, into=tmp_path)
    root = tmp_path / "decoderbench-my-own"
    assert {str(path.relative_to(root)) for path in paths} == {
        "pyproject.toml", "README.md", "src/decoderbench_my_own/__init__.py", "src/decoderbench_my_own/my_own.py",
        "tests/test_conformance.py",
    }  # fmt: skip
    assert 'my_own = "decoderbench_my_own.my_own"' in (root / "pyproject.toml").read_text()
    for path in paths:
        assert "{" not in path.read_text() or path.suffix == ".py"
        assert "my_component" not in path.read_text()


def test_tests_of_new_package_pass(tmp_path: Path) -> None:
    new_component("metric", "my_own", package=True, into=tmp_path)
    outcomes = run_pytest(tmp_path / "decoderbench-my-own", "-o", "pythonpath=src", "tests")
    assert outcomes == {"passed": 12}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decodr", "x"], "kind 'decodr': unknown; did you mean 'decoder'?; choose one of rectifier, encoder"),
        (["decoder", "x", "--family", "rnn"], "--family rnn: unknown; choose one of autoregressive, ctc, per_ch"),
        (["encoder", "x", "--family", "ctc"], "--family ctc: only decoders have families; leave it out"),
        (["decoder", "My-Own"], "name 'My-Own': use a-z, 0-9 and _"),
        (["decoder", "../up"], "name '../up': use a-z, 0-9 and _"),
        (["decoder", "class"], "name 'class': use a-z, 0-9 and _, begin with a letter, do not end with _"),
        (["decoder", "my_"], "name 'my_': use a-z, 0-9 and _, begin with a letter, do not end with _"),
        (["decoder", "plugins", "--package"], "decoderbench_plugins is the built-in package"),
        (["decoder", "there"], "there.py: exists already and is not overwritten"),
    ],
)
def test_new_refuses_invalid_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("precious")
    status, _, err = call(capfd, "new", *arguments)
    assert (status, message in err) == (2, True), err
    assert (tmp_path / "there.py").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_check_reports_failures_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (path,) = new_component("decoder", "my_own", into=Path())
    path.write_text(path.read_text().replace("memory.new_zeros(", "torch.zeros("))
    status, out, _ = call(capfd, "check", "my_own.py")
    assert status == 1
    assert "  pass nll_is_one_number_per_image: `nll` returns one finite float32 number per image, (B,)\n" in out
    assert "  FAIL stays_on_one_device: After a move to CUDA all tensors of training and inference are there" in out
    assert (
        "\n       got mm of tensors on cpu and cuda\n       create tensors on the device of the input, x.new_z" in out
    )
    assert "1 component, 1 rule FAIL, " in out

    text = path.read_text().replace("hidden, cell, mean = state", "raise ValueError('no')")
    path.write_text(f"{text}\n\ntorch.backends.mkldnn.enabled = False\n")
    status, out, _ = call(capfd, "check", "my_own.py", "--verbose")
    assert status == 1
    assert out.count("got ValueError: no\n") == 1
    assert "       got the same as " in out
    assert 'my_own.py", line' in out
    change = f"importing plugin {path.resolve()} changed global state (torch.backends.mkldnn.enabled); restored"
    assert (
        "  FAIL import_changes_no_global_state: Importing the plugin and registering its components change no g" in out
    )
    assert f"       got {change}\n       set nothing for the whole process: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such.py"], "no_such.py: no such file"),
        (["no_such_module"], "plugin no_such_module could not be loaded: ModuleNotFoundError"),
        (["decoder/nothing"], "unknown decoder 'nothing'; registered: attention_lstm"),
        (["decodr/ctc"], "unknown kind 'decodr'; did you mean 'decoder'?"),
        (["decoder/ctc", "--set", "hiden=3"], "--set hiden: decoder 'ctc': unknown key"),
        (["decoder", "--set", "hidden_dim=3"], "--set: sets options of a single component, given "),
    ],
)
def test_check_refuses_invalid_arguments(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capfd, "check", *arguments)
    assert (status, message in err) == (2, True), err


def test_check_sets_options(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, "check", "decoder/lstm_ctc", "--set", "hidden_dim=8", "--set", "num_layers=2")
    assert status == 0, out + err
    assert "decoder lstm_ctc  (decoderbench " in out


def test_plugins_describes_one_component(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capfd, "plugins", "decoder/attention_lstm")
    assert status == 0
    for expected in (
        "decoder attention_lstm  (decoderbench ",
        "Bahdanau et al. 2015",
        '    wiring: "default" | "baek2019" = "default"\n        default: the cell reads an embedding',
        "    hidden_dim: int, >= 1 = 256\n        Hidden width of the cell",
    ):
        assert expected in out
    status, out, _ = call(capfd, "plugins", "bridge")
    assert out.count("\n    projection_dim: int, >= 1 (optional)\n") == 6
    status, _, err = call(capfd, "plugins", "lstm_cel")
    assert (status, "did you mean 'lstm_cell'?" in err) == (2, True)


def test_plugins_verbose_shows_origin_of_each_plugin(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    (path,) = new_component("bridge", "my_own", into=tmp_path)
    status, out, err = call(
        capfd, "plugins", "--verbose", "--plugins-dir", str(tmp_path), "-p", "no:decoderbench_plugins.decoders.ctc"
    )
    assert status == 0
    assert f"plugin my_own.py  ({path})\n    {path}: register_bridges\n" in out
    assert "plugin bundled  (decoderbench 0.1.0)\n" in out
    assert "plugin decoderbench_plugins.decoders.ctc  (disabled by -p no:" in out
    assert "disabled: plugin broken.py could not be loaded: ZeroDivisionError: division by zero (broken.py:1)" in err
    assert "Traceback" in err


def test_conformance_runs_in_pytest(tmp_path: Path) -> None:
    new_component("metric", "my_own", into=tmp_path)
    options = ("--pyargs", "decoderbench.testing.conformance", "--decoderbench", "my_own.py")
    assert run_pytest(tmp_path, *options) == {"passed": 13}


def test_check_finds_components_of_installed_distribution(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = new_component("metric", "my_own", into=tmp_path)
    site = install(tmp_path / "site", "dist-own", {"entry": "own_module"}, {"own_module": path.read_text()})
    monkeypatch.syspath_prepend(site)
    for name in ("entry", "own_module", "metric/my_own"):
        status, out, err = call(capfd, "check", name)
        assert status == 0, out + err
        assert "metric my_own  (dist-own 1.0)" in out
    for name, expected in (("own_module", {"passed": 13}), ("entry", {"passed": 13}), ("json", {"failed": 1})):
        assert run_pytest(tmp_path, "--pyargs", "decoderbench.testing.conformance", "--decoderbench", name) == expected
    assert "it registers nothing" in capfd.readouterr().out
