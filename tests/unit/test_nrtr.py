"""NRTR: size of a layer, its formula, causality, caches, smoothed targets, and padding."""

from typing import Any

import pytest
import torch
from helpers.recomputed import Recomputed
from torch import nn

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.nrtr import NRTR

CHARSET = Charset("abcd")
LABELS = LabelSpec(charset=CHARSET, max_length=6)
MEMORY = SequenceSpec(length=9, dim=10, left_to_right=True)
TEXTS = ["abcd", "", "d", "abcabc"]


def build(**options: Any) -> NRTR:
    torch.manual_seed(0)
    decoder = NRTR(NRTR.Config.model_validate({"dim": 8, "num_heads": 2, **options}), MEMORY, LABELS)
    for part in decoder.modules():  # all zero at first, which would hide what they do
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias, std=0.1)
    nn.init.normal_(decoder.head.weight)  # so that texts differ
    return decoder.eval()


def draw_memory() -> Memory:
    return Memory.of(torch.randn(4, 9, 10))


@pytest.mark.parametrize(("dim", "parameters"), [(128, 264_576), (384, 2_366_592), (512, 4_204_032)])
def test_layer_has_16_squared_and_19_widths_of_parameters(dim: int, parameters: int) -> None:
    decoder = NRTR(NRTR.Config(dim=dim, num_layers=1), MEMORY, LABELS)
    assert sum(parameter.numel() for parameter in decoder.layers[0].parameters()) == parameters


def test_head_has_no_bias_and_does_not_score_the_start() -> None:
    decoder = build()
    assert decoder.head.weight.shape == (5, 8)
    assert decoder.head.bias is None


def test_layers_are_those_of_pytorch_normalized_after_each_part() -> None:
    decoder, memory = build(num_layers=1), draw_memory()
    tokens = decoder.token_targets(Labels.from_texts(TEXTS, CHARSET)).tokens
    layer, angle = decoder.layers[0], torch.arange(7.0)
    reference = nn.TransformerDecoderLayer(8, 2, 32, dropout=0.0, batch_first=True).eval()
    with torch.no_grad():
        for ours, theirs in ((layer.of_tokens, reference.self_attn), (layer.of_frames, reference.multihead_attn)):
            theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
            theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
            theirs.out_proj.load_state_dict(ours.output.state_dict())
        reference.linear1.load_state_dict(layer.feed[0].state_dict())
        reference.linear2.load_state_dict(layer.feed[3].state_dict())
        positions = torch.stack(
            [f(angle / 10_000 ** (pair / 4)) for pair in range(4) for f in (torch.sin, torch.cos)], dim=1
        )
        hidden = reference(
            decoder.embed(tokens) * 8**0.5 + positions,
            decoder.read(memory),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(7),
        )
        torch.testing.assert_close(decoder.teacher_forced_logits(memory, tokens), decoder.head(hidden))


def test_later_characters_change_no_earlier_logits() -> None:
    decoder, memory = build(num_layers=2), draw_memory()
    tokens = torch.randint(5, (4, 7))
    changed = torch.cat([tokens[:, :4], (tokens[:, 4:] + 1) % 5], dim=1)
    before, after = (decoder.teacher_forced_logits(memory, given) for given in (tokens, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amin(dim=(0, 2)).gt(1e-4).all()


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_texts_with_caches_are_those_without(num_layers: int, beam_size: int) -> None:
    decoder, memory = build(num_layers=num_layers), draw_memory()
    with torch.inference_mode():
        cached = decoder.transcribe(memory, beam_size=beam_size)
        recomputed = Recomputed(decoder, MEMORY, LABELS).transcribe(memory, beam_size=beam_size)
    assert torch.equal(cached.ids, recomputed.ids)
    assert torch.equal(cached.lengths, recomputed.lengths)
    torch.testing.assert_close(cached.log_prob, recomputed.log_prob)


def test_a_step_computes_keys_of_its_token_only_and_those_of_frames_once() -> None:
    decoder, of_tokens, of_frames = build(num_layers=1), list[int](), list[int]()
    layer = decoder.layers[0]
    layer.of_tokens.key_value.register_forward_hook(lambda module, inputs, output: of_tokens.append(output.shape[1]))
    layer.of_frames.key_value.register_forward_hook(lambda module, inputs, output: of_frames.append(output.shape[1]))
    memory = draw_memory()
    state = decoder.initial_state(memory)
    for token in (decoder.start, 0, 1):
        _, state = decoder.step(torch.full((4,), token), state, memory)
    assert of_frames == [9]
    assert of_tokens == [0, 1, 1, 1]


def test_targets_are_smoothed_in_the_loss_only() -> None:
    memory, labels = draw_memory(), Labels.from_texts(TEXTS, CHARSET)
    sharp, smooth = build(label_smoothing=0.0), build(label_smoothing=0.2)
    torch.testing.assert_close(smooth.nll(memory, labels), sharp.nll(memory, labels))
    torch.testing.assert_close(sharp.loss(memory, labels), sharp.nll(memory, labels))
    log_probs = sharp.teacher_forced_logits(memory, sharp.token_targets(labels).tokens).log_softmax(dim=2)
    of_end = 0.8 * log_probs[1, 0, 4] + 0.2 * log_probs[1, 0].mean()
    torch.testing.assert_close(smooth.loss(memory, labels)[1], -of_end)


def test_frames_of_padding_are_as_if_cut_off() -> None:
    decoder, memory, labels = build(), draw_memory(), Labels.from_texts(TEXTS, CHARSET)
    padded = Memory(memory.frames, (torch.arange(9) < 6).expand(4, -1))
    cut = Memory.of(memory.frames[:, :6])
    torch.testing.assert_close(decoder.nll(padded, labels), decoder.nll(cut, labels))
    weights = decoder.alignment(padded, labels)
    assert not weights[:, :, 6:].any()
    torch.testing.assert_close(weights[:, :, :6], decoder.alignment(cut, labels))


def test_order_of_frames_matters_only_with_memory_positions() -> None:
    memory, labels = draw_memory(), Labels.from_texts(TEXTS, CHARSET)
    reverse = Memory.of(memory.frames.flip(1))
    without, of_places = build(memory_positions=False), build()
    torch.testing.assert_close(without.nll(memory, labels), without.nll(reverse, labels))
    assert not torch.allclose(of_places.nll(memory, labels), of_places.nll(reverse, labels), rtol=1e-3)


def test_width_that_heads_do_not_divide_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="nrtr needs a width that num_heads = 3 divides, it is 10"):
        build(dim=None, num_heads=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 6}, {"dim": 24, "num_heads": 3, "memory_positions": False}, {"dropout": 0.0, "dim": 64}],
    ids=str,
)
def test_other_options_conform(options: dict[str, Any]) -> None:
    check_decoder(NRTR, **options)
