"""PARSeq: size, orders and their masks, the loss over orders, and each way of reading."""

from math import factorial
from typing import Any

import pytest
import torch
from helpers.recomputed import Recomputed
from pydantic import ValidationError
from torch import nn

from decoderbench import AutoregressiveDecoder, Charset, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.parseq import PARSeq
from decoderbench_plugins.decoders.parseq.orders import cloze_mask, draw_ranks, order_masks

CHARSET = Charset("abcd")
LABELS = LabelSpec(charset=CHARSET, max_length=6)
MEMORY = SequenceSpec(length=9, dim=10, left_to_right=True)
TEXTS = ["abcd", "", "d", "abcabc"]
CPU = torch.device("cpu")
READINGS = [{"read": read, "refinements": number} for read in ("ar", "nar") for number in (0, 1, 2)]


def build(**options: Any) -> PARSeq:
    torch.manual_seed(0)
    config = PARSeq.Config.model_validate({"dim": 8, "num_heads": 2, "dropout": 0.0, **options})
    decoder = PARSeq(config, MEMORY, LABELS)
    for name, parameter in decoder.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.5)  # so that texts and positions differ
    return decoder.eval()


def draw_memory() -> Memory:
    return Memory.of(torch.randn(4, 9, 10))


def draw_labels() -> Labels:
    return Labels.from_texts(TEXTS, CHARSET)


def test_sizes_are_the_published_ones() -> None:
    memory = SequenceSpec(length=128, dim=384, left_to_right=True)
    charset = Charset("".join(map(chr, range(33, 127))))
    network = PARSeq(PARSeq.Config(), memory, LabelSpec(charset=charset, max_length=25)).network
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert sizes["layers"] + sizes["norm"] == 2_368_128
    assert sizes["head"] == 36_575
    assert sizes["embed"] == 37_248 - 384  # no token for padding
    assert network.positions.weight.shape == (26, 384)


# Orders


def test_order_from_left_to_right_has_causal_masks() -> None:
    of_queries, of_content = order_masks(torch.arange(5)[None])
    assert torch.equal(of_queries[0], torch.ones(5, 5).tril().bool())
    assert torch.equal(of_content[0], torch.ones(5, 5).tril().bool())


def test_masks_of_an_order_are_as_counted_by_hand() -> None:
    """The order: third character, first, second, end."""
    of_queries, of_content = order_masks(torch.tensor([[1, 2, 0, 3]]))
    # the start, first, second, third character
    assert of_queries[0].long().tolist() == [[1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert of_content[0].long().tolist() == [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1]]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 9])
def test_drawn_orders_start_with_both_directions_and_come_with_their_reverse(length: int) -> None:
    torch.manual_seed(0)
    ranks = draw_ranks(length, pairs=3)
    characters = ranks[:, :-1]
    assert ranks[0].tolist() == list(range(length + 1))
    assert ranks[1].tolist() == list(range(length, -1, -1))  # the end first
    assert (ranks[2:, -1] == length).all()  # the end last
    assert torch.equal(characters[2::2] + characters[3::2], torch.full_like(characters[2::2], length - 1))
    assert (ranks.sort(dim=1).values == torch.arange(length + 1)).all()


@pytest.mark.parametrize("length", [2, 3, 4])
def test_short_texts_have_each_of_their_orders_once(length: int) -> None:
    ranks = draw_ranks(length, pairs=50)
    assert len(ranks) == factorial(length)
    ranks[1, :-1] -= 1  # without the end
    assert len({tuple(characters) for characters in ranks[:, :-1].tolist()}) == factorial(length)


def test_short_texts_never_repeat_an_order_in_one_step() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        ranks = draw_ranks(4, pairs=3)
        assert len(set(map(tuple, ranks[:, :-1].tolist()))) == len(ranks) == 6


@pytest.mark.parametrize("length", [4, 8])
def test_no_query_reads_its_own_character(length: int) -> None:
    of_queries, of_content = order_masks(draw_ranks(length, pairs=3))
    own = torch.ones(length + 1, length + 1).triu(1).tril(1).bool()
    assert not of_queries[:, own].any()
    assert of_queries[:, :, 0].all()
    assert of_content[:, torch.eye(length + 1).bool()].all()
    pairs = of_queries[:, :-1, 1:] | of_queries[:, :-1, 1:].transpose(1, 2)
    assert (pairs | torch.eye(length).bool()).all()  # of two characters, one is given the other


