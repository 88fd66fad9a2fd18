"""The rules of `nll`."""

import torch

from decoderbench.labels import Labels
from decoderbench.model.autoregressive import AutoregressiveDecoder, select_rows
from decoderbench.testing.rules import TOLERANCE, require, require_close, seeded
from decoderbench.testing.subject import CHARSET, LABELS, TEXTS, DecoderUnderCheck, nll_of, nll_of_each, texts_up_to


def scores_each_image(subject: DecoderUnderCheck) -> None:
    """`nll` gives one finite float32 number an image, (B,)."""
    nll = nll_of(subject.built(), subject.draw(len(TEXTS)), TEXTS)
    require(
        nll.shape == (len(TEXTS),) and nll.dtype == torch.float32,
        got=f"{nll.dtype} of shape {tuple(nll.shape)} for {len(TEXTS)} images",
        do="sum over the characters and the end of each text, in float32, and keep the batch",
    )
    strange = {text: value.item() for text, value in zip(TEXTS, nll, strict=True) if not value.isfinite()}
    require(not strange, got=f"{strange}", do="stay in log space: log_softmax, not softmax and log")


def scores_each_image_alone(subject: DecoderUnderCheck) -> None:
    """In eval mode a batch has the `nll` of its single images, however wide its labels are padded."""
    decoder, memory = subject.built(), subject.draw(len(TEXTS))
    singles = torch.cat([nll_of(decoder, image[None], [text]) for image, text in zip(memory, TEXTS, strict=True)])
    together, again = nll_of(decoder, memory, TEXTS), nll_of(decoder, memory, TEXTS)
    require_close("the second time an nll of", again, together, do="draw nothing in eval mode")
    require_close("in a batch an nll of", together, singles, do="mix nothing across the batch, mask what is padding")
    short = TEXTS[:4]
    labels = Labels.from_texts(short, CHARSET, max_length=LABELS.max_length)
    scribbled = Labels(torch.where(labels.mask(), labels.ids, 1), labels.lengths, labels.longest)
    with torch.no_grad():
        padded = decoder.nll(memory[: len(short)], scribbled)
    require_close(
        "under other padding an nll of", padded, singles[: len(short)], do="look at no id outside Labels.mask()"
    )


def leaves_the_labels_alone(subject: DecoderUnderCheck) -> None:
    """`nll` changes neither ids nor lengths of the labels, which validation and the next cell read too."""
    decoder, memory, labels = seeded(subject.build), subject.draw(len(TEXTS)), Labels.from_texts(TEXTS, CHARSET)
    before = labels.ids.clone(), labels.lengths.clone()
    decoder.nll(memory, labels)
    for what, one, other in zip(("ids", "lengths"), (labels.ids, labels.lengths), before, strict=True):
        require(torch.equal(one, other), got=f"{what} that were changed in place", do="work on a copy of the labels")


def is_a_probability(subject: DecoderUnderCheck) -> None:
    """exp(-nll) summed over texts is at most 1, and is 1 over all that CTC can spell."""
    texts = texts_up_to(subject.longest if subject.is_ctc else LABELS.max_length)
    smallest = 1 - TOLERANCE if subject.is_ctc else 0.0
    for total in (-nll_of_each(subject.built(), subject.draw(2), texts)).exp().sum(dim=1).tolist():
        require(
            smallest <= total <= 1 + TOLERANCE,
            got=f"{total:.6g} over the {len(texts)} texts of up to {len(texts[-1])} of two characters",
            do="normalize over the whole vocabulary, predict the next token and not the one that is read, "
            "charge for the end of a text, and sum over characters instead of averaging",
        )


def forces_what_it_steps(subject: DecoderUnderCheck) -> None:
    """`teacher_forced_logits` gives what `step` gives."""
    decoder = subject.built()
    assert isinstance(decoder, AutoregressiveDecoder)
    tokens = torch.tensor([[decoder.start, *CHARSET.encode(text)] for text in ("aab", "bab", "bba")])
    memory = subject.draw(len(tokens))
    with torch.no_grad():
        forced = decoder.teacher_forced_logits(memory, tokens)
        stepped = AutoregressiveDecoder.teacher_forced_logits(decoder, memory, tokens)
    require_close("a logit of", forced, stepped, do="mask later tokens; read the same token at the same step in both")


def steps_row_by_row(subject: DecoderUnderCheck) -> None:
    """`step` reads its token, state and memory row by row, so that a beam can take the state of another one."""
    decoder = subject.built()
    assert isinstance(decoder, AutoregressiveDecoder)
    memory = subject.draw(1).expand(3, -1, -1)
    start, tokens, rows, following = torch.tensor([[decoder.start] * 3, [0, 1, decoder.end], [1, 0, 0], [0, 0, 1]])
    with torch.no_grad():
        _, state = decoder.step(start, decoder.initial_state(memory), memory)
        _, state = decoder.step(tokens, state, memory)
        taken, _ = decoder.step(following, select_rows(state, rows), memory)
        _, state = decoder.step(start, decoder.initial_state(memory), memory)
        _, state = decoder.step(tokens[rows], state, memory)
        expected, _ = decoder.step(following, state, memory)
    require_close(
        "with rows in another order a logit of",
        taken,
        expected,
        do="put the batch first in every tensor of a state, and all that a step remembers into the state",
    )
