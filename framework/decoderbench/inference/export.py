"""A trained recognizer as an ONNX graph that reads strings: encoder, bridge, decoder and its search in one file.

The graph takes pixels as `predict` prepares them and returns ids of the charset, lengths and log p of the search;
charset and image rules stand in its metadata. Decoding of files and resizing are outside. It is checked before it is
kept: the strings must be those of PyTorch. Needs the extra `onnx`.
"""

from __future__ import annotations

import io
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from decoderbench import __version__
from decoderbench.data.width_buckets import WIDTH_STEP, pad_right
from decoderbench.errors import ConfigError, DataError, InfeasibleError
from decoderbench.exception_text import describe_error
from decoderbench.files.storage import write_atomically
from decoderbench.inference.trained import TrainedRecognizer
from decoderbench.model.recognizer import Recognizer
from decoderbench.training.transcription import read_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = dict[str, NDArray[Any]]

BATCHES = (1, 3, 8)
"""Sizes of the batches by turns in which images are compared; the graph is made from a batch of another size."""

EXAMPLE_BATCH = 2
TIMED = 20
"""Single images that are timed."""

LOG_PROB_TOLERANCE = 1e-2
"""In nats; sums over many frames differ in their last digits between PyTorch and ONNX Runtime."""


@dataclass(frozen=True)
class Exported:
    """What was compared before a graph was kept.

    Attributes:
        images: number of images whose strings are equal.
        widths: the widths that they had.
        log_prob_error: the largest difference of log p, in nats.
        milliseconds: median time of a single image in ONNX Runtime, and in PyTorch.
        size: bytes of the file.
    """

    images: int
    widths: tuple[int, ...]
    log_prob_error: float
    milliseconds: tuple[float, float]
    size: int

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        ours = f"{self.milliseconds[0]:.1f} ms per image in ONNX Runtime, {self.milliseconds[1]:.1f} ms in PyTorch"
        return [
            f"checked    {self.images:,} images {', '.join(map(str, self.widths))} pixels wide: equal strings, log p "
            f"within {self.log_prob_error:.1g}",
            f"latency    {ours}, both on the CPU with the threads of this process",
        ]