def test_refinement_hides_only_the_own_character() -> None:
    assert cloze_mask(3, CPU).long().tolist() == [[1, 0, 1], [1, 1, 0], [1, 1, 1]]


# Training


@pytest.mark.parametrize("num_layers", [1, 2])
def test_logits_depend_on_earlier_characters_of_the_order_only(num_layers: int) -> None:
    decoder, memory = build(num_layers=num_layers), draw_memory()
    text, ranks = "abcdab", torch.tensor([[4, 0, 5, 2, 1, 3, 6]])
    before = decoder.logits_in_orders(memory, Labels.from_texts([text] * 4, CHARSET), ranks)[:, 0]
    for position, rank in enumerate(ranks[0, :-1].tolist()):
        other = text[:position] + "c" * (text[position] != "c") + "d" * (text[position] == "c") + text[position + 1 :]
        after = decoder.logits_in_orders(memory, Labels.from_texts([other] * 4, CHARSET), ranks)[:, 0]
        changed = (before - after).abs().amax(dim=(0, 2)) > 1e-4
        assert changed.tolist() == [later > rank for later in ranks[0].tolist()]


def test_first_order_is_that_of_the_family_and_the_second_reads_the_end_from_the_image() -> None:
    decoder, all_at_once, memory, labels = build(num_layers=2), build(num_layers=2), draw_memory(), draw_labels()
    logits = decoder.logits_in_orders(memory, labels, draw_ranks(labels.longest, pairs=1))
    given = decoder.token_targets(labels)
    forced = decoder.teacher_forced_logits(memory, given.tokens)
    torch.testing.assert_close(logits[:, 0][given.counted], forced[given.counted])
    of_image = all_at_once.network(
        torch.full((4, 1), decoder.start), *decoder.initial_state(memory), memory.valid, num_queries=7
    )[0]
    rows = torch.arange(4)
    torch.testing.assert_close(logits[rows, 1, labels.lengths], of_image[rows, labels.lengths])


def test_loss_in_eval_mode_is_the_mean_of_both_directions() -> None:
    decoder, memory, labels = build(), draw_memory(), draw_labels()
    log_probs = decoder.logits_in_orders(memory, labels, draw_ranks(labels.longest, pairs=1)).log_softmax(dim=3)
    for row, text in enumerate(TEXTS):
        targets = [*CHARSET.encode(text), decoder.end]
        both = sum(log_probs[row, order, place, token] for order in (0, 1) for place, token in enumerate(targets))
        torch.testing.assert_close(decoder.loss(memory, labels)[row], -both / 2)
    assert torch.equal(decoder.loss(memory, labels), decoder.loss(memory, labels))


def test_loss_in_training_is_averaged_over_all_tokens_without_the_end_of_later_orders() -> None:
    decoder, memory, labels = build().train(), draw_memory(), draw_labels()
    torch.manual_seed(3)
    loss = decoder.loss(memory, labels)
    torch.manual_seed(3)
    log_probs = decoder.logits_in_orders(memory, labels, draw_ranks(labels.longest, pairs=3)).log_softmax(dim=3)
    for row, text in enumerate(TEXTS):
        of_characters = [log_probs[row, k, s, i] for k in range(6) for s, i in enumerate(CHARSET.encode(text))]
        of_ends = [log_probs[row, k, len(text), decoder.end] for k in range(2)]
        mean = torch.stack([*of_characters, *of_ends]).mean()
        torch.testing.assert_close(loss[row], -mean * (len(text) + 1))


def test_number_of_orders_is_even() -> None:
    with pytest.raises(ValidationError, match="multiple of 2"):
        PARSeq.Config.model_validate({"orders": 3})


# Reading


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_texts_with_caches_are_those_without(num_layers: int, beam_size: int) -> None:
    decoder, memory = build(num_layers=num_layers, refinements=0), draw_memory()
    with torch.inference_mode():
        cached = decoder.transcribe(memory, beam_size=beam_size)
        recomputed = Recomputed(decoder, MEMORY, LABELS).transcribe(memory, beam_size=beam_size)
    assert torch.equal(cached.ids, recomputed.ids)
    assert torch.equal(cached.lengths, recomputed.lengths)
    torch.testing.assert_close(cached.log_prob, recomputed.log_prob)


