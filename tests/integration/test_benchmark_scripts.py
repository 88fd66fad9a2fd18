"""The benchmarks that measure a device, small and on a CPU, and that their checks can fail."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import gpu_env
import gpu_failures
import gpu_smoke
import pytest
import torch
from figures import Figures
from helpers.host_waits import place_of_wait, recording_host_waits, refusing_host_waits
from helpers.recurrences import recording_recurrences
from helpers.support import REGISTRY
from peak_memory import peak_mb
from smoke_subjects import Subject, labels_on, subjects
from torch import nn

from decoderbench.registry.global_state import preserving_global_state

CPU = torch.device("cpu")
BENCHMARKS = Path(gpu_smoke.__file__).parent
PARTS = {
    "gpu_smoke.py": "smoke",
    "gpu_failures.py": "failures",
    "gpu_sync.py": "sync",
    "gpu_sharing.py": "sharing",
    "training_step.py": "step",
    "recognizers.py": "recognizers",
    "decoders.py": "decoders",
    "lstm_unrolled.py": "lstm_unrolled",
    "open_cache.py": "open_cache",
    "jobs.py": "jobs",
    "coverage.py": "coverage",
    "trained_folds.py": "trained_folds",
    "predict.py": "predict",
    "cluster.py": "cluster",
}


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Restore how float32 is computed, which the benchmarks set for their process."""
    with preserving_global_state():
        yield


MINUTES_LONG = ("cluster.py", "jobs.py")


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    return Figures("test", CPU, tmp_path / "figures.jsonl")


def subject(kind: str, name: str) -> Subject:
    return next(each for each in subjects(small=True) if (each.kind, each.case[0]) == (kind, name))


@pytest.mark.parametrize(
    "script",
    [pytest.param(one, marks=pytest.mark.chaos if one in MINUTES_LONG else pytest.mark.slow) for one in PARTS],
)
def test_script_writes_figures_with_unique_names_and_ends_with_status_0(script: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    command = [sys.executable, str(BENCHMARKS / script), "--device", "cpu", "--small", "--out", str(out)]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["part"] for line in lines} == {PARTS[script]}
    names = [line["name"] for line in lines]
    assert len(names) == len(set(names)) > 2
    assert not [line["name"] for line in lines if line["ok"] is False]
    assert [path.name for path in tmp_path.iterdir()] == ["figures.jsonl"]


def test_every_decoder_has_a_row_of_its_cost() -> None:
    assert {row.use for row in decoders.ROWS} == set(REGISTRY["decoder"])
    assert len({row.label for row in decoders.ROWS}) == len(decoders.ROWS)


def test_peak_memory_is_the_most_that_a_call_holds_at_a_time() -> None:
    kept = torch.ones(250_000)  # 1 MB, which was there before

    def hold_3_mb_twice() -> None:
        for _ in range(2):
            both = torch.cat([kept, kept])
            del both
            torch.cat([kept, kept, kept])

    assert peak_mb(CPU, hold_3_mb_twice) == pytest.approx(3, abs=0.01)


def test_numbers_by_which_a_device_is_known_are_not_written() -> None:
    lines = ["Product Name : NVIDIA H200", "Serial Number : 1", "GPU UUID : GPU-2", "Board ID : 0x3", "ECC Mode"]
    assert gpu_env.without_numbers_of_the_device(lines) == ["Product Name : NVIDIA H200", "ECC Mode"]


