"""The check of decoders: the rules of building and training, and the order in which all rules are asked."""

from functools import partial
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from decoderbench.contracts import Decoder
from decoderbench.labels import Charset, Labels
from decoderbench.specs import LabelSpec, SequenceSpec
from decoderbench.testing import scoring, transcription
from decoderbench.testing.rules import (
    ask,
    build_on_meta,
    configure,
    require,
    require_gradients,
    require_input_gradient,
    require_reproducible,
    require_unchanged,
    seeded,
)
from decoderbench.testing.subject import CHARSET, LABELS, TEXTS, DecoderUnderCheck, nll_of, texts_of, transcribe

MEMORISING_STEPS = 150
LEARNING_RATES = (1e-2, 1e-3)


def check_decoder(cls: type[Decoder], **options: object) -> None:
    """Check a decoder class with the given options; raise `ConformanceError` at the first rule that it breaks.

    A decoder that derives straight from `Decoder` is not asked the rules that only a family can promise.
    """
    subject = DecoderUnderCheck(cls, configure("decoder", Decoder, cls, options))
    rules = [
        _says_what_it_cannot_read,
        _fits_every_size,
        scoring.scores_each_image,
        _trains_every_parameter,
        _leaves_its_inputs_alone,
        scoring.scores_each_image_alone,
        transcription.keeps_to_its_charset,
        transcription.repeats_itself,
        scoring.is_a_probability,
    ]
    if subject.is_autoregressive:
        rules += [scoring.forces_what_it_steps, scoring.steps_row_by_row]
    rules.append(transcription.claims_what_it_scores)
    if subject.is_autoregressive or subject.is_ctc:
        rules.append(transcription.finds_the_best_text)
    ask(f"decoder {cls.name!r}", subject, [*rules, _is_reproducible, _is_counted_on_meta, _memorises])


def _says_what_it_cannot_read(subject: DecoderUnderCheck) -> None:
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


def _fits_every_size(subject: DecoderUnderCheck) -> None:
    """It sizes itself from its specs, whatever T, D and charset are."""
    for memory, characters in product(subject.memories, ("ab", "abcdefg")):
        labels = LabelSpec(charset=Charset(characters), max_length=LABELS.max_length)
        decoder = seeded(partial(subject.cls, subject.config, memory, labels))
        drawn = torch.randn(2, memory.length, memory.dim)
        decoder.nll(drawn, Labels.from_texts(["", characters[-1]], labels.charset))
        transcribe(decoder.eval(), drawn)


def _trains_every_parameter(subject: DecoderUnderCheck) -> None:
    """A gradient of `nll` reaches every parameter, and the memory."""
    decoder, memory = seeded(subject.build), subject.draw(len(TEXTS)).requires_grad_()
    torch.autograd.backward(decoder.nll(memory, Labels.from_texts(TEXTS, CHARSET)).sum())
    require_gradients(decoder)
    require_input_gradient("memory", memory)


def _leaves_its_inputs_alone(subject: DecoderUnderCheck) -> None:
    """Neither `nll` nor `transcribe` changes memory or labels."""
    decoder, memory, labels = subject.built(), subject.draw(len(TEXTS)), Labels.from_texts(TEXTS, CHARSET)
    inputs = {"memory": memory, "tensor of ids": labels.ids, "tensor of lengths": labels.lengths}
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    with torch.no_grad():
        decoder.nll(memory, labels)
    for beam_size in transcription.BEAM_SIZES:
        transcribe(decoder, memory, beam_size=beam_size)
    for name, tensor in inputs.items():
        require_unchanged(name, before[name], tensor)


def _is_reproducible(subject: DecoderUnderCheck) -> None:
    """The seed decides the weights, and a state_dict holds all of them."""
    memory = subject.draw(len(TEXTS))
    require_reproducible(
        subject.build, lambda decoder: torch.cat([nll_of(decoder, memory, TEXTS), transcribe(decoder, memory).log_prob])
    )


def _is_counted_on_meta(subject: DecoderUnderCheck) -> None:
    """On the meta device `transcribe` shows what it costs, unless it raises because it looks at values."""
    decoder = build_on_meta(subject.build).eval()
    memory = subject.draw(1).to("meta")
    try:
        with FlopCounterMode(display=False) as counter:
            transcribe(decoder, memory)
    except Exception:  # noqa: BLE001 - the report then says that the cost is not known
        return
    require(
        counter.get_total_flops() > 0,
        got="no operation that is counted",
        do="multiply matrices by torch's own functions, so that cost.count_gmacs sees them",
    )


def _memorises(subject: DecoderUnderCheck) -> None:
    """It memorises six texts, the empty one included."""
    memory, labels = subject.draw(len(TEXTS)), Labels.from_texts(TEXTS, CHARSET, max_length=LABELS.max_length)
    read: list[str] = []
    for learning_rate in LEARNING_RATES:
        decoder = seeded(subject.build)
        optimiser = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
        for step in range(1, MEMORISING_STEPS + 1):
            optimiser.zero_grad()
            torch.autograd.backward(decoder.train().nll(memory, labels).mean())
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            optimiser.step()
            if step % 10 == 0:
                read = texts_of(transcribe(decoder.eval(), memory))
                if read == TEXTS:
                    return
    require(
        False,
        got=f"{read} instead of {TEXTS} after {MEMORISING_STEPS} steps of Adam at each of {LEARNING_RATES}",
        do="see that texts depend on the image, and that `nll` and `transcribe` agree on start, end and order",
    )
