"""Whatever a component does while its cell runs costs at most this cell: exceptions of any kind, global state."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import call
from helpers.distributions import DECODER
from helpers.running import TINY_PLUGIN, to_toml
from helpers.training import add_variant, train

from decoderbench import hookimpl
from decoderbench.data.image_reading import read_image
from decoderbench.errors import DataError, PendingCellsError
from decoderbench.exception_text import MAX_TEXT
from decoderbench.registry.registry import Registry
from decoderbench.scalars import to_number
from decoderbench_plugins.decoders.lstm_ctc import LSTMCTC


class Mute(BaseException):
    def __str__(self) -> str:
        raise SystemExit


RAISED: dict[str, BaseException] = {
    "mute": Mute(),
    "generator": GeneratorExit(),
    "exits": SystemExit(0),
    "surrogate": ValueError("a\udc80\x1b[31m"),
    "long": ValueError("x" * 5_000_000),
    "ends": PendingCellsError("of its own"),
}
REASONS = {
    "mute": "Mute, whose text cannot be shown (test_cell_faults.py:",
    "generator": "GeneratorExit (test_cell_faults.py:",
    "exits": "SystemExit: 0 (test_cell_faults.py:",
    "surrogate": r"ValueError: a\udc80\x1b[31m (test_cell_faults.py:",
    "long": f"ValueError: {'x' * MAX_TEXT}... (5,000,000 characters) (test_cell_faults.py:",
    "ends": "PendingCellsError: of its own; give the same command again to go on (test_cell_faults.py:",
}


def test_any_exception_fails_its_own_cell_with_a_bounded_printable_reason(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path
) -> None:
    for name, error in RAISED.items():

        def nll(self: Any, memory: Any, labels: Any, error: BaseException = error) -> Any:
            raise error from error

        add_variant(tiny_registry, "decoder", LSTMCTC, name, nll=nll)
    tiny["training"]["steps"] = 1
    tiny["grid"]["decoder"] = {name: {"use": name} for name in RAISED} | {"ctc": tiny["grid"]["decoder"]["ctc"]}
    frame = train(tiny, tiny_registry, tmp_path, report=True).set_index("decoder")
    assert frame["status"].to_dict() == dict.fromkeys(RAISED, "failed") | {"ctc": "done"}
    for name, reason in REASONS.items():
        assert frame.loc[name, "reason"].startswith(reason)
        assert frame.loc[name, "reason"].isprintable()
    assert (tmp_path / "report.md").stat().st_size < 50_000
    assert (tmp_path / "tables/cells.csv").stat().st_size < 20_000
    whole = tmp_path / "cells" / frame.loc["long", "cell_id"] / "traceback.txt"
    assert "x" * 5_000_000 in whole.read_text()


def leave_changed() -> None:
    """Change what other cells depend on."""
    left.append(torch.autocast("cpu", torch.bfloat16))
    left[-1].__enter__()
    torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: output * 1.5 if isinstance(output, torch.Tensor) else None
    )
    torch.nn.functional.log_softmax = lambda values, *unused, **more: values
    torch.set_default_dtype(torch.float64)
    os.umask(0o077)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.use_deterministic_algorithms(True)


left: list[Any] = []


def test_cell_that_changes_global_state_is_named_once_and_changes_no_other_cell(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(self: Any, config: Any, memory: Any, labels: Any) -> None:
        LSTMCTC.__init__(self, config, memory, labels)
        leave_changed()

    mask = os.umask(0o022)
    os.umask(mask)
    add_variant(tiny_registry, "decoder", LSTMCTC, "changes", __init__=change)
    ctc = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    alone = train(tiny | {"grid": tiny["grid"] | {"decoder": ctc}}, tiny_registry, tmp_path / "alone")
    assert "changed global state" not in caplog.text
    tiny["grid"]["decoder"] = {"bad": {"use": "changes"}, **ctc}
    beside = train(tiny, tiny_registry, tmp_path / "beside").set_index("decoder")
    for name in ("exact_match", "cer", "nats_per_char"):
        assert beside.loc["ctc", name] == alone.loc[0, name]
    said = [line for line in caplog.messages if "changed global state" in line]
    assert said == [
        "tiny / columns / bad / seed 0 changed global state (functions: torch.nn.functional.log_softmax, the default "
        "dtype, deterministic algorithms, the hooks of all modules and optimizers: forward_hooks, autocast on cpu, "
        "open regions of autocast, the signal handlers: SIGTERM, the umask); restored"
    ]
    assert os.umask(mask) == mask
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_observer_that_changes_global_state_or_its_arguments_changes_no_number(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Meddler:
        @hookimpl
        def cell_started(self, cell: Any) -> None:
            torch.set_default_dtype(torch.float64)
            cell.decoder.options.clear()
            sys.exit(0)

        @hookimpl
        def cell_validated(self, scores: Any) -> None:
            torch.manual_seed(0)
            scores.clear()

    before = train(tiny, tiny_registry, tmp_path / "before", select="ctc")
    tiny_registry.plugins.add(Meddler(), "meddler")
    after = train(tiny, tiny_registry, tmp_path / "after", select="ctc")
    assert after.loc[0, "nats_per_char"] == before.loc[0, "nats_per_char"]
    assert "cell_started of plugin meddler changed global state (the default dtype); restored" in caplog.messages
    assert "plugin meddler raised in cell_started: SystemExit: 0 (test_cell_faults.py" in caplog.text
    said = "cell_validated of plugin meddler changed global state (the seed of torch, the random state of torch)"
    assert f"{said}; restored" in caplog.messages


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), Mute()], ids=lambda error: type(error).__name__)
def test_dataset_that_exits_while_it_loads_an_image_does_not_end_the_command(error: BaseException) -> None:
    class Exits:
        def load_image(self, index: int) -> Any:
            raise error

    exits: Any = Exits()
    with pytest.raises(DataError, match=type(error).__name__):
        read_image(exits, 3)


def test_number_whose_class_exits_is_no_number() -> None:
    class Odd(float):
        def __repr__(self) -> str:
            raise SystemExit

        __float__ = __repr__  # type: ignore[assignment]

    with pytest.raises(ValueError, match="an object of type Odd is not a number"):
        to_number(Odd("1.5"))


def test_plugin_that_exits_in_the_check_of_its_options_does_not_end_the_command_with_status_0(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin, experiment = tmp_path / "exits.py", tmp_path / "tiny.toml"
    check = "class Config(ComponentConfig):\n        def model_post_init(self, context): raise SystemExit(0)\n"
    plugin.write_text(DECODER.format(name="exits").replace("class Config(ComponentConfig):\n", check))
    tiny["grid"]["decoder"] = {"exits": {"use": "exits"}}
    experiment.write_text(to_toml(tiny))
    status, _, err = call(capfd, "run", str(experiment), "-p", str(TINY_PLUGIN), "-p", str(plugin))
    assert (status, "a plugin ended the command: SystemExit: 0 (exits.py:" in err) == (2, True), err


def test_run_whose_records_disappear_ends_with_status_4(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin, experiment, results = tmp_path / "deletes.py", tmp_path / "tiny.toml", tmp_path / "out"
    plugin.write_text(
        "from pathlib import Path\nfrom decoderbench import hookimpl\n"
        "@hookimpl\ndef cell_finished(cell):\n"
        f"    (Path({str(results)!r}) / 'cells' / cell.cell_id / 'result.json').unlink()\n"
    )
    tiny["training"]["steps"] = 1
    experiment.write_text(to_toml(tiny))
    command = ["run", str(experiment), "-p", str(TINY_PLUGIN), "--results", str(results), "--device", "cpu", "-k"]
    status, _, err = call(capfd, *command, "ctc", "-p", str(plugin))
    assert status == 4
    assert "the records of 1 cells are gone again, or cannot be read; 0 of 1 cells have results" in err
    status, out, err = call(capfd, *command, "ctc")
    assert status == 0, out + err  # the other cells were not asked for