def test_reading_all_at_once_gives_no_character_to_any_position() -> None:
    decoder, memory, labels = build(read="nar", refinements=0), draw_memory(), draw_labels()
    of_each = torch.cat([decoder.teacher_forced_logits(memory, torch.full((4, 1), decoder.start))], dim=1)
    first = of_each[:, 0].log_softmax(dim=1)  # the first position has no character before it
    torch.testing.assert_close(decoder.nll(memory, labels)[1], -first[1, decoder.end])
    one, other = (decoder.nll(memory, Labels.from_texts([text] * 4, CHARSET)) for text in ("ab", "cb"))
    torch.testing.assert_close(other - one, first[:, 0] - first[:, 2])


def test_refined_text_is_read_with_the_others_of_the_first_reading_given() -> None:
    refined, plain = build(refinements=1), build(refinements=0)
    memory = draw_memory()
    with torch.no_grad():
        for decoder in (refined, plain):
            decoder.network.head.weight *= 5  # so that readings differ in length
    first = plain.transcribe(memory)
    assert first.lengths.tolist() == [6, 0, 6, 6]
    labels = draw_labels()
    expected = torch.zeros(4)
    for row, text in enumerate(TEXTS):
        read = first.ids[row, : first.lengths[row]]
        tokens = torch.cat([torch.tensor([plain.start]), read])[None]
        for position, token in enumerate([*CHARSET.encode(text), plain.end]):
            others = (torch.arange(tokens.shape[1]) != position + 1).expand(1, 7, -1)
            image = memory[[row]]
            logits, _, _ = plain.network(
                tokens, *plain.initial_state(image), image.valid, num_queries=7, of_queries=others[:, None]
            )
            expected[row] -= logits[0, position].log_softmax(dim=0)[token]
    torch.testing.assert_close(refined.nll(memory, labels), expected)


@pytest.mark.parametrize("options", READINGS, ids=str)
def test_nll_of_the_text_that_was_read_is_its_log_prob(options: dict[str, Any]) -> None:
    decoder, memory = build(num_layers=2, **options), draw_memory()
    read = decoder.transcribe(memory)
    labels = Labels(read.ids, read.lengths, tuple(read.lengths.tolist()))
    torch.testing.assert_close(decoder.nll(memory, labels), -read.log_prob)


@pytest.mark.parametrize("options", READINGS, ids=str)
def test_only_reading_from_left_to_right_takes_beams(options: dict[str, Any]) -> None:
    assert build(**options).largest_beam == (None if options == {"read": "ar", "refinements": 0} else 1)


@pytest.mark.parametrize("options", READINGS[:2] + READINGS[3:5], ids=str)
def test_frames_of_padding_are_as_if_cut_off(options: dict[str, Any]) -> None:
    decoder, memory, labels = build(**options), draw_memory(), draw_labels()
    padded = Memory(memory.frames, (torch.arange(9) < 6).expand(4, -1))
    cut = Memory.of(memory.frames[:, :6])
    torch.testing.assert_close(decoder.nll(padded, labels), decoder.nll(cut, labels))
    torch.testing.assert_close(decoder.loss(padded, labels), decoder.loss(cut, labels))
    assert not decoder.alignment(padded, labels)[:, :, 6:].any()


def test_frames_are_read_once_per_pass_and_characters_once_per_step() -> None:
    decoder, of_content, of_frames = build(refinements=0), list[int](), list[int]()
    layer = decoder.network.layers[0]
    layer.of_content.key_value.register_forward_hook(lambda module, inputs, output: of_content.append(output.shape[1]))
    layer.of_frames.key_value.register_forward_hook(lambda module, inputs, output: of_frames.append(output.shape[1]))
    memory = draw_memory()
    state = decoder.initial_state(memory)
    for token in (decoder.start, 0, 1):
        _, state = decoder.step(torch.full((4,), token), state, memory)
    assert of_frames == [9]
    assert of_content == [0, 1, 1, 1]


def test_every_reading_has_the_steps_of_its_family() -> None:
    memory, labels = draw_memory(), draw_labels()
    for options in READINGS:
        decoder = build(**options)
        tokens = decoder.token_targets(labels).tokens
        stepped = AutoregressiveDecoder.teacher_forced_logits(decoder, memory, tokens)
        torch.testing.assert_close(decoder.teacher_forced_logits(memory, tokens), stepped)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refinements": 0, "num_layers": 2, "dim": 48, "num_heads": 4},
        {"refinements": 2, "dim": 32, "orders": 2, "memory_positions": False},
        {"read": "nar", "dim": 32},
    ],
    ids=str,
)
def test_other_options_conform(options: dict[str, Any]) -> None:
    check_decoder(PARSeq, **options)
