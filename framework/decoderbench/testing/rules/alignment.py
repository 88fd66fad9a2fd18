"""The rules for `alignment`, which a decoder may leave out."""

import torch

from decoderbench.labels import Labels
from decoderbench.testing.assertions import TOLERANCE, expect, expect_close
from decoderbench.testing.subjects.decoder import CHARSET, LABELS, TEXTS, DecoderSubject, align, as_given

EMPTY = ["", ""]


def alignment_is_of_given_texts(subject: DecoderSubject) -> None:
    """`alignment` returns None, or the probability of each frame for each character of the texts, (B, S, T)."""
    decoder = subject.build_for_eval()
    for texts in (TEXTS, EMPTY):
        memory, longest = subject.draw_inputs(len(texts)), max(map(len, texts))
        weights = align(decoder, memory, texts)
        if weights is None:
            return
        expected = (len(texts), longest, memory.shape[1])
        expect(
            isinstance(weights, torch.Tensor) and weights.shape == expected and weights.dtype == torch.float32,
            got=f"{getattr(weights, 'dtype', type(weights).__name__)} of shape {tuple(getattr(weights, 'shape', ()))}",
            do=f"return float32 of shape (B, S, T) = {expected} for texts of at most {longest} characters",
        )
        spelled = [character for row, text in zip(weights, texts, strict=True) for character in row[: len(text)]]
        for of_character in spelled:
            low, high, total = float(of_character.min()), float(of_character.max()), float(of_character.sum())
            expect(
                low >= -TOLERANCE and high <= 1 + TOLERANCE and total >= 1 - TOLERANCE,
                got=f"weights from {low:.6g} to {high:.6g} that sum to {total:.6g} for a character",
                do="return the probability that the character is read from each frame: 0..1, at least 1 in sum",
            )
        if subject.is_ctc:
            inside = torch.arange(longest) < torch.tensor(list(map(len, texts)))[:, None]
            of_frame = torch.where(inside[:, :, None], weights, 0.0).sum(dim=1).amax(dim=-1)
            expect(
                bool((of_frame <= 1 + TOLERANCE).all()),
                got=f"a frame that emits {float(of_frame.max()):.6g} characters",
                do="let a frame emit one character or a blank: do not override `alignment`",
            )


def alignment_matches_single_images(subject: DecoderSubject) -> None:
    """In eval mode the alignment of a batch equals those of its images one by one, whatever the padding."""
    decoder, memory = subject.build_for_eval(), subject.draw_inputs(len(TEXTS))
    together = align(decoder, memory, TEXTS)
    labels = Labels.from_texts(TEXTS, CHARSET, max_length=LABELS.max_length)
    other_padding = Labels(torch.where(labels.mask(), labels.ids, 1), labels.lengths, labels.host_lengths)
    with torch.inference_mode():
        padded = decoder.alignment(as_given(decoder, memory), other_padding)
    for row, text in enumerate(TEXTS):
        alone = align(decoder, memory[row : row + 1], [text])
        found = [one is not None for one in (together, padded, alone)]
        expect(
            len(set(found)) == 1, got="an alignment of some texts and None of others", do="return it for all or none"
        )
        if together is None or padded is None or alone is None or not text:
            continue
        own = together[row, : len(text)]
        expect_close("in a batch a weight of", own, alone[0, : len(text)], do="mix nothing across the batch")
        expect_close("with other padding a weight of", padded[row, : len(text)], own, do="read no id past the end")
