"""Files of others run no code, and names in them are no paths: what is read, what is written, and what is called."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.recording import make_cell, make_record
from helpers.training import train
from PIL import Image
from pydantic import ValidationError

import decoderbench
import decoderbench_plugins
from decoderbench import ComponentConfig, Dataset, Sample
from decoderbench.files.integrity import Artifact
from decoderbench.registry.registry import Registry
from decoderbench.training.checkpoint import Checkpoints

FORBIDDEN = {
    *(
        "eval",
        "exec",
        "compile",
        "os.system",
        "os.popen",
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "marshal.loads",
    ),
    *("shelve.open", "torch.load", "torch.jit.load", "torch.package.PackageImporter", "pd.read_pickle", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "shutil.unpack_archive", "dill.load", "dill.loads", "np.loadtxt", "extractall"),
}
FORBIDDEN_ARGUMENTS = {("shell", True), ("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}


def dotted_name(node: ast.expr) -> str:
    """Return the name of a function as it is called, such as `torch.load`; empty for the result of an expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("package", [decoderbench, decoderbench_plugins], ids=lambda package: package.__name__)
def test_package_calls_nothing_that_runs_code_from_files(package: Any) -> None:
    (folder,) = package.__path__
    found = []
    for file in sorted(Path(folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = dotted_name(node.func)
                arguments = {
                    (word.arg, word.value.value) for word in node.keywords if isinstance(word.value, ast.Constant)
                }
                if name in FORBIDDEN or name.endswith(".extractall") or arguments & FORBIDDEN_ARGUMENTS:
                    found.append(f"{file.relative_to(folder)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


class Runs:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


class RunsByEval(Runs):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return eval, (f"__import__('os').mkdir({str(self.canary)!r})",)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def tensors(header: Any, data: bytes = bytes(16), *, size: int | None = None) -> bytes:
    """Return a file in the format of safetensors with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def array_of(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("../../canary", "x")
    return buffer.getvalue()


STATE = b'{"dict": [["cell", "x"]]}\n'
HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda canary: pickle.dumps(Runs(canary)),
    "pickle, protocol 0": lambda canary: pickle.dumps(Runs(canary), protocol=0),
    "pickle of eval": lambda canary: pickle.dumps(RunsByEval(canary)),
    "nested pickle": lambda canary: pickle.dumps({"a": [pickle.dumps(Runs(canary)), Runs(canary)]}),
    "torch.save": lambda canary: saved({"weights": Runs(canary)}),
    "torch.save before 1.6": lambda canary: saved({"x": Runs(canary)}, _use_new_zipfile_serialization=False),
    "numpy object array": lambda canary: array_of(Runs(canary)),
    "zip": lambda canary: zipped(pickle.dumps(Runs(canary))),
    "zip bomb": lambda canary: zipped(bytes(10_000_000)),
    "no JSON": lambda canary: b"x" * 100,
    "no state": lambda canary: b"[1, 2]\n" + safetensors.torch.save({}),
    "unknown kind": lambda canary: b'{"eval": "1"}\n' + safetensors.torch.save({}),
    "missing tensor": lambda canary: b'{"tensor": "0", "strides": [1]}\n' + safetensors.torch.save({}),
    "deep JSON": lambda canary: b"[" * 100_000 + b"\n",
    "NaN for a size": lambda canary: (
        b'{"tensor": "0", "strides": [NaN]}\n' + safetensors.torch.save({"0": torch.ones(1)})
    ),
    "huge strides": lambda canary: (
        b'{"tensor": "0", "strides": [1099511627776]}\n' + safetensors.torch.save({"0": torch.ones(4)})
    ),
    "overlap": lambda canary: STATE + tensors({"a": tensor(0, 16, [4]), "b": tensor(8, 16, [2])}),
    "hole": lambda canary: STATE + tensors({"a": tensor(0, 4, [1]), "b": tensor(8, 16, [2])}),
    "past the end": lambda canary: STATE + tensors({"a": tensor(0, 1 << 40, [1 << 38])}),
    "negative offset": lambda canary: STATE + tensors({"a": tensor(-16, 0, [4])}),
    "overflow of a shape": lambda canary: STATE + tensors({"a": tensor(0, 16, [1 << 62, 1 << 62])}),
    "header of 200 MB": lambda canary: STATE + tensors({}, size=200_000_000),
    "header of 2^63": lambda canary: STATE + tensors({}, size=1 << 63),
    "duplicate names": lambda canary: (
        STATE
        + tensors(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
        )
    ),
    "unknown dtype": lambda canary: STATE + tensors({"a": tensor(0, 16, [4], "PY")}),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "with its own sha256"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_checkpoint_is_set_aside_by_name_and_runs_nothing(
    tmp_path: Path, kind: str, sealed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    canary = tmp_path / "canary"
    content = HOSTILE[kind](canary)
    header = json.dumps({"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}).encode() + b"\n"
    file = tmp_path / "checkpoint" / "current.checkpoint"
    file.parent.mkdir()
    file.write_bytes(header + content if sealed else content)
    assert Checkpoints(file.parent, make_cell(), {}, 60.0).load() is None
    assert not canary.exists()
    (line,) = caplog.messages
    assert line.startswith(f"{file}: damaged: ")
    assert line.endswith("; renamed to current.checkpoint.damaged")
    assert line.isprintable()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..", "", ".", "a\0b", "./x", "a//b"])
def test_record_with_an_artifact_outside_of_its_folder_is_refused(name: str) -> None:
    artifact = Artifact(size=1, sha256="0" * 64)
    assert make_record(make_cell(), artifacts={"weights.safetensors": artifact})
    with pytest.raises(ValidationError):
        make_record(make_cell(), artifacts={name: artifact})


@pytest.mark.parametrize(
    "use", ["../../x", "/etc", "..", "a\0b", "", "x" * 5000, "<b>", "a\nb", "\u202e", "ÄÖ/..", "C:\\x"]
)
def test_cell_id_is_a_plain_name_whatever_components_are_called(use: str) -> None:
    part = make_cell().decoder.model_copy(update={"use": use})
    cell = make_cell().model_copy(update=dict.fromkeys(("encoder", "bridge", "decoder"), part))
    assert set(cell.cell_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 1 <= len(cell.cell_id) < 130


class HostileKeys(Dataset):
    """Images whose keys are paths to other places."""

    name = "hostile_keys"

    class Config(ComponentConfig):
        pass

    def samples(self) -> list[Sample]:
        keys = [
            "../../up",
            "/abs/olute",
            "a/../../b",
            "..",
            ".",
            "a\\..\\c",
            "C:\\x",
            "a\nb",
            "\x1b[31m",
            "<b>",
            "n" * 300,
        ]
        splits: list[Any] = ["train"] * 16 + ["val"] * 8 + ["test"] * 8
        return [Sample(f"{keys[at % len(keys)]}/{at}", "01"[at % 2], split) for at, split in enumerate(splits)]

    def load_image(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (16, 32), dtype=np.uint8))

    def fingerprint(self) -> str:
        return "hostile"

    def label_source(self) -> str:
        return "\x1b[31m<script>"

    def split_source(self) -> str:
        return "| a"


_changes: list[str] | None = None
_hook_is_installed = False


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _changes is None:
        return
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _changes.append(arguments[0])
    if event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
        _changes.append(str(arguments[0]))
    if event in ("os.rename", "os.link", "os.symlink"):
        _changes.extend(map(str, arguments[:2]))
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.system"):
        _changes.append(f"{event} {arguments}")
    if event == "subprocess.Popen":
        _changes.append(" ".join(map(str, arguments[1])))


@contextmanager
def recording_changes() -> Iterator[list[str]]:
    """Collect the paths that this process changes in the block, and its connections and programs."""
    global _changes, _hook_is_installed
    if not _hook_is_installed:
        sys.addaudithook(_record)  # cannot be removed
        _hook_is_installed = True
    _changes = changes = []
    try:
        yield changes
    finally:
        _changes = None


def test_run_over_hostile_names_changes_only_its_results_and_the_cache_and_connects_to_nothing(
    tiny: dict[str, Any], tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, cache = tmp_path / "inner" / "results", tmp_path / "inner" / "cache"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("DECODERBENCH_CACHE", str(cache))
    tiny_registry["dataset"].add(HostileKeys, "test", "test")
    tiny["dataset"] = {"use": "hostile_keys"}
    tiny["training"] |= {"steps": 1}
    tiny["grid"]["decoder"] = {"../<b>": tiny["grid"]["decoder"]["ctc"]}
    with recording_changes() as changes:
        frame = train(tiny, tiny_registry, results)
    assert frame["status"].tolist() == ["done"]
    assert not tmp_path.is_relative_to(tempfile.gettempdir())
    allowed = str(results), str(cache), tempfile.gettempdir(), "/dev/null", "git "
    locks = {"turnstile", "room"}  # opened relative to the folder of locks
    assert {path for path in changes if not path.startswith(allowed)} <= locks | {str(results.parent), str(tmp_path)}
    assert [path.name for path in tmp_path.iterdir()] == ["inner"], "only a file without a name, to try a lock"
