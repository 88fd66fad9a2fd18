"""The rules for `nll`."""

import torch
from torch import Tensor

from decoderbench.labels import Charset, Labels
from decoderbench.model.autoregressive import AutoregressiveDecoder, select_rows
from decoderbench.model.stages import Decoder
from decoderbench.testing.assertions import TOLERANCE, expect, expect_close
from decoderbench.testing.subjects.base import build_seeded
from decoderbench.testing.subjects.decoder import (
    CHARSET,
    LABELS,
    MANY,
    TEXTS,
    DecoderSubject,
    as_given,
    nll_of,
    nll_of_all,
    texts_up_to,
)


def nll_is_one_number_per_image(subject: DecoderSubject) -> None:
    """`nll` returns one finite float32 number per image, (B,)."""
    nll = nll_of(subject.build_for_eval(), subject.draw_inputs(len(TEXTS)), TEXTS)
    expect(
        nll.shape == (len(TEXTS),) and nll.dtype == torch.float32,
        got=f"{nll.dtype} of shape {tuple(nll.shape)} for {len(TEXTS)} images",
        do="sum over the characters and the end of each text, in float32, and keep the batch dimension",
    )
    infinite = {text: value.item() for text, value in zip(TEXTS, nll, strict=True) if not value.isfinite()}
    expect(not infinite, got=f"{infinite}", do="stay in log space: log_softmax, not softmax and log")


def loss_is_one_number_per_image(subject: DecoderSubject) -> None:
    """`loss` returns one finite float32 number per image, (B,), in training mode."""
    decoder, memory = build_seeded(subject.build), subject.draw_inputs(len(TEXTS))
    with torch.no_grad():
        loss = decoder.loss(as_given(decoder, memory), Labels.from_texts(TEXTS, CHARSET))
    expect(
        loss.shape == (len(TEXTS),) and loss.dtype == torch.float32 and bool(loss.isfinite().all()),
        got=f"{loss.dtype} of shape {tuple(loss.shape)} for {len(TEXTS)} images: {loss.tolist()}",
        do="return a finite sum for each image in float32: the trainer divides their sum by the number of characters",
    )


def nll_matches_single_images(subject: DecoderSubject) -> None:
    """In eval mode the `nll` of a batch equals those of its images one by one, whatever the padding of its labels."""
    decoder, memory = subject.build_for_eval(), subject.draw_inputs(len(TEXTS))
    alone = torch.cat([nll_of(decoder, image[None], [text]) for image, text in zip(memory, TEXTS, strict=True)])
    together, again = nll_of(decoder, memory, TEXTS), nll_of(decoder, memory, TEXTS)
    expect_close("the second time an nll of", again, together, do="draw no random numbers in eval mode")
    expect_close("in a batch an nll of", together, alone, do="mix nothing across the batch, mask the padding")
    short = TEXTS[:4]
    labels = Labels.from_texts(short, CHARSET, max_length=LABELS.max_length)
    other_padding = Labels(torch.where(labels.mask(), labels.ids, 1), labels.lengths, labels.host_lengths)
    with torch.no_grad():
        padded = decoder.nll(as_given(decoder, memory[: len(short)]), other_padding)
    expect_close("with other padding an nll of", padded, alone[: len(short)], do="read no id outside of Labels.mask()")


def labels_are_unchanged(subject: DecoderSubject) -> None:
    """`nll`, `loss` and `alignment` do not change the labels, which validation and other cells read too."""
    decoder, memory = build_seeded(subject.build), subject.draw_inputs(len(TEXTS))
    labels = Labels.from_texts(TEXTS, CHARSET)
    before = labels.ids.clone(), labels.lengths.clone()
    for use in (decoder.nll, decoder.loss, decoder.alignment):
        use(as_given(decoder, memory), labels)
        for what, one, other in zip(("ids", "lengths"), (labels.ids, labels.lengths), before, strict=True):
            expect(torch.equal(one, other), got=f"{what} changed in place", do="work on a copy of the labels")


def probabilities_sum_to_at_most_one(subject: DecoderSubject) -> None:
    """exp(-nll) summed over texts is at most 1; for CTC, over all texts of at most T characters, it is 1."""
    texts = texts_up_to(subject.max_text_length if subject.is_ctc else LABELS.max_length)
    smallest = 1 - TOLERANCE if subject.is_ctc else 0.0
    _expect_total(subject.build_for_eval(), subject.draw_inputs(2), texts, CHARSET, smallest)
    decoder = build_seeded(lambda: subject.build_for(subject.memories[0], MANY), 0).eval()
    _expect_total(decoder, subject.draw_inputs(2), ["", *MANY.charset.characters], MANY.charset, 0.0)


def _expect_total(decoder: Decoder, memory: Tensor, texts: list[str], charset: Charset, smallest: float) -> None:
    for total in (-nll_of_all(decoder, memory, texts, charset)).exp().sum(dim=1).tolist():
        expect(
            smallest <= total <= 1 + TOLERANCE,
            got=f"{total:.6g} for the {len(texts)} texts of at most {len(texts[-1])} characters from a charset of "
            f"{len(charset)}",
            do="normalize over the whole vocabulary, predict the next token instead of the current one, "
            "include the end of the text, and sum over characters instead of averaging",
        )


def teacher_forcing_matches_step(subject: DecoderSubject) -> None:
    """In eval mode `teacher_forced_logits` returns the logits that `step` returns."""
    decoder = subject.build_for_eval()
    assert isinstance(decoder, AutoregressiveDecoder)
    tokens = torch.tensor([[decoder.start, *CHARSET.encode(text)] for text in ("aab", "bab", "bba")])
    memory = decoder.leaf_memory(as_given(decoder, subject.draw_inputs(len(tokens))))
    with torch.no_grad():
        forced = decoder.teacher_forced_logits(memory, tokens)
        stepped = AutoregressiveDecoder.teacher_forced_logits(decoder, memory, tokens)
    expect_close("a logit of", forced, stepped, do="mask later tokens; read the same token at the same step in both")


def step_works_row_by_row(subject: DecoderSubject) -> None:
    """`step` handles the rows of token, state and memory separately, so that beam search can reorder them."""
    decoder = subject.build_for_eval()
    assert isinstance(decoder, AutoregressiveDecoder)
    memory = decoder.leaf_memory(as_given(decoder, subject.draw_inputs(1).expand(3, -1, -1)))
    start, tokens, rows, following = torch.tensor([[decoder.start] * 3, [0, 1, decoder.end], [1, 0, 0], [0, 0, 1]])
    with torch.no_grad():
        _, state = decoder.step(start, decoder.initial_state(memory), memory)
        _, state = decoder.step(tokens, state, memory)
        reordered, _ = decoder.step(following, select_rows(state, rows), memory)
        _, state = decoder.step(start, decoder.initial_state(memory), memory)
        _, state = decoder.step(tokens[rows], state, memory)
        expected, _ = decoder.step(following, state, memory)
    expect_close(
        "with the rows of the state in another order a logit of",
        reordered,
        expected,
        do="put the batch first in every tensor of a state, and everything that a step remembers into the state",
    )
