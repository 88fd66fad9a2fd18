"""The rule that a decoder sees no label when it reads."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

from decoderbench.labels import Labels
from decoderbench.model.stages import Decoder
from decoderbench.testing.rules import require_same_bits
from decoderbench.testing.subject import CHARSET, LABELS, DecoderUnderCheck, transcribe

TEXTS = ["", "a", "b", "ab", "ba", "aab", "bba", "aba"]
# The labels of a batch: as they are, permuted, replaced by a constant, made longer, made empty.
LABELINGS = {
    "other labels": TEXTS,
    "permuted labels": TEXTS[3:] + TEXTS[:3],
    "constant labels": ["b"] * len(TEXTS),
    "longer labels": [(text + "aaa")[: LABELS.max_length] for text in TEXTS],
    "empty labels": [""] * len(TEXTS),
}
SEEDS = (0, 1, 2)


def does_not_peek(subject: DecoderUnderCheck) -> None:
    """What `transcribe` reads is the same to the last bit whatever labels were trained on or scored before."""
    memory = subject.draw(len(TEXTS))
    for seed, training in product(SEEDS, (False, True)):
        # Training may change what belongs to the memory, as spectral norm does, so it is compared with itself.
        expected = None if training else _all_that_is_read(subject.built(seed), memory)
        for what, texts in LABELINGS.items():
            decoder = subject.built(seed)
            statistics = [value.clone() for value in _statistics(decoder)]
            labels = Labels.from_texts(texts, CHARSET, max_length=LABELS.max_length)
            torch.manual_seed(seed)  # of dropout
            torch.autograd.backward(decoder.train(training).nll(memory, labels).sum())
            for value, before in zip(_statistics(decoder), statistics, strict=True):
                value.copy_(before)  # a norm may learn from its batch
            read = _all_that_is_read(decoder.eval(), memory)
            expected = read if expected is None else expected
            require_same_bits(
                f"after an nll of {what} {'in training mode' if training else 'in eval mode'}, a transcription",
                read,
                expected,
                do="keep nothing of the labels: `transcribe` depends on memory and weights alone",
            )


def _all_that_is_read(decoder: Decoder, memory: Tensor) -> list[Tensor]:
    read = [transcribe(decoder, memory, beam_size=beam_size) for beam_size in (1, 3)]
    return [value for hypotheses in read for value in (hypotheses.log_prob, hypotheses.lengths, hypotheses.ids)]


def _statistics(decoder: nn.Module) -> Iterator[Tensor]:
    for part in decoder.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):
            yield from (value for value in part.buffers(recurse=False))