def export_onnx(
    reader: TrainedRecognizer, file: Path, images: Iterable[NDArray[np.uint8]], *, drawn: int = 1000
) -> Exported:
    """Write a recognizer as an ONNX file, once the strings that it reads are those of PyTorch.

    Args:
        reader: on the CPU, in float32.
        file: the file to write.
        images: images (C, H, W) to compare on, as they are after resizing.
        drawn: number of further images, of random shapes, at all widths.

    Raises:
        ConfigError: the extra `onnx` is not installed, or there is nothing to compare on.
        InfeasibleError: the recognizer cannot be expressed as an ONNX graph.
        DataError: strings differ; nothing is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise ConfigError([f"export needs {error.name}: pip install decoderbench[onnx]"]) from None
    graph = _GraphOfReader(reader)
    content = _to_onnx(graph, reader)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _infeasible(reader, error) from error

    def run(feed: Feed) -> list[NDArray[Any]]:
        try:
            found: list[NDArray[Any]] = session.run(None, feed)
        except Exception as error:
            raise _infeasible(reader, error) from error
        return found

    compared = _compare(graph, run, _batches(reader, images, drawn))
    write_atomically(file, content)
    return Exported(**compared, milliseconds=_time(graph, run), size=len(content))


class _GraphOfReader(nn.Module):
    """From pixels to ids, lengths and log p.

    Attributes:
        varies: whether images have different widths, so that their columns are an input.
        widths: those that images are padded to.
    """

    def __init__(self, reader: TrainedRecognizer) -> None:
        super().__init__()
        image = reader.cell.image
        self.recognizer: Recognizer = reader.recognizer
        self.varies = image.resize == "keep"
        self.widths = widths_of(reader)
        self.shape = image.channels, image.height
        self.widest = image.width

    def forward(self, images: Tensor, columns: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        _, read = read_batch(self.recognizer, images, columns, beam_size=1)
        return read.ids, read.lengths, read.log_prob

    def feed(self, batch: Sequence[NDArray[np.uint8]], width: int) -> Feed:
        """Return the inputs for images (C, H, at most width)."""
        feed: Feed = {"images": np.stack([pad_right(image, width) for image in batch])}
        if self.varies:
            feed["columns"] = np.array([image.shape[2] for image in batch], dtype=np.int64)
        return feed


def widths_of(reader: TrainedRecognizer) -> tuple[int, ...]:
    """Return widths that images are padded to: those of the buckets, and where widths vary the largest one."""
    cell = reader.cell
    return tuple(sorted({*cell.bucket_widths, cell.image.width}))


def _to_onnx(graph: _GraphOfReader, reader: TrainedRecognizer) -> bytes:
    """Return the graph as the bytes of an ONNX file; the size of a batch, and the width if it varies, are free."""
    noise = np.random.default_rng(0).integers(0, 256, (EXAMPLE_BATCH, *graph.shape, graph.widest), dtype=np.uint8)
    inputs = {name: torch.from_numpy(value) for name, value in graph.feed(list(noise), graph.widest).items()}
    free: dict[str, dict[int, Any]] = {name: {0: torch.export.Dim("batch")} for name in inputs}
    step = math.gcd(WIDTH_STEP, graph.widest)
    if graph.varies and graph.widest > step:
        free["images"][3] = step * torch.export.Dim("width", min=1, max=graph.widest // step)
    failure: Exception | None = None
    for optimized in (True, False):  # the optimizer of onnxscript cannot take some graphs
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    graph, tuple(inputs.values()), dynamo=True, dynamic_shapes=free, input_names=list(inputs),
                    output_names=["ids", "lengths", "search_log_prob"], optimize=optimized, verbose=False,
                )  # fmt: skip
                assert program is not None
                program.model.metadata_props.update(_metadata(reader))
                _refuse_fixed(program.model.graph.inputs[0].shape, free["images"], reader)
                return bytes(program.model_proto.SerializeToString())
        except InfeasibleError:
            raise
        except Exception as error:  # noqa: BLE001 - torch raises many kinds, and a plugin's forward any
            failure = error
    assert failure is not None
    raise _infeasible(reader, failure) from failure


def _refuse_fixed(shape: Any, free: dict[int, Any], reader: TrainedRecognizer) -> None:
    """Raise `InfeasibleError` if the graph has made a free size of its input that of the example."""
    for dimension, what in ((0, "batches of {} images"), (3, "images {} pixels wide")):
        if dimension in free and isinstance(size := shape[dimension], int):
            reason = f"it reads {what.format(size)} only, those of the example"
            raise InfeasibleError(f"decoder {reader.cell.decoder.use!r} cannot be an ONNX graph: {reason}")


def _infeasible(reader: TrainedRecognizer, error: Exception) -> InfeasibleError:
    decoder = reader.cell.decoder.use
    return InfeasibleError(
        f"decoder {decoder!r} cannot be an ONNX graph, as far as torch.onnx goes: {describe_error(error)}"
    )


def _metadata(reader: TrainedRecognizer) -> dict[str, str]:
    cell = reader.cell
    return {
        "decoderbench": __version__,
        "row": cell.variant_title,
        "experiment": cell.experiment,
        "cell": cell.cell_id,
        "charset": cell.labels.charset,
        "image": json.dumps(cell.image.model_dump(mode="json")),
        "widths": json.dumps(list(cell.bucket_widths or (cell.image.width,))),
        "normalize": json.dumps(cell.labels.normalize.model_dump(mode="json")),
    }


def _batches(
    reader: TrainedRecognizer, images: Iterable[NDArray[np.uint8]], drawn: int
) -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
    """Yield images with the width to pad them to: those given, in their buckets, then drawn ones of every width."""
    widths = widths_of(reader)
    waiting: dict[int, list[NDArray[np.uint8]]] = {}
    number = 0
    for image in images:
        width = reader.width_of(image.shape[2])
        waiting.setdefault(width, []).append(image)
        if len(waiting[width]) == BATCHES[number % len(BATCHES)]:
            yield width, waiting.pop(width)
            number += 1
    yield from waiting.items()
    generator, left = np.random.default_rng(0), drawn
    while left > 0:
        width, size = widths[number % len(widths)], min(left, BATCHES[number % len(BATCHES)])
        yield width, [_draw(reader, width, generator) for _ in range(size)]
        number, left = number + 1, left - size


def _draw(reader: TrainedRecognizer, width: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return random shapes (C, H, W): coarse noise, enlarged, with fine noise on it."""
    image = reader.cell.image
    own = int(generator.integers(max(1, width // 2), width + 1)) if image.resize == "keep" else width
    cell = int(generator.integers(2, 9))
    size = image.channels, -(-image.height // cell), -(-own // cell)
    coarse = generator.integers(0, 200, size).repeat(cell, axis=1).repeat(cell, axis=2)[:, : image.height, :own]
    return np.asarray(coarse + generator.integers(0, 56, coarse.shape), dtype=np.uint8)


def _compare(
    graph: _GraphOfReader,
    run: Callable[[Feed], list[NDArray[Any]]],
    batches: Iterable[tuple[int, list[NDArray[np.uint8]]]],
) -> dict[str, Any]:
    """Return how many images were compared; raise `DataError` if the string of one differs."""
    count, error, widths = 0, 0.0, set[int]()
    for width, batch in batches:
        feed = graph.feed(batch, width)
        with torch.inference_mode():
            ids, lengths, log_prob = (part.numpy() for part in graph(*map(torch.from_numpy, feed.values())))
        found = run(feed)
        for row, length in enumerate(lengths.tolist()):
            if found[1][row] != length or (found[0][row][:length] != ids[row][:length]).any():
                raise DataError(
                    f"the ONNX graph reads other strings: {found[0][row][: found[1][row]].tolist()} instead of "
                    f"{ids[row][:length].tolist()} in image {count + row + 1}; nothing is written"
                )
        error = float(np.max([error, np.abs(found[2] - log_prob).max()]))
        if not error <= LOG_PROB_TOLERANCE:  # nor if it is not a number
            raise DataError(f"log p of the ONNX graph differs by {error:.2g} nats; nothing is written")
        count, widths = count + len(batch), widths | {width}
    if not count:
        raise ConfigError(["--check 0: there is no image to compare on; give images, or a number above 0"])
    return {"images": count, "widths": tuple(sorted(widths)), "log_prob_error": error}


def _time(graph: _GraphOfReader, run: Callable[[Feed], list[NDArray[Any]]]) -> tuple[float, float]:
    """Return the median milliseconds of one image of the widest width, in ONNX Runtime and in PyTorch, by turns."""
    feed = graph.feed([np.zeros((*graph.shape, graph.widths[-1]), dtype=np.uint8)], graph.widths[-1])
    tensors = [torch.from_numpy(value) for value in feed.values()]
    of_graph, of_torch = [], []
    with torch.inference_mode():
        for _ in range(TIMED):
            start = time.perf_counter()
            run(feed)
            middle = time.perf_counter()
            graph(*tensors)
            of_graph.append(middle - start)
            of_torch.append(time.perf_counter() - middle)
    return 1e3 * statistics.median(of_graph), 1e3 * statistics.median(of_torch)
