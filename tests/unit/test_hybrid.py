"""Hybrid and guided CTC: loss, which decoder reads, joint search against all texts, and what does not fit together."""

import math
from typing import Any

import pytest
import torch
from helpers.support import REGISTRY
from torch import Tensor

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.model.autoregressive import AutoregressiveDecoder
from decoderbench.model.ctc import CTCDecoder
from decoderbench.testing import check_decoder
from decoderbench.testing.subjects.decoder import texts_of, texts_up_to
from decoderbench_plugins.decoders.hybrid import CTCWithGuide, GuidedCTC, Hybrid

CHARSET = Charset("ab")
LABELS = LabelSpec(charset=CHARSET, max_length=3)
SMALL = {"use": "attention_lstm", "hidden_dim": 8, "embed_dim": 4}
READS = ["main", "guide", "joint"]


def build(name: str = "hybrid", frames: int = 6, seed: int = 0, **options: object) -> Any:
    component = REGISTRY["decoder"][name].component
    config = component.Config.model_validate({"guide": SMALL, **options})
    torch.manual_seed(seed)
    return component(config, SequenceSpec(length=frames, dim=5, left_to_right=True), LABELS).eval()


def draw(images: int = 4, frames: int = 6) -> Tensor:
    torch.manual_seed(1)
    return 3 * torch.randn(images, frames, 5)


def read_by(decoder: CTCWithGuide, read: str) -> CTCDecoder | AutoregressiveDecoder:
    return decoder.main if read == "main" else decoder.guide


def test_parameters_are_those_of_both_decoders() -> None:
    decoder = build(main={"use": "lstm_ctc", "hidden_dim": 7})
    of_parts = [sum(p.numel() for p in part.parameters()) for part in (decoder.main, decoder.guide)]
    assert sum(p.numel() for p in decoder.parameters()) == sum(of_parts)
    assert {name.split(".")[0] for name in decoder.state_dict()} == {"main", "guide"}
    assert (decoder.main.name, decoder.guide.name) == ("lstm_ctc", "attention_lstm")


@pytest.mark.parametrize("read", READS)
def test_loss_weighs_both_losses_and_nll_is_that_of_the_reader(read: str) -> None:
    decoder, memory = build(guide_weight=0.3, read=read, main={"use": "ctc", "focal": 2}), draw()
    labels = Labels.from_texts(["ab", "", "aab", "b"], CHARSET)
    of_main = decoder.main.nll(memory, labels)
    focal = (1 - (-of_main).exp()) ** 2 * of_main
    torch.testing.assert_close(decoder.loss(memory, labels), 0.7 * focal + 0.3 * decoder.guide.nll(memory, labels))
    reader = read_by(decoder, read)
    assert torch.equal(decoder.nll(memory, labels), reader.nll(memory, labels))
    assert torch.equal(decoder.alignment(memory, labels), reader.alignment(memory, labels))