@pytest.mark.slow
def test_failures_are_checked_by_the_command_too(tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    command = [sys.executable, str(BENCHMARKS / "gpu_failures.py"), "--device", "cpu", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    lines = {line["name"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert [lines[f"assert, {executor}: exit status"]["value"] for executor in ("local", "inline")] == [1, 1]
    assert lines["assert: no cell is trained twice"]["ok"]


@pytest.fixture
def moves_alter_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is moved to the device computes something else there."""
    move = nn.Module.to

    def altered(module: nn.Module, *where: Any, **options: Any) -> nn.Module:
        if CPU in where:
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
        return move(module, *where, **options)

    monkeypatch.setattr(nn.Module, "to", altered)


COMPONENTS = [("rectifier", "tps"), ("encoder", "crnn_vgg"), ("bridge", "bilstm"), ("decoder", "lstm_ctc")]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_smoke_passes_a_component_that_computes_the_same(kind: str, name: str, figures: Figures) -> None:
    gpu_smoke.compare_all(figures, [subject(kind, name)])
    assert figures.failed == []


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
@pytest.mark.usefixtures("moves_alter_weights")
def test_smoke_names_a_component_that_computes_something_else(
    kind: str, name: str, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = subject(kind, name)
    gpu_smoke.compare_all(figures, [chosen])
    assert f"{kind} in ieee: largest error of the outputs" in figures.failed
    assert f"{kind} in ieee: largest error of the gradients" in figures.failed
    assert f"outputs of {chosen.title} in ieee" in capsys.readouterr().out


@pytest.mark.usefixtures("moves_alter_weights")
def test_smoke_notices_other_transcriptions(figures: Figures) -> None:
    gpu_smoke.compare_transcriptions(figures, [subject("decoder", "lstm_cell")])
    assert figures.failed == ["transcriptions: decoders that differ beyond a near tie"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_error_of_a_value_that_is_not_finite_is_infinite(value: float) -> None:
    assert gpu_smoke.error_of(torch.tensor([1.0, value]), torch.ones(2)) == float("inf")


@pytest.mark.slow
def test_failures_notice_a_cell_that_did_not_fail(figures: Figures, tmp_path: Path) -> None:
    data = gpu_failures.experiment_of({"before": "planted_ctc", "after it": "ctc"})
    gpu_failures.run_here(data, tmp_path, CPU)
    gpu_failures.check_records(figures, tmp_path)
    assert figures.failed == ["assert, local: statuses"]


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "ends"), [("local", False), ("inline", True)])
def test_only_an_inline_run_on_cuda_is_to_end_with_a_failed_assert(
    executor: str, ends: bool, figures: Figures, tmp_path: Path
) -> None:
    data = gpu_failures.experiment_of({"before": "planted_ctc", "out of range": "out_of_range", "after it": "ctc"})
    gpu_failures.run_here(data, tmp_path, CPU)
    figures.device = torch.device("cuda")
    gpu_failures.check_records(figures, tmp_path, executor)
    assert figures.failed == (["assert, inline: statuses"] if ends else [])


def test_host_waits_are_refused_everywhere_but_in_the_ctc_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    decoder, memory = subject("decoder", "ctc").build(), subject("decoder", "ctc").inputs()
    with refusing_host_waits(torch.device("cuda")):
        nll = decoder.nll(memory, labels_on(CPU))
        assert modes == ["error", "default", "error"]
        nll.sum().backward()
        assert modes == ["error", "default", "error", "default", "error"]
    assert modes[5:] == ["default"]
    decoder.nll(memory, labels_on(CPU)).sum().backward()
    assert len(modes) == 6


def test_host_waits_are_recorded_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(mode: str) -> None:
        if mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", wait)
    with recording_host_waits(torch.device("cuda")) as places:
        for _ in range(2):
            wait("warn")
        warnings.warn("something else", stacklevel=1)
    assert len(places) == 3
    assert {place.partition(":")[0] for place in places} == {"test_benchmark_scripts.py"}


def test_place_of_a_refused_wait_is_outside_torch() -> None:
    class Waits(nn.Module):
        def forward(self) -> None:
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError) as caught:
        Waits()()
    assert (place_of_wait(caught.value) or "").startswith("test_benchmark_scripts.py")
    assert place_of_wait(RuntimeError("another error")) is None


def test_recurrences_are_recorded_with_their_number_format() -> None:
    layer = nn.LSTM(2, 3)
    with recording_recurrences(CPU) as formats:
        layer(torch.ones(1, 1, 2))
        nn.GRU(2, 3).double()(torch.ones(1, 1, 2).double())
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.ones(1, 1, 2, dtype=torch.bfloat16))
    layer(torch.ones(1, 1, 2))
    assert formats == ["float32", "float64", "bfloat16 in autocast"]
