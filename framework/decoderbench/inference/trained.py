"""TrainedRecognizer: a recognizer with its weights, charset and image rules, which turns images into texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from decoderbench.config.cell import Cell
from decoderbench.errors import DataError, DecoderBenchError
from decoderbench.inference.confidence import Confidence
from decoderbench.inference.image_batches import (
    DecodedImage,
    ImageBatch,
    ImageSource,
    batches_by_width,
    bucket_width,
    decode_images,
)
from decoderbench.kinds import AXES
from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.model.module_state import difference
from decoderbench.model.recognizer import Recognizer
from decoderbench.model.stages import Hypotheses
from decoderbench.registry.global_state import preserving_global_state
from decoderbench.registry.registry import Registry
from decoderbench.training.building import build_recognizer
from decoderbench.training.devices import use_ieee_float32
from decoderbench.training.start import load_tensors
from decoderbench.training.transcription import copy_to_host, read_and_score_batch, texts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

AHEAD = 2
"""Batches of images that are decoded while one is read."""


@dataclass(frozen=True)
class Reading:
    """What was read in one image.

    Attributes:
        text: the text, normalized like the labels of training; None if the image cannot be read.
        log_prob: log p(text | image) in nats, of the text that is returned: the `text_log_prob` of a run, defined alike
            for all decoders. None if the decoder does not know it.
        confidence: how probably the text is right, from 0 to 1, as `Confidence` says it; None without a `log_prob`.
        problem: why the image cannot be read; empty if it can.
        note: what a warning said while the image was decoded, or that it was squeezed; empty if there was neither.
        label_nll: -log p(label | image) in nats of a label that was given; None without one, and for one that the
            charset cannot spell.
    """

    text: str | None
    log_prob: float | None = None
    confidence: float | None = None
    problem: str = ""
    note: str = ""
    label_nll: float | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was read in one image, and where.

    Attributes:
        reading: the text; its `problem` if the image cannot be read, and nothing else then.
        pixels: (C, H, W) uint8, as the recognizer sees the image, padding included.
        weights: (S, W) float32, from which of W frames side by side each of S characters was read; None if the decoder
            cannot say, or the frames are in no order.
    """

    reading: Reading
    pixels: NDArray[np.uint8] | None = None
    weights: NDArray[np.float32] | None = None