@pytest.mark.parametrize("read", READS)
def test_loss_gives_all_parameters_a_finite_gradient(read: str) -> None:
    decoder = build(read=read)
    decoder.loss(draw(), Labels.from_texts(["ab", "", "aab", "b"], CHARSET)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize(("read", "unused"), [("main", "guide"), ("guide", "main"), ("joint", None)])
def test_decoder_that_does_not_read_is_training_only(read: str, unused: str | None) -> None:
    decoder = build(read=read)
    assert decoder.training_only() == ([getattr(decoder, unused)] if unused else [])


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("read", ["main", "guide"])
def test_reader_transcribes_as_it_does_alone(read: str, beam_size: int) -> None:
    decoder, memory = build(read=read), draw()
    read_texts, alone = decoder.transcribe(memory, beam_size=beam_size), read_by(decoder, read)
    expected = alone.transcribe(memory, beam_size=beam_size)
    assert texts_of(read_texts) == texts_of(expected)
    assert torch.equal(read_texts.log_prob, expected.log_prob)


def test_guide_reads_valid_frames_only() -> None:
    """CTC scores every frame, so the loss does read padding; what the guide reads does not depend on it."""
    decoder, frames, noise = build(read="guide"), draw(), torch.randn(4, 2, 5)
    valid = torch.arange(6).expand(4, 6) < 4
    labels = Labels.from_texts(["ab", "", "aab", "b"], CHARSET)
    one, other = (Memory(torch.cat([frames[:, :4], end], dim=1), valid) for end in (frames[:, 4:], noise))
    assert torch.equal(decoder.nll(one, labels), decoder.nll(other, labels))
    assert texts_of(decoder.transcribe(one)) == texts_of(decoder.transcribe(other))
    assert torch.equal(decoder.alignment(one, labels), decoder.alignment(other, labels))
    assert not torch.equal(decoder.loss(one, labels), decoder.loss(other, labels))
    assert [build(read=read).reads_padding for read in READS] == [True, False, True]


@pytest.mark.parametrize("guide", [SMALL, {"use": "parseq", "dim": 32, "refinements": 0}], ids=["attention", "parseq"])
@pytest.mark.parametrize("seed", range(3))
def test_wide_joint_beam_finds_the_text_with_the_best_joint_score(seed: int, guide: dict[str, Any]) -> None:
    decoder, memory, texts = (
        build(read="joint", guide_weight=0.4, seed=seed, guide=guide),
        draw(),
        texts_up_to(LABELS.max_length),
    )
    labels = Labels.from_texts(texts, CHARSET)
    with torch.no_grad():
        read = decoder.transcribe(memory, beam_size=len(texts) + 1)
        for row, image in enumerate(memory):
            images = image.expand(len(texts), -1, -1)
            of_guide = decoder.guide.nll(images, labels)
            best = (0.6 * decoder.main.nll(images, labels) + 0.4 * of_guide).argmin()
            assert texts_of(read)[row] == texts[best]
            torch.testing.assert_close(read.log_prob[row], -of_guide[best])


def test_joint_beam_of_one_takes_the_best_step_by_prefix_probability() -> None:
    decoder, memory = build(read="joint", guide_weight=0.4, frames=5), draw(frames=5)
    with torch.no_grad():
        found = texts_of(decoder.transcribe(memory))
        for row, image in enumerate(memory):
            assert found[row] == read_step_by_step(decoder, image)


def read_step_by_step(decoder: Any, image: Tensor) -> str:
    """Return the text whose every step has the best joint score; CTC's is a sum over the texts that T frames allow."""
    texts = texts_up_to(5)
    of_ctc = decoder.main.nll(image.expand(len(texts), -1, -1), Labels.from_texts(texts, CHARSET))
    masses = {text: math.exp(-nll) for text, nll in zip(texts, of_ctc.tolist(), strict=True)}
    text, of_guide = "", 0.0
    memory = Memory.of(image[None]) if decoder.guide.takes_memory else image[None]
    while len(text) < LABELS.max_length:
        tokens = torch.tensor([[decoder.guide.start, *CHARSET.encode(text)]])
        steps = decoder.guide.teacher_forced_logits(memory, tokens)[0, -1].log_softmax(-1)
        grown = [sum(p for other, p in masses.items() if other.startswith(text + added)) for added in "ab"]
        ctc_scores = [math.log(mass) if mass else -math.inf for mass in (*grown, masses[text])]
        scores = [0.6 * score + 0.4 * (of_guide + float(step)) for score, step in zip(ctc_scores, steps, strict=True)]
        chosen = scores.index(max(scores))
        of_guide += float(steps[chosen])
        if chosen == len(CHARSET):
            break
        text += CHARSET.characters[chosen]
    return text


def test_joint_reading_never_writes_more_characters_than_frames_allow() -> None:
    """The guide would repeat a character forever; in two frames CTC can spell it once."""
    labels = LabelSpec(charset=CHARSET, max_length=3, frames_needed=1)
    component = REGISTRY["decoder"]["hybrid"].component
    config = component.Config.model_validate({"guide": SMALL, "read": "joint", "guide_weight": 0.99})
    decoder = component(config, SequenceSpec(length=2, dim=5, left_to_right=True), labels).eval()
    with torch.no_grad():
        decoder.guide.head.bias[0] += 50
        memory = draw(frames=2)
        assert texts_of(decoder.guide.transcribe(memory)) == ["aaa"] * 4
        read = decoder.transcribe(memory)
    assert texts_of(read) == ["a"] * 4
    assert read.ended is not None
    assert read.ended.all()


def test_guided_ctc_reads_by_ctc_with_the_weights_of_svtrv2() -> None:
    decoder, memory = build("guided_ctc"), draw()
    labels = Labels.from_texts(["ab", "", "aab", "b"], CHARSET)
    weighed = 0.1 * decoder.main.nll(memory, labels) + 1.0 * decoder.guide.nll(memory, labels)
    torch.testing.assert_close(1.1 * decoder.loss(memory, labels), weighed)
    assert torch.equal(decoder.nll(memory, labels), decoder.main.nll(memory, labels))
    assert decoder.training_only() == [decoder.guide]
    assert decoder.transcribe(memory).ended is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "ctc"}, "hybrid needs an autoregressive guide, ctc is of another family; use attention_lstm, nrtr"),
        ({"main": SMALL}, "hybrid needs a main decoder of the CTC family, attention_lstm is of another; use ctc or"),
        ({"main": "hybrid"}, "hybrid needs a main decoder of the CTC family, hybrid is of another"),
        ({"guide": "guided_ctc"}, "hybrid needs an autoregressive guide, guided_ctc is of another family"),
        ({"guide": {"use": "parseq", "dim": 32}, "read": "joint"}, "parseq has a search of its own"),
        ({"frames": 2}, "CTC needs T >= 5"),
    ],
)
def test_decoders_that_do_not_fit_are_infeasible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        build(**options)


@pytest.mark.parametrize("weight", [0, 1, -0.5])
def test_weight_that_leaves_a_decoder_untrained_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="guide_weight"):
        build(guide_weight=weight)


@pytest.mark.slow
@pytest.mark.parametrize("read", ["main", "guide"])
def test_variants_conform(read: str) -> None:
    check_decoder(Hybrid, guide={**SMALL, "hidden_dim": 32}, main={"use": "lstm_ctc", "hidden_dim": 16}, read=read)


@pytest.mark.slow
def test_guided_ctc_conforms_with_its_defaults() -> None:
    check_decoder(GuidedCTC)
