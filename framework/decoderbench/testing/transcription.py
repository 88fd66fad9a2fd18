"""The rules of `transcribe`."""

from itertools import product

import torch

from decoderbench.testing.rules import TOLERANCE, require, require_close
from decoderbench.testing.subject import (
    CHARSET,
    DecoderUnderCheck,
    nll_of,
    nll_of_each,
    texts_of,
    texts_up_to,
    transcribe,
)

BEAM_SIZES = (1, 3)
IMAGES = 8


def keeps_to_its_charset(subject: DecoderUnderCheck) -> None:
    """`transcribe` gives ids of the charset, 0 past an end, and no more characters than the family allows."""
    memory = subject.draw(IMAGES)
    for seed, beam_size in product(range(4), BEAM_SIZES):
        read = transcribe(subject.built(seed), memory, beam_size=beam_size)
        ids, lengths, log_prob = read.ids, read.lengths, read.log_prob
        require(
            ids.dim() == 2
            and (*ids.shape[:1], *lengths.shape, *log_prob.shape) == (IMAGES,) * 3
            and (ids.dtype, lengths.dtype, log_prob.dtype) == (torch.int64, torch.int64, torch.float32),
            got=f"ids {ids.dtype} {tuple(ids.shape)}, lengths {lengths.dtype} {tuple(lengths.shape)}, "
            f"log_prob {log_prob.dtype} {tuple(log_prob.shape)} for {IMAGES} images",
            do="return ids (B, S) and lengths (B,) in int64, log_prob (B,) in float32",
        )
        shortest, longest = int(lengths.min()), int(lengths.max())
        require(
            shortest >= 0 and longest <= min(subject.longest, ids.shape[1]),
            got=f"lengths from {shortest} to {longest} in ids {tuple(ids.shape)}",
            do=f"end every text after at most {subject.longest} characters",
        )
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        legal = torch.where(inside, (ids >= 0) & (ids < len(CHARSET)), ids == 0)
        require(
            bool(legal.all()),
            got=f"ids {ids[~legal].tolist()} for a charset of {len(CHARSET)}",
            do="keep blank, start and end to yourself, and fill with 0 past an end",
        )
        require(
            bool((log_prob.isfinite() & (log_prob <= TOLERANCE)).all()),
            got=f"log_prob {log_prob.tolist()}",
            do="give the logarithm of a probability",
        )


def reads_each_image_alone(subject: DecoderUnderCheck) -> None:
    """In eval mode an image is transcribed alone as in a batch, whatever the beam."""
    decoder, memory = subject.built(), subject.draw(IMAGES)
    for beam_size in BEAM_SIZES:
        first = transcribe(decoder, memory, beam_size=beam_size)
        alone = [transcribe(decoder, image[None], beam_size=beam_size) for image in memory]
        log_prob = torch.cat([single.log_prob for single in alone])
        require_close("in a batch a log_prob of", first.log_prob, log_prob, do="mix nothing across the batch")
        texts = [text for single in alone for text in texts_of(single)]
        require(texts_of(first) == texts, got=f"{texts_of(first)}, alone {texts}", do="mix nothing across the batch")


def claims_what_it_scores(subject: DecoderUnderCheck) -> None:
    """`log_prob` is at most -nll of the text that was read, and just that in the autoregressive family."""
    for seed, beam_size in product(range(2), BEAM_SIZES):
        decoder, memory = subject.built(seed), subject.draw(IMAGES)
        read = transcribe(decoder, memory, beam_size=beam_size)
        scored = -nll_of(decoder, memory, texts_of(read))
        require_close(
            f"with beam_size = {beam_size} a log_prob of",
            read.log_prob if subject.is_autoregressive else read.log_prob.maximum(scored),
            scored,
            do="let `transcribe` sum the same log probabilities as `nll`, the end of the text included",
        )


def finds_the_best_text(subject: DecoderUnderCheck) -> None:
    """A beam wider than the number of texts finds the best of all texts."""
    texts = texts_up_to(subject.longest)
    for seed in range(2):
        decoder, memory = subject.built(seed), subject.draw(4)
        read = transcribe(decoder, memory, beam_size=len(texts) + 1)
        least, rows = nll_of_each(decoder, memory, texts).min(dim=1)
        require_close(
            f"{texts_of(read)} for {[texts[row] for row in rows.tolist()]}, a log_prob of",
            read.log_prob,
            -least,
            do="search as the family does: leave `transcribe` to it",
        )