class TrainedRecognizer:
    """A recognizer that reads images as those of the test split were read: the same decoding, sizes and padding.

    Args:
        cell: says what it consists of, and how images are prepared.
        recognizer: with its weights, on its device.
        confidence: what validation images say of its log p.

    Attributes:
        cell: the cell that was trained.
        recognizer: the network, in eval mode.
        confidence: turns a log p into a confidence.
    """

    def __init__(self, cell: Cell, recognizer: Recognizer, confidence: Confidence) -> None:
        if cell.image.resize == "keep" and not cell.bucket_widths:
            raise DataError(
                f"{cell.title}: was planned by an earlier version, which did not record the widths that images are "
                f"padded to; run the experiment again"
            )
        self.cell, self.recognizer, self.confidence = cell, recognizer.eval(), confidence
        self._charset = cell.labels.spec().charset
        self.device = next(recognizer.parameters()).device

    @classmethod
    def build(
        cls,
        cell: Cell,
        weights: bytes,
        confidence: Confidence,
        registry: Registry,
        device: torch.device,
        *,
        precision: str | None = None,
    ) -> TrainedRecognizer:
        """Build the recognizer of a cell and load its weights.

        Args:
            cell: says what it consists of.
            weights: the bytes of a safetensors file.
            confidence: what validation images say of its log p.
            registry: the components to build it from.
            device: where it reads.
            precision: as `TrainingOptions.precision`; by default that of the cell.

        Raises:
            DataError: the weights are not those of the components that are installed.
        """
        tensors = load_tensors(weights)
        if (without_values := _build_on_meta(cell, registry)) is not None:  # before memory is taken
            _refuse_misfit(cell, without_values, tensors)
        recognizer = build_recognizer(cell, registry, device, precision=precision, loaded=AXES)
        _refuse_misfit(cell, recognizer, tensors)
        recognizer.load_state_dict(tensors)
        return cls(cell, recognizer, confidence)

    @property
    def arithmetic(self) -> str:
        """The number format and the device, as in "bfloat16 on cpu"."""
        dtype = self.recognizer.dtype or torch.float32
        return f"{str(dtype).removeprefix('torch.')} on {self.device}"

    def transcribe(
        self,
        images: Iterable[ImageSource],
        *,
        beam_size: int | None = None,
        batch_size: int | None = None,
        executor: Executor | None = None,
    ) -> list[Reading]:
        """Return what is read in each image, in order; an image that cannot be read has a `problem`.

        Args:
            images: paths, images of Pillow, or arrays of pixels.
            beam_size: width of the beam; by default that of the cell.
            batch_size: images that are read at a time, if they have one width; by default that of the cell.
            executor: decodes the images; by default threads of this process. Many files are read faster with a
                `ProcessPoolExecutor`.
        """
        return list(self.transcribe_each(images, beam_size=beam_size, batch_size=batch_size, executor=executor))

    def transcribe_each(
        self,
        images: Iterable[ImageSource],
        *,
        beam_size: int | None = None,
        batch_size: int | None = None,
        executor: Executor | None = None,
        labels: Sequence[str] | None = None,
    ) -> Iterator[Reading]:
        """Yield the same as `transcribe` as soon as all images before are read; memory does not grow with the images.

        Where widths vary, an image waits for others of its width, so texts come in bursts. With `labels`, normalized
        ones, one per image, each reading has the nll of its label. They change no text.
        """
        options = self.cell.evaluation
        beam_size, batch_size = beam_size or options.beam_size, batch_size or options.batch_size
        if self.device.type == "cuda":
            use_ieee_float32()
        decoded = decode_images(images, self.cell.image, ahead=AHEAD * batch_size, executor=executor)
        done: dict[int, Reading] = {}
        following = 0
        for item in batches_by_width(decoded, self.width_of, batch_size):
            if isinstance(item, ImageBatch):
                done |= self._read(item, beam_size, labels)
            else:
                done[item.index] = Reading(None, problem=item.problem)
            while following in done:
                yield done.pop(following)
                following += 1

    @torch.inference_mode()
    def explain(self, image: ImageSource, *, beam_size: int | None = None) -> Explanation:
        """Return what is read in one image, as `transcribe` does, and where each character was read."""
        (decoded,) = decode_images([image], self.cell.image, ahead=1)
        (item,) = batches_by_width([decoded], self.width_of, 1)
        if not isinstance(item, ImageBatch):
            return Explanation(Reading(None, problem=item.problem))
        memory, read, nll = self._look(item, beam_size or self.cell.evaluation.beam_size)
        (reading,) = self._readings(item, memory, read, nll, None).values()
        return Explanation(reading, item.pixels[0], self._weights_of_columns(memory, read.labels()))

    def _weights_of_columns(self, memory: Memory, returned: Labels) -> NDArray[np.float32] | None:
        """Return the alignment of the first text, (S, W); over the height of a feature map it is a sum."""
        weights = self.recognizer.decoder.alignment(memory, returned)
        if weights is None or not (memory.shape or self.recognizer.bridge.memory.left_to_right):
            return None
        height, width = memory.shape or (1, memory.length)
        of_columns = weights[0].float().reshape(-1 if len(weights[0]) else 0, height, width).sum(dim=1)
        found: NDArray[np.float32] = of_columns.cpu().numpy()
        return found

    def width_of(self, columns: int) -> int:
        """Return the width to which an image of so many columns is padded."""
        image = self.cell.image
        return bucket_width(columns, self.cell.bucket_widths, image) if image.resize == "keep" else image.width

    @torch.inference_mode()
    def _read(self, batch: ImageBatch, beam_size: int, labels: Sequence[str] | None) -> dict[int, Reading]:
        """Return what is read in each image of a batch, by its index."""
        return self._readings(batch, *self._look(batch, beam_size), labels)

    def _readings(
        self, batch: ImageBatch, memory: Memory, on_device: Hypotheses, scores: Tensor, labels: Sequence[str] | None
    ) -> dict[int, Reading]:
        read, nll = copy_to_host(on_device, scores)
        texts = texts_of(read, nll, len(batch.images), self._charset, self.cell.labels.normalize)
        of_labels: list[float | None] = [None] * len(batch.images)
        if labels is not None:
            of_labels = self._nll_of_labels(memory, [labels[image.index] for image in batch.images])
        rows = zip(batch.images, texts, nll.tolist(), of_labels, strict=True)
        return {image.index: self._reading(image, text, score, of_label) for image, text, score, of_label in rows}

    def _look(self, batch: ImageBatch, beam_size: int) -> tuple[Memory, Hypotheses, Tensor]:
        """Return the memory of a batch, what the decoder reads in it, and -log p of these texts, (B,) in nats."""
        images = torch.from_numpy(batch.pixels).to(self.device)
        varies = self.cell.image.resize == "keep"
        columns = torch.from_numpy(batch.columns).to(self.device) if varies else None
        return read_and_score_batch(self.recognizer, images, columns, beam_size=beam_size)

    def _reading(self, image: DecodedImage, text: str, nll: float, label_nll: float | None) -> Reading:
        log_prob = -nll if math.isfinite(nll) else None
        confidence = None if log_prob is None else self.confidence(log_prob)
        return Reading(text, log_prob, confidence, note=image.note, label_nll=label_nll)

    def _nll_of_labels(self, memory: Memory, labels: Sequence[str]) -> list[float | None]:
        """Return -log p of each label that can be spelled."""
        longest = self.cell.labels.max_length
        can = [not self._charset.missing(label) and len(label) <= longest for label in labels]
        spelled = [label if able else "" for label, able in zip(labels, can, strict=True)]
        encoded = Labels.from_texts(spelled, self._charset, device=self.device)
        nll = self.recognizer.decoder.nll(memory, encoded).tolist()
        return [score if able and math.isfinite(score) else None for score, able in zip(nll, can, strict=True)]


def _build_on_meta(cell: Cell, registry: Registry) -> Recognizer | None:
    """Return the recognizer of a cell without values; None if a component cannot be built so."""
    try:
        with preserving_global_state(), torch.device("meta"):
            return build_recognizer(cell, registry, torch.device("meta"), precision="float32", loaded=AXES)
    except DecoderBenchError:
        raise
    except Exception:  # noqa: BLE001 - a plugin's constructor may raise anything where there are no values
        return None


def _refuse_misfit(cell: Cell, recognizer: Recognizer, tensors: Mapping[str, Tensor]) -> None:
    """Raise `DataError` if tensors are not those of a recognizer, by name and shape."""
    if why := difference(recognizer, {"weights": tensors, "buffers": {}}):
        raise DataError(
            f"{cell.title}: its weights do not fit the components that are installed: {why}; install the versions that "
            f"it was trained with"
        )
