"""From pixels to texts: the one path for the splits of a run and for images that are read later."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from decoderbench.data.resident_dataset import to_float
from decoderbench.labels import Charset
from decoderbench.model.memory import Memory
from decoderbench.model.recognizer import Recognizer
from decoderbench.model.stages import Hypotheses


def read_batch(
    recognizer: Recognizer, images: Tensor, columns: Tensor | None, *, beam_size: int
) -> tuple[Memory, Hypotheses]:
    """Return the memory of images and what the decoder reads in it, on the device of the images.

    Args:
        recognizer: in eval mode.
        images: (B, C, H, W) uint8.
        columns: (B,) int64, as `Recognizer.memory` takes them.
        beam_size: that of the decoder.
    """
    memory = recognizer.memory(to_float(images), columns)
    return memory, recognizer.decoder.transcribe(memory, beam_size=beam_size)


def read_and_score_batch(
    recognizer: Recognizer, images: Tensor, columns: Tensor | None, *, beam_size: int
) -> tuple[Memory, Hypotheses, Tensor]:
    """Return the same as `read_batch`, and -log p of each text, (B,) in nats."""
    memory = recognizer.memory(to_float(images), columns)
    return memory, *recognizer.decoder.transcribe_and_score(memory, beam_size=beam_size)


def copy_to_host(read: Hypotheses, nll: Tensor) -> tuple[Hypotheses, Tensor]:
    """Return the results of a batch on the CPU: the only part of an evaluation that waits for the device."""
    ended = None if read.ended is None else read.ended.cpu()
    return Hypotheses(read.ids.cpu(), read.lengths.cpu(), read.log_prob.cpu(), ended), nll.cpu()


def texts_of(read: Hypotheses, nll: Tensor, batch: int, charset: Charset, normalize: Callable[[str], str]) -> list[str]:
    """Return the texts of a batch, normalized like labels.

    Args:
        read: what the decoder has read, on the host.
        nll: (B,), of the texts or of the labels, on the host; its shape is checked with the others.
        batch: B, the number of images.
        charset: that of the ids.
        normalize: turns a text into the form in which labels are compared.

    Raises:
        ValueError: the decoder breaks the contract of `Hypotheses` or `nll`.
    """
    _refuse_misshapen(read, nll, batch, len(charset))
    rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
    return [normalize(charset.decode(ids[:length])) for ids, length in rows]


def _refuse_misshapen(read: Hypotheses, nll: Tensor, batch: int, num_characters: int) -> None:
    rows = [read.lengths, read.log_prob, nll, *([] if read.ended is None else [read.ended])]
    shapes = [tuple(tensor.shape) for tensor in rows]
    if read.ids.ndim != 2 or len(read.ids) != batch or set(shapes) != {(batch,)}:
        raise ValueError(
            f"the decoder must return ids (B, S) and lengths, log_prob, nll and ended (B,), B = {batch}; it returned "
            f"{tuple(read.ids.shape)} and {', '.join(map(str, shapes))}; decoderbench check finds the cause"
        )
    inside = torch.arange(read.ids.shape[1], device=read.ids.device) < read.lengths[:, None]  # (B, S)
    wrong_length = (read.lengths < 0) | (read.lengths > read.ids.shape[1])
    wrong_id = inside & ((read.ids < 0) | (read.ids >= num_characters))
    if bool(wrong_length.any()) or bool(wrong_id.any()):
        raise ValueError(
            f"a transcription must have ids from 0 to {num_characters - 1} and lengths from 0 to {read.ids.shape[1]}; "
            f"the decoder returned others; decoderbench check finds the cause"
        )
