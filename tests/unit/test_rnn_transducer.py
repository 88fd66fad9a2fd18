"""RNN transducer: a wide beam finds the most probable text, one beam is the greedy search, limits and padding hold."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from decoderbench import Charset, Hypotheses, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.rnn_transducer import BLANK, RNNTransducer

CHARSET = Charset("ab")
SMALL = {"embed_dim": 3, "hidden_dim": 6, "joint_dim": 5}
DIM = 4


def build(max_length: int, *, sharp: float = 3.0, seed: int = 0, **options: Any) -> RNNTransducer:
    """Build a small decoder whose probabilities are not all alike."""
    torch.manual_seed(seed)
    memory = SequenceSpec(length=8, dim=DIM, left_to_right=True)
    config = RNNTransducer.Config(**SMALL, **options)
    decoder = RNNTransducer(config, memory, LabelSpec(charset=CHARSET, max_length=max_length)).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter *= sharp
    return decoder


def texts_of(read: Hypotheses) -> list[str]:
    rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
    return [CHARSET.decode(ids[:length]) for ids, length in rows]


def log_p(decoder: RNNTransducer, frames: Tensor, texts: list[str]) -> Tensor:
    with torch.no_grad():
        return -decoder.nll(frames.expand(len(texts), -1, -1), Labels.from_texts(texts, CHARSET))


def read(decoder: RNNTransducer, memory: Memory | Tensor, beam_size: int = 1) -> Hypotheses:
    with torch.inference_mode():
        return decoder.transcribe(memory, beam_size=beam_size)


def read_one_by_one(decoder: RNNTransducer, frames: Tensor, max_symbols: int) -> tuple[str, float]:
    """Return the greedy text of one image (T, D), and log p of its alignment, with plain loops.

    The text may also end in its last frame at any time; the most probable end counts.
    """
    text: list[int] = []
    ends: list[tuple[float, str]] = []
    score = 0.0
    with torch.no_grad():
        for number, frame in enumerate(decoder.of_frame(frames)):
            for emitted in itertools.count():
                labels = Labels.from_texts([CHARSET.decode(text)], CHARSET)
                log_probs = decoder.head((frame + decoder._predictions(labels)[0, -1]).tanh()).log_softmax(dim=0)
                last = number == len(frames) - 1
                if last:
                    ends.append((score + float(log_probs[BLANK]), CHARSET.decode(text)))
                may_emit = emitted < max_symbols and len(text) < decoder.max_length
                best = int(log_probs.argmax()) if may_emit else BLANK
                if last and may_emit:
                    best = 1 + int(log_probs[1:].argmax())
                if best == BLANK:
                    score += float(log_probs[BLANK])
                    break
                text.append(best - 1)
                score += float(log_probs[best])
    log_prob, found = max(ends)
    return found, log_prob


@pytest.mark.parametrize(("length", "max_length", "cell"), [(1, 3, "lstm"), (3, 2, "gru"), (4, 3, "lstm")])
def test_beams_for_all_texts_find_the_most_probable_text_and_its_probability(
    length: int, max_length: int, cell: str
) -> None:
    texts = ["".join(text) for count in range(max_length + 1) for text in itertools.product("ab", repeat=count)]
    decoder = build(max_length, cell=cell, seed=2)
    frames = 3 * torch.randn(6, length, DIM)
    with torch.no_grad():
        decoder.head.bias[BLANK] -= 2.0
    found = read(decoder, frames, beam_size=len(texts))
    scores = torch.stack([log_p(decoder, image, texts) for image in frames])
    best, where = scores.max(dim=1)
    assert texts_of(found) == [texts[index] for index in where.tolist()]
    assert len(set(texts_of(found))) > 1
    torch.testing.assert_close(found.log_prob, best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("max_symbols", [1, 2, 10])
def test_one_beam_is_the_greedy_search(max_symbols: int) -> None:
    decoder = build(5, seed=3, max_symbols_per_frame=max_symbols)
    frames = 2 * torch.randn(8, 4, DIM)
    found = read(decoder, frames)
    expected = [read_one_by_one(decoder, image, max_symbols) for image in frames]
    assert texts_of(found) == [text for text, _ in expected]
    torch.testing.assert_close(found.log_prob, torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_more_beams_are_more_probable_and_never_more_than_the_text_is(beam_size: int) -> None:
    decoder, frames = build(4, seed=1), torch.randn(8, 5, DIM)
    found = read(decoder, frames, beam_size)
    own = torch.cat([log_p(decoder, image, [text]) for image, text in zip(frames, texts_of(found), strict=True)])
    assert (found.log_prob <= own + 1e-5).all()
    assert (found.log_prob >= read(decoder, frames).log_prob - 1e-5).all()


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize(("max_symbols", "longest"), [(1, range(1, 4)), (2, range(4, 7)), (10, range(7, 8))])
def test_texts_have_no_more_characters_than_frames_and_limits_allow(
    beam_size: int, max_symbols: int, longest: range
) -> None:
    decoder, frames = build(7, max_symbols_per_frame=max_symbols), 3 * torch.randn(200, 3, DIM)
    with torch.no_grad():
        decoder.head.bias[BLANK] -= 4.0
    assert read(decoder, frames, beam_size).lengths.max() in longest


@pytest.mark.parametrize("beam_size", [1, 4])
def test_frames_that_are_not_valid_change_nothing(beam_size: int) -> None:
    decoder, frames = build(4, seed=1), 2 * torch.randn(8, 4, DIM)
    alone = read(decoder, frames, beam_size)
    padded, valid = torch.full((8, 9, DIM), 100.0), torch.zeros(8, 9, dtype=torch.bool)
    padded[:, [1, 2, 5, 6]] = frames
    valid[:, [1, 2, 5, 6]] = True
    found = read(decoder, Memory(padded, valid), beam_size)
    assert texts_of(found) == texts_of(alone)
    assert len(set(texts_of(found))) > 2
    torch.testing.assert_close(found.log_prob, alone.log_prob)


def test_alignment_goes_from_left_to_right() -> None:
    decoder = build(4)
    labels = Labels.from_texts(["abab", "b"], CHARSET)
    weights = decoder.alignment(torch.randn(2, 6, DIM), labels)
    torch.testing.assert_close(weights[0].sum(dim=1), torch.ones(4))
    centers = weights[0] @ torch.arange(6.0)
    assert centers.tolist() == sorted(centers.tolist())


def test_frames_out_of_reading_order_are_infeasible() -> None:
    memory = SequenceSpec(length=8, dim=DIM, left_to_right=False)
    with pytest.raises(InfeasibleError, match="rnn_transducer needs frames in reading order"):
        RNNTransducer(RNNTransducer.Config(), memory, LabelSpec(charset=CHARSET, max_length=3))


def test_labels_that_no_search_can_write_are_infeasible() -> None:
    memory, config = SequenceSpec(length=4, dim=DIM, left_to_right=True), RNNTransducer.Config(max_symbols_per_frame=2)
    RNNTransducer(config, memory, LabelSpec(charset=CHARSET, max_length=8))
    eight_equal_characters = LabelSpec(charset=CHARSET, max_length=30, frames_needed=15)
    RNNTransducer(config, memory, eight_equal_characters)
    with pytest.raises(InfeasibleError, match=r"at most 8 characters .* T = 4, .* at least 9; raise max_symbols"):
        RNNTransducer(config, memory, LabelSpec(charset=CHARSET, max_length=9))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"cell": "gru"}, {"max_symbols_per_frame": 3, "joint_dim": 16}], ids=str)
def test_conforms_with_other_options(options: dict[str, Any]) -> None:
    check_decoder(RNNTransducer, **options)
