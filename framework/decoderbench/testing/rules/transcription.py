"""The rules for `transcribe`."""

from itertools import product

import torch

from decoderbench.testing.assertions import TOLERANCE, RuleSkipped, expect, expect_close
from decoderbench.testing.subjects.decoder import (
    CHARSET,
    DecoderSubject,
    nll_of,
    nll_of_all,
    texts_of,
    texts_up_to,
    transcribe,
    transcribe_and_score,
)

IMAGES = 8


def transcriptions_are_valid(subject: DecoderSubject) -> None:
    """`transcribe` returns ids of the charset, 0 past the end, and no more characters than the family allows."""
    memory = subject.draw_inputs(IMAGES)
    for seed, beam_size in product(range(4), subject.beam_sizes):
        read = transcribe(subject.build_for_eval(seed), memory, beam_size=beam_size)
        ids, lengths, log_prob = read.ids, read.lengths, read.log_prob
        expect(
            ids.dim() == 2
            and (*ids.shape[:1], *lengths.shape, *log_prob.shape) == (IMAGES,) * 3
            and (ids.dtype, lengths.dtype, log_prob.dtype) == (torch.int64, torch.int64, torch.float32),
            got=f"ids {ids.dtype} {tuple(ids.shape)}, lengths {lengths.dtype} {tuple(lengths.shape)}, "
            f"log_prob {log_prob.dtype} {tuple(log_prob.shape)} for {IMAGES} images",
            do="return ids (B, S) and lengths (B,) in int64, log_prob (B,) in float32",
        )
        shortest, longest = int(lengths.min()), int(lengths.max())
        expect(
            shortest >= 0 and longest <= min(subject.max_text_length, ids.shape[1]),
            got=f"lengths from {shortest} to {longest} in ids {tuple(ids.shape)}",
            do=f"end every text after at most {subject.max_text_length} characters",
        )
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        valid = torch.where(inside, (ids >= 0) & (ids < len(CHARSET)), ids == 0)
        expect(
            bool(valid.all()),
            got=f"ids {ids[~valid].tolist()} for a charset of {len(CHARSET)}",
            do="do not return blank, start or end, and fill with 0 past the end",
        )
        expect(
            bool((log_prob.isfinite() & (log_prob <= TOLERANCE)).all()),
            got=f"log_prob {log_prob.tolist()}",
            do="return the logarithm of a probability",
        )
        ended = read.ended
        expect(
            ended is None or (ended.shape == (IMAGES,) and ended.dtype == torch.bool),
            got=f"ended {getattr(ended, 'dtype', ended)} of shape {tuple(getattr(ended, 'shape', ()))}",
            do="return ended as (B,) bool, or None if texts have no end of their own",
        )


def transcription_matches_single_images(subject: DecoderSubject) -> None:
    """In eval mode the transcription of a batch equals those of its images one by one, with and without a beam."""
    decoder, memory = subject.build_for_eval(), subject.draw_inputs(IMAGES)
    for beam_size in subject.beam_sizes:
        together = transcribe(decoder, memory, beam_size=beam_size)
        alone = [transcribe(decoder, image[None], beam_size=beam_size) for image in memory]
        log_prob = torch.cat([single.log_prob for single in alone])
        expect_close("in a batch a log_prob of", together.log_prob, log_prob, do="mix nothing across the batch")
        texts = [text for single in alone for text in texts_of(single)]
        expect(
            texts_of(together) == texts,
            got=f"{texts_of(together)}, one by one {texts}",
            do="mix nothing across the batch",
        )


def log_prob_matches_nll(subject: DecoderSubject) -> None:
    """`log_prob` is at most -nll of the transcribed text; in the autoregressive family both are equal."""
    for seed, beam_size in product(range(2), subject.beam_sizes):
        decoder, memory = subject.build_for_eval(seed), subject.draw_inputs(IMAGES)
        read = transcribe(decoder, memory, beam_size=beam_size)
        scored = -nll_of(decoder, memory, texts_of(read))
        expect_close(
            f"with beam_size = {beam_size} a log_prob of",
            read.log_prob if subject.is_autoregressive else read.log_prob.maximum(scored),
            scored,
            do="let `transcribe` add the same log probabilities as `nll`, including the end of the text",
        )


def transcribe_and_score_agrees(subject: DecoderSubject) -> None:
    """`transcribe_and_score` returns the texts of `transcribe`, and their `nll`."""
    decoder, memory = subject.build_for_eval(), subject.draw_inputs(IMAGES)
    for beam_size in subject.beam_sizes:
        texts = texts_of(transcribe(decoder, memory, beam_size=beam_size))
        read, nll = transcribe_and_score(decoder, memory, beam_size=beam_size)
        do = "do not override `transcribe_and_score`, or search and score in it as `transcribe` and `nll` do"
        expect(texts_of(read) == texts, got=f"{texts_of(read)}, `transcribe` returned {texts}", do=do)
        expect_close(f"with beam_size = {beam_size} an nll of", nll, nll_of(decoder, memory, texts), do=do)


def wide_beam_finds_best_text(subject: DecoderSubject) -> None:
    """A beam wider than the number of possible texts finds the most probable text."""
    texts = texts_up_to(subject.max_text_length)
    if (largest := subject.build().largest_beam) is not None and largest <= len(texts):
        raise RuleSkipped(f"its largest beam is {largest}, there are {len(texts)} texts")
    for seed in range(2):
        decoder, memory = subject.build_for_eval(seed), subject.draw_inputs(4)
        read = transcribe(decoder, memory, beam_size=len(texts) + 1)
        least, rows = nll_of_all(decoder, memory, texts).min(dim=1)
        expect_close(
            f"{texts_of(read)} instead of {[texts[row] for row in rows.tolist()]}, a log_prob of",
            read.log_prob,
            -least,
            do="search as the family does: do not override `transcribe`",
        )
