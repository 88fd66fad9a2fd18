"""The choice of a device, and how float32 is computed."""

import platform
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from decoderbench.errors import ConfigError
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.sources import package_digest
from decoderbench.training.cores import using_threads
from decoderbench.training.devices import choose_device, start_device, still_works, use_ieee_float32
from decoderbench.training.provenance import describe_arithmetic, describe_environment

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_choose_device_prefers_cuda_and_names_its_index() -> None:
    assert choose_device(None) == choose_device("cuda") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == choose_device("cpu:0") == CPU
    with pytest.raises(ConfigError, match="--device cuda:2: PyTorch finds devices 0 to 1 here"):
        choose_device("cuda:2")


def test_choose_device_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device(None) == CPU
    with pytest.raises(ConfigError, match="PyTorch finds no CUDA device here; choose another, or --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["mps", "xpu", "meta"])
def test_choose_device_refuses_devices_that_nobody_has_tested(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^--device {name}: is not supported, .*; use cpu or cuda$"):
        choose_device(name)


def test_start_device_reports_a_device_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: Any) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nmore lines")

    monkeypatch.setattr(torch.cuda, "set_device", refuse)
    start_device(CPU)
    with pytest.raises(
        ConfigError, match=r"^--device cuda:0: cannot be used here \(CUDA error: all CUDA.* busy\); try"
    ):
        start_device(CUDA)


@pytest.mark.parametrize(
    ("error", "works"),
    [(None, True), (torch.OutOfMemoryError("full"), True), (RuntimeError("device-side assert triggered"), False)],
)
def test_still_works_is_false_only_after_an_error_that_is_final(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, works: bool
) -> None:
    def synchronize(device: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert still_works(CUDA) is works
    assert still_works(CPU)


def test_ieee_float32_holds_for_products_convolutions_and_recurrences() -> None:
    with preserving_global_state():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        assert describe_arithmetic(CUDA)["float32"] == "products in tf32, convolutions in tf32, recurrences in tf32"
        use_ieee_float32()
        assert describe_arithmetic(CUDA)["float32"] == describe_arithmetic(CPU)["float32"] == "ieee"
        with torch.backends.cudnn.flags(enabled=False):  # raises where old and new settings contradict each other
            pass
        conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        conv.fp32_precision = "tf32"
        assert describe_arithmetic(CUDA)["float32"] == "convolutions in tf32"


def test_environment_on_cuda_names_versions_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    driver = SimpleNamespace(stdout="570.1.2\n")
    monkeypatch.setattr("decoderbench.training.provenance.subprocess.run", lambda *command, **options: driver)
    found = describe_environment(CUDA)
    assert {"machine": "a GPU", "cuda": "13.0", "cudnn": "91300", "compute_capability": "9.0"}.items() <= found.items()
    assert found["driver"]
    assert "cuda" not in describe_environment(CPU)
    assert describe_environment(CPU)["python"] == platform.python_version()


def test_environment_on_a_cpu_tells_instruction_set_sources_and_threads_apart_from_the_device() -> None:
    with using_threads(1):
        one = describe_environment(CPU)
    with using_threads(2):
        two = describe_environment(CPU)
        assert describe_arithmetic(CPU)["threads"] == "2"  # as it is at the end of a cell
    assert {name: (one[name], two[name]) for name in one if one[name] != two[name]} == {"threads": ("1", "2")}
    assert one["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert one["sources"] == package_digest()
    assert one["auto_precision"] in ("bfloat16", "float32")
