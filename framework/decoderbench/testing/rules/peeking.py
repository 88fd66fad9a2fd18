"""The rule that a decoder does not peek at labels."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

from decoderbench.labels import Labels
from decoderbench.model.stages import Decoder
from decoderbench.testing.assertions import expect_identical
from decoderbench.testing.subjects.decoder import CHARSET, LABELS, DecoderSubject, as_given, transcribe

TEXTS = ["", "a", "b", "ab", "ba", "aab", "bba", "aba"]
LABELINGS = {
    "other labels": TEXTS,
    "permuted labels": TEXTS[3:] + TEXTS[:3],
    "constant labels": ["b"] * len(TEXTS),
    "longer labels": [(text + "aaa")[: LABELS.max_length] for text in TEXTS],
    "empty labels": [""] * len(TEXTS),
}
SEEDS = (0, 1, 2)


def transcription_ignores_labels(subject: DecoderSubject) -> None:
    """Transcriptions are bitwise identical whatever labels were trained on or scored before."""
    memory, beam_sizes = subject.draw_inputs(len(TEXTS)), subject.beam_sizes
    for seed, training in product(SEEDS, (False, True)):
        # Training may change state that depends on the memory, as spectral norm does: compare with other trained ones.
        expected = None if training else _transcribe_all_ways(subject.build_for_eval(seed), memory, beam_sizes)
        for what, texts in LABELINGS.items():
            decoder = subject.build_for_eval(seed)
            statistics = [value.clone() for value in _batch_norm_statistics(decoder)]
            labels = Labels.from_texts(texts, CHARSET, max_length=LABELS.max_length)
            torch.manual_seed(seed)  # for dropout
            torch.autograd.backward(decoder.train(training).loss(as_given(decoder, memory), labels).sum())
            for value, before in zip(_batch_norm_statistics(decoder), statistics, strict=True):
                value.copy_(before)  # normalization may learn from its batch
            result = _transcribe_all_ways(decoder.eval(), memory, beam_sizes)
            expected = result if expected is None else expected
            expect_identical(
                f"after an nll of {what} {'in training mode' if training else 'in eval mode'}, a transcription",
                result,
                expected,
                do="keep no labels: `transcribe` depends on memory and weights only",
            )


def _transcribe_all_ways(decoder: Decoder, memory: Tensor, beam_sizes: tuple[int, ...]) -> list[Tensor]:
    results = [transcribe(decoder, memory, beam_size=beam_size) for beam_size in beam_sizes]
    return [value for hypotheses in results for value in (hypotheses.log_prob, hypotheses.lengths, hypotheses.ids)]


def _batch_norm_statistics(decoder: nn.Module) -> Iterator[Tensor]:
    for part in decoder.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            yield from (value for value in part.buffers(recurse=False))
