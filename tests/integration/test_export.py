"""A recognizer as an ONNX graph: it reads the strings that PyTorch reads, in batches and widths of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.running import TINY_PLUGIN
from helpers.support import DECODER_OPTIONS, REGISTRY
from helpers.training import train
from helpers.untrained import untrained
from numpy.typing import NDArray

from decoderbench import DataError, InfeasibleError, Registry, build_plugin_manager
from decoderbench.inference import export
from decoderbench.inference.export import export_onnx
from decoderbench.inference.loading import load_recognizer
from decoderbench.inference.trained import TrainedRecognizer

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

CANNOT = {
    "hybrid": "reads batches of 2 images only",  # read jointly, which these options ask for
    "parseq": "reads batches of 2 images only",
    "rnn_transducer": "sort",
}
"""Decoders that are no graph, and the reason."""


def noise(count: int, width: int) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(width)
    return [generator.integers(0, 256, (1, 32, width), dtype=np.uint8) for _ in range(count)]


def read_with_onnx(file: Path, images: list[NDArray[np.uint8]], width: int) -> list[str]:
    """Read images as somebody does who has the file alone."""
    session = onnxruntime.InferenceSession(str(file))
    rules = session.get_modelmeta().custom_metadata_map
    padded = [np.pad(image, ((0, 0), (0, 0), (0, width - image.shape[2])), mode="edge") for image in images]
    feed = {"images": np.stack(padded)}
    if json.loads(rules["image"])["resize"] == "keep":
        feed["columns"] = np.array([image.shape[2] for image in images])
    ids, lengths, _ = session.run(None, feed)
    charset = rules["charset"]
    return ["".join(charset[place] for place in row[:length]) for row, length in zip(ids, lengths, strict=True)]


def texts_of(reader: TrainedRecognizer, images: list[NDArray[np.uint8]]) -> list[str | None]:
    return [each.text for each in reader.transcribe([image[0] for image in images])]


@pytest.mark.parametrize("resize", ["keep", "stretch"])
def test_graph_alone_reads_what_predict_reads(resize: str, tmp_path: Path) -> None:
    reader, file = untrained("ctc", {}, resize=resize), tmp_path / "reader.onnx"
    found = export_onnx(reader, file, noise(5, 60 if resize == "keep" else 96), drawn=30)
    assert found.images == 35
    assert found.widths == ((48, 64, 96) if resize == "keep" else (96,))
    assert found.size == file.stat().st_size
    for width, count in ((48, 1), (64, 4), (96, 11)) if resize == "keep" else ((96, 7),):
        images = noise(count, width)
        texts = texts_of(reader, images)
        assert any(texts)
        assert read_with_onnx(file, images, width) == texts


@pytest.mark.slow
@pytest.mark.parametrize("decoder", REGISTRY["decoder"])
def test_every_decoder_is_exported_or_says_why_not(decoder: str, tmp_path: Path) -> None:
    options = DECODER_OPTIONS.get(decoder, [{}])[0]
    reader, file = untrained(decoder, options), tmp_path / "reader.onnx"
    if decoder in CANNOT:
        with pytest.raises(InfeasibleError, match=f"decoder '{decoder}' cannot be an ONNX graph.*{CANNOT[decoder]}"):
            export_onnx(reader, file, [], drawn=24)
        assert not file.exists()
        return
    found = export_onnx(reader, file, [], drawn=24)
    assert found.images == 24
    assert found.log_prob_error < 1e-3


def test_graph_that_reads_other_strings_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = untrained("ctc", {}), tmp_path / "reader.onnx"
    to_onnx = export._to_onnx

    def altered(*arguments: Any) -> bytes:
        with torch.no_grad():
            weight = reader.recognizer.decoder.get_parameter("head.weight")
            weight += torch.randn_like(weight)
        content = to_onnx(*arguments)
        with torch.no_grad():
            weight += torch.randn_like(weight)
        return content

    monkeypatch.setattr(export, "_to_onnx", altered)
    with pytest.raises(DataError, match="nothing is written"):
        export_onnx(reader, file, [], drawn=50)
    assert not file.exists()


def test_command_compares_on_the_kept_test_images(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN)]))
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    train(tiny, registry, tmp_path / "results")
    file, plugin = tmp_path / "reader.onnx", ("-p", str(TINY_PLUGIN))
    status, out, err = call(capfd, "export", str(tmp_path / "results"), "--onnx", str(file), "--check", "9", *plugin)
    assert status == 0, err
    assert f"onnx: {file}" in out
    assert "images 32 pixels wide: equal strings" in err
    kept = int(err.split("checked    ")[1].split(" ")[0]) - 9
    assert kept > 0
    reader = load_recognizer(tmp_path / "results", registry=registry, device="cpu")
    images = [image[:, :16, :32] for image in noise(6, 32)]
    assert read_with_onnx(file, images, 32) == texts_of(reader, images)


def test_export_without_the_extra_or_without_an_image_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from decoderbench import ConfigError

    reader = untrained("ctc", {}, resize="stretch")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ConfigError, match=r"export needs onnxruntime: pip install decoderbench\[onnx\]"):
            export_onnx(reader, tmp_path / "reader.onnx", [])
    with pytest.raises(ConfigError, match="there is no image to compare on"):
        export_onnx(reader, tmp_path / "reader.onnx", [], drawn=0)
    assert list(tmp_path.iterdir()) == []


def test_log_p_that_is_no_number_is_refused() -> None:
    reader = untrained("ctc", {}, resize="stretch")
    graph = export._GraphOfReader(reader)

    def run(feed: dict[str, Any]) -> list[Any]:
        ids, lengths, log_prob = (part.detach().numpy() for part in graph(*map(torch.from_numpy, feed.values())))
        return [ids, lengths, np.full_like(log_prob, np.nan)]

    with pytest.raises(DataError, match="log p of the ONNX graph differs by nan"):
        export._compare(graph, run, [(96, noise(2, 96))])


def test_given_image_that_cannot_be_read_is_an_error(
    tiny: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(build_plugin_manager([str(TINY_PLUGIN)]))
    tiny["grid"]["decoder"] = {"ctc": tiny["grid"]["decoder"]["ctc"]}
    train(tiny, registry, tmp_path / "results")
    (tmp_path / "bad.png").write_bytes(b"x")
    options = ("--onnx", str(tmp_path / "r.onnx"), "--images", str(tmp_path / "bad.png"), "-p", str(TINY_PLUGIN))
    status, _, err = call(capfd, "export", str(tmp_path / "results"), *options)
    assert status == 3
    assert "bad.png: cannot identify image" in err
    assert not (tmp_path / "r.onnx").exists()
