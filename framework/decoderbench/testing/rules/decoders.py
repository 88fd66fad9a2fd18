"""The rules for decoders: the list of all, and those about sizes, feasibility and learning."""

from functools import partial
from itertools import product

import torch

from decoderbench.errors import InfeasibleError
from decoderbench.labels import Charset, Labels
from decoderbench.specs import LabelSpec, SequenceSpec
from decoderbench.testing.assertions import expect
from decoderbench.testing.checks import Rule
from decoderbench.testing.fresh_processes import fresh_processes_agree
from decoderbench.testing.rules import alignment, devices, modules, reading, scoring, transcription
from decoderbench.testing.rules.peeking import transcription_ignores_labels
from decoderbench.testing.subjects.base import build_seeded
from decoderbench.testing.subjects.decoder import (
    CHARSET,
    LABELS,
    TEXTS,
    DecoderSubject,
    as_given,
    texts_of,
    transcribe,
)

MAX_LENGTHS = (LABELS.max_length, 40)
MEMORIZING_STEPS = 150
LEARNING_RATES = (1e-2, 1e-3)


def rules_of_decoders(subject: DecoderSubject) -> list[Rule]:
    """Return the rules for a decoder.

    Rules that only a family can guarantee do not apply to a class that derives directly from `Decoder`.
    """
    rules: list[Rule] = [
        infeasible_gives_reason,
        works_at_every_size,
        scoring.nll_is_one_number_per_image,
        scoring.loss_is_one_number_per_image,
        modules.every_parameter_gets_gradient,
        modules.inputs_are_unchanged,
        scoring.labels_are_unchanged,
        scoring.nll_matches_single_images,
        transcription.transcriptions_are_valid,
        transcription.transcription_matches_single_images,
        modules.images_do_not_affect_each_other,
        transcription_ignores_labels,
        modules.opens_no_files,
        scoring.probabilities_sum_to_at_most_one,
        alignment.alignment_is_of_given_texts,
        alignment.alignment_matches_single_images,
        reading.padding_is_not_read,
        reading.training_only_parts_are_not_read,
    ]
    if subject.is_autoregressive:
        rules += [scoring.teacher_forcing_matches_step, scoring.step_works_row_by_row]
    rules += [transcription.log_prob_matches_nll, transcription.transcribe_and_score_agrees]
    if subject.is_autoregressive or subject.is_ctc or subject.is_per_character:
        rules.append(transcription.wide_beam_finds_best_text)
    return [
        *rules,
        modules.initial_weights_depend_on_seed_only,
        modules.state_dict_round_trips,
        modules.training_goes_on_from_saved_state,
        modules.inference_changes_nothing,
        modules.global_state_is_unchanged,
        modules.builds_on_meta_device,
        devices.stays_on_one_device,
        devices.does_not_wait_for_device,
        modules.macs_can_be_counted,
        memorizes_six_texts,
        *modules.rules_of_exports(subject),
        fresh_processes_agree,
    ]


def infeasible_gives_reason(subject: DecoderSubject) -> None:
    """If a decoder cannot work, as CTC with too few frames, its constructor raises `InfeasibleError` with a reason."""
    for length, left_to_right in product((1, 32), (True, False)):
        memory = SequenceSpec(length=length, dim=512, left_to_right=left_to_right)
        try:
            subject.build_for(memory)
        except InfeasibleError as error:
            reason = str(error)
            expect(" " in reason, got=f"{reason!r} for {memory}", do="give the reason as a sentence for the report")
        else:
            possible = (length >= LABELS.frames_needed and left_to_right) or not subject.is_ctc
            expect(
                possible,
                got=f"no error for {memory}",
                do="pass memory and labels unchanged to the constructor of CTCDecoder",
            )


def works_at_every_size(subject: DecoderSubject) -> None:
    """The decoder takes all sizes from its specs: it works for any feasible T, D, charset and maximum length."""
    for memory, characters, max_length in product(subject.memories, ("ab", "abcdefg"), MAX_LENGTHS):
        longest = (characters * max_length)[: min(max_length, memory.length if subject.is_ctc else max_length)]
        labels = LabelSpec(charset=Charset(characters), max_length=max_length, frames_needed=len(longest))
        try:
            decoder = build_seeded(partial(subject.cls, subject.config, memory, labels))
        except InfeasibleError:
            continue
        drawn = torch.randn(2, memory.length, memory.dim)
        decoder.loss(as_given(decoder, drawn), Labels.from_texts([longest, characters[-1]], labels.charset))
        for beam_size in subject.beam_sizes:
            transcribe(decoder.eval(), drawn, beam_size=beam_size)


def memorizes_six_texts(subject: DecoderSubject) -> None:
    """The decoder can memorize six texts, including the empty text."""
    spec = subject.memories[-1]  # wide enough for a linear decoder to tell its frames apart
    memory = torch.randn(len(TEXTS), spec.length, spec.dim)
    labels = Labels.from_texts(TEXTS, CHARSET, max_length=LABELS.max_length)
    read: list[str] = []
    for learning_rate in LEARNING_RATES:
        decoder = build_seeded(partial(subject.build_for, spec))
        optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
        for step in range(1, MEMORIZING_STEPS + 1):
            optimizer.zero_grad()
            torch.autograd.backward(decoder.train().loss(as_given(decoder, memory), labels).mean())
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            optimizer.step()
            if step % 10 == 0:
                read = texts_of(transcribe(decoder.eval(), memory))
                if read == TEXTS:
                    return
    expect(
        False,
        got=f"{read} instead of {TEXTS} after {MEMORIZING_STEPS} steps of Adam at each of {LEARNING_RATES}",
        do="let texts depend on the image, and let `nll` and `transcribe` agree on start, end and order",
    )
