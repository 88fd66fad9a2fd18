"""The rules of decoders: what they say of themselves, how they learn, and the order in which all rules are asked."""

from functools import partial
from itertools import product

import torch

from decoderbench.labels import Charset, Labels
from decoderbench.specs import LabelSpec, SequenceSpec
from decoderbench.testing import modules, scoring, transcription
from decoderbench.testing.checks import Rule
from decoderbench.testing.peeking import does_not_peek
from decoderbench.testing.processes import agrees_between_processes
from decoderbench.testing.rules import require, seeded
from decoderbench.testing.subject import CHARSET, LABELS, TEXTS, DecoderUnderCheck, texts_of, transcribe

MAX_LENGTHS = (LABELS.max_length, 40)
MEMORIZING_STEPS = 150
LEARNING_RATES = (1e-2, 1e-3)


def rules_of_decoders(subject: DecoderUnderCheck) -> list[Rule]:
    """Return the rules for a decoder.

    One that derives straight from `Decoder` is not asked those that only a family can promise.
    """
    rules: list[Rule] = [
        says_what_it_cannot_read,
        fits_every_size,
        scoring.scores_each_image,
        modules.trains_every_parameter,
        modules.leaves_its_inputs_alone,
        scoring.leaves_the_labels_alone,
        scoring.scores_each_image_alone,
        transcription.keeps_to_its_charset,
        transcription.reads_each_image_alone,
        modules.depends_on_its_own_image_alone,
        does_not_peek,
        modules.opens_nothing,
        scoring.is_a_probability,
    ]
    if subject.is_autoregressive:
        rules += [scoring.forces_what_it_steps, scoring.steps_row_by_row]
    rules.append(transcription.claims_what_it_scores)
    if subject.is_autoregressive or subject.is_ctc:
        rules.append(transcription.finds_the_best_text)
    return [
        *rules,
        modules.starts_from_the_seed,
        modules.comes_back_from_a_file,
        modules.changes_nothing_by_reading,
        modules.leaves_the_process_alone,
        modules.builds_on_meta,
        modules.stays_on_its_device,
        modules.is_counted,
        memorizes,
        *modules.rules_of_exports(subject),
        agrees_between_processes,
    ]


def says_what_it_cannot_read(subject: DecoderUnderCheck) -> None:
    """`infeasible` answers None or a sentence; CTC needs frames enough, in reading order."""
    for length, left_to_right in product((1, 32), (True, False)):
        memory = SequenceSpec(length=length, dim=512, left_to_right=left_to_right)
        answer = subject.cls.infeasible(subject.config, memory, LABELS)
        possible = (length > 1 and left_to_right) or not subject.is_ctc
        require(
            (isinstance(answer, str) and " " in answer) or (answer is None and possible),
            got=f"{answer!r} for {memory}",
            do="return a sentence for the report where the decoder cannot work, else None",
        )


def fits_every_size(subject: DecoderUnderCheck) -> None:
    """It sizes itself from its specs, whatever T, D, charset and longest label are."""
    for memory, characters, max_length in product(subject.memories, ("ab", "abcdefg"), MAX_LENGTHS):
        labels = LabelSpec(charset=Charset(characters), max_length=max_length)
        if subject.cls.infeasible(subject.config, memory, labels) is not None and max_length != LABELS.max_length:
            continue
        decoder = seeded(partial(subject.cls, subject.config, memory, labels))
        drawn = torch.randn(2, memory.length, memory.dim)
        longest = (characters * max_length)[: min(max_length, memory.length if subject.is_ctc else max_length)]
        decoder.nll(drawn, Labels.from_texts([longest, characters[-1]], labels.charset))
        for beam_size in transcription.BEAM_SIZES:
            transcribe(decoder.eval(), drawn, beam_size=beam_size)


def memorizes(subject: DecoderUnderCheck) -> None:
    """It memorizes six texts, the empty one included."""
    spec = subject.memories[-1]  # wide enough for a linear decoder to tell its frames apart
    memory = torch.randn(len(TEXTS), spec.length, spec.dim)
    labels = Labels.from_texts(TEXTS, CHARSET, max_length=LABELS.max_length)
    read: list[str] = []
    for learning_rate in LEARNING_RATES:
        decoder = seeded(partial(subject.build_for, spec))
        optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
        for step in range(1, MEMORIZING_STEPS + 1):
            optimizer.zero_grad()
            torch.autograd.backward(decoder.train().nll(memory, labels).mean())
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            optimizer.step()
            if step % 10 == 0:
                read = texts_of(transcribe(decoder.eval(), memory))
                if read == TEXTS:
                    return
    require(
        False,
        got=f"{read} instead of {TEXTS} after {MEMORIZING_STEPS} steps of Adam at each of {LEARNING_RATES}",
        do="see that texts depend on the image, and that `nll` and `transcribe` agree on start, end and order",
    )
