"""The rules on what of a memory and of itself a decoder reads."""

from dataclasses import replace

import torch
from torch import Tensor

from decoderbench.labels import Labels
from decoderbench.model.memory import Memory
from decoderbench.model.stages import Decoder
from decoderbench.testing.assertions import expect, expect_identical
from decoderbench.testing.subjects.decoder import CHARSET, MAPS, TEXTS, DecoderSubject, align, as_given, transcribe


def padding_is_not_read(subject: DecoderSubject) -> None:
    """In eval mode results do not depend on frames that are not valid, unless the decoder says that it reads them."""
    decoder = subject.build_for_eval()
    if decoder.reads_padding:
        return
    spec = subject.memories[0]
    rows, columns = MAPS[spec.length] if subject.cls.needs_map else (1, spec.length)
    frames = torch.randn(len(TEXTS), spec.length, spec.dim)
    ends = torch.arange(len(TEXTS)) % columns + 1  # the columns of each image that are valid
    valid = (torch.arange(columns) < ends[:, None]).repeat(1, rows)
    memory = Memory(frames, valid, MAPS[spec.length] if subject.cls.needs_map else None)
    noise = replace(memory, frames=torch.where(valid[:, :, None], frames, 9 * torch.randn_like(frames)))
    expect_identical(
        "with other values in frames of padding",
        _read(subject, decoder, noise),
        _read(subject, decoder, memory),
        do="mask with `memory.valid`, or say reads_padding = True",
    )
    weights = align(decoder, memory, TEXTS)
    if weights is not None and spec.length > 1:
        inside = torch.arange(weights.shape[1]) < torch.tensor(list(map(len, TEXTS)))[:, None]
        lost = torch.where(inside[:, :, None] & ~valid[:, None], weights, 0.0).amax()
        expect(
            float(lost) == 0,
            got=f"an alignment of {float(lost):.3g} at a frame of padding",
            do="give the frames that are not valid a weight of 0",
        )


def training_only_parts_are_not_read(subject: DecoderSubject) -> None:
    """The parts that `training_only` returns, if any, are parts of the decoder that `loss` alone uses."""
    decoder = subject.build_for_eval()
    parts = list(decoder.training_only())
    if not parts:
        return
    own = set(map(id, decoder.parameters()))
    foreign = [parameter for part in parts for parameter in part.parameters() if id(parameter) not in own]
    expect(not foreign, got=f"{len(foreign)} parameters of other modules", do="return submodules of the decoder")
    memory = subject.draw_inputs(len(TEXTS))
    before = _read(subject, decoder, memory)
    with torch.no_grad():
        for part in parts:
            for parameter in part.parameters():
                parameter.fill_(float("nan"))
    after = _read(subject, decoder, memory)
    expect_identical(
        "with NaN as weights of these parts", after, before, do="return only parts that nll and transcribe do not use"
    )


def _read(subject: DecoderSubject, decoder: Decoder, memory: Memory | Tensor) -> list[Tensor]:
    """Return the nll of texts, their alignment if there is one, and the transcriptions in all ways."""
    given, labels = as_given(decoder, memory), Labels.from_texts(TEXTS, CHARSET)
    with torch.no_grad():
        results = [decoder.nll(given, labels)]
    weights = align(decoder, given, TEXTS)
    if weights is not None:
        inside = torch.arange(weights.shape[1]) < labels.lengths[:, None]
        results.append(torch.where(inside[:, :, None], weights, 0.0))
    for beam_size in subject.beam_sizes:
        read = transcribe(decoder, given, beam_size=beam_size)
        results += [read.log_prob, read.lengths, read.ids]
    return results
