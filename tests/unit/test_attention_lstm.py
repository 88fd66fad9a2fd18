"""Attention LSTM: published size, wiring, which options go together, and equality with its formula step by step."""

import string
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench.testing import check_decoder
from decoderbench_plugins.decoders.attention_lstm import AttentionLSTM

CHARSET = Charset(string.digits + string.ascii_lowercase)
LABELS = LabelSpec(charset=CHARSET, max_length=25)
TEXTS = ["7a", "", "captcha"]
MECHANISMS = ["additive", "location", "gmm", "monotonic", "coverage"]
VARIANTS: list[dict[str, Any]] = [
    *({"attention": attention} for attention in MECHANISMS),
    {"attention": "monotonic", "hard": True},
    {"attention": "location", "wiring": "baek2019", "positions": "sinusoidal", "input_feeding": True, "cell": "gru"},
    {"attention": "coverage", "positions": "learned", "cell": "mingru", "input_feeding": True},
    {"attention": "gmm", "positions": "sinusoidal", "components": 2, "frames_per_step": 1.5},
]


def build(dim: int, length: int = 26, shape: tuple[int, int] | None = None, **options: Any) -> Any:
    config = AttentionLSTM.Config.model_validate(options)
    ordered = shape is None or shape[0] == 1
    memory = SequenceSpec(length=length, dim=dim, left_to_right=ordered, shape=shape)
    return AttentionLSTM(config, memory, LABELS)


def count(decoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in decoder.parameters())


@pytest.mark.parametrize(("dim", "parameters"), [(256, 706_598), (512, 1_034_278)])
def test_parameter_count_for_36_characters_is_the_published_one(dim: int, parameters: int) -> None:
    assert count(build(dim, wiring="baek2019")) == parameters


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"attention": "location", "kernel": 31}, 2 * 32 * 31 + 32 * 256),  # 10,176
        ({"attention": "coverage"}, 256),
        ({"attention": "monotonic"}, 2),
        # Instead of keys (D 256), queries and scores: a hidden layer and weight, step and width of 5 components.
        ({"attention": "gmm"}, 257 * 256 + 257 * 15 - (257 * 256 + 256 * 256 + 256)),
        ({"positions": "learned"}, 26 * 256),
        ({"positions": "sinusoidal"}, 0),
        ({"input_feeding": True}, 4 * 256 * 256),
        ({"cell": "gru"}, -256 * (64 + 256 + 256 + 2)),
        ({"cell": "mingru"}, 2 * 256 * (64 + 256 + 1) - 4 * 256 * (64 + 256 + 256 + 2)),
    ],
    ids=str,
)
def test_parameters_of_options_are_those_of_their_formulas(options: dict[str, Any], more: int) -> None:
    with torch.device("meta"):
        assert count(build(256, **options)) - count(build(256)) == more


def test_initial_weights_of_default_are_drawn_in_the_order_of_its_first_version() -> None:
    torch.manual_seed(0)
    decoder = build(8, embed_dim=5, hidden_dim=16)
    torch.manual_seed(0)
    parts = [
        nn.Embedding(38, 5),
        nn.Linear(8, 16),
        nn.Linear(16, 16, bias=False),
        nn.Linear(16, 1, bias=False),
        nn.LSTMCell(5 + 8, 16),
        nn.Linear(16, 37),
    ]
    expected = [parameter for part in parts for parameter in part.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(decoder.parameters(), expected, strict=True))


def test_biases_are_those_of_the_paper() -> None:
    decoder = build(8, wiring="baek2019")
    biases = {name.removesuffix(".bias") for name, _ in decoder.named_parameters() if name.endswith(".bias")}
    assert biases == {"attention.query", "head"}
    assert decoder.cell.cell.bias


def test_embed_dim_has_no_effect_with_baek2019() -> None:
    narrow, wide = (build(8, wiring="baek2019", embed_dim=width) for width in (1, 500))
    assert {name: p.shape for name, p in narrow.named_parameters()} == {n: p.shape for n, p in wide.named_parameters()}


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("positions", ["none", "learned"])
@pytest.mark.parametrize("wiring", ["default", "baek2019"])
def test_logits_match_formula(wiring: str, positions: str, feeding: bool) -> None:
    """e = v tanh(K m + Q h), one bias; the cell reads token, glimpse and maybe the glimpse before; step by step."""
    torch.manual_seed(0)
    decoder = build(8, length=6, wiring=wiring, positions=positions, input_feeding=feeding, hidden_dim=16, embed_dim=5)
    memory, tokens = torch.randn(2, 6, 8), torch.tensor([[decoder.start, 3, 35], [decoder.start, 0, 0]])
    logits = decoder.teacher_forced_logits(Memory.of(memory), tokens)
    attention = decoder.attention
    for row in range(2):
        frames = memory[row] + decoder.positions.columns if positions == "learned" else memory[row]
        hidden, cell, before = torch.zeros(1, 16), torch.zeros(1, 16), torch.zeros(8)
        for step, token in enumerate(tokens[row].tolist()):
            bias = attention.query.bias if wiring == "baek2019" else attention.key.bias
            query = attention.query.weight @ hidden[0] + bias
            energies = [
                attention.score.weight[0] @ torch.tanh(attention.key.weight @ frame + query) for frame in frames
            ]
            glimpse = torch.stack(energies).softmax(dim=0) @ frames
            if wiring == "baek2019":
                one_hot = torch.zeros(38)
                one_hot[token] = 1.0
                read = [glimpse, one_hot]
            else:
                read = [decoder.embed.weight[token], glimpse]
            read += [before] * feeding
            hidden, cell = decoder.cell.cell(torch.cat(read)[None], (hidden, cell))
            expected = decoder.head(hidden)[0, :37]  # without the start
            torch.testing.assert_close(logits[row, step], expected)
            before = glimpse


def test_start_token_is_never_scored() -> None:
    decoder, memory = build(8, wiring="baek2019", hidden_dim=16), torch.randn(2, 26, 8)
    labels = Labels.from_texts(["7a", ""], CHARSET)
    before = decoder.nll(memory, labels)
    with torch.no_grad():
        decoder.head.bias[decoder.start] += 100
    assert torch.equal(decoder.nll(memory, labels), before)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_keys_are_computed_once_per_transcription(beam_size: int) -> None:
    decoder, calls = build(8, attention="location", positions="learned", hidden_dim=16), list[Tensor]()
    for part in (decoder.attention.key, decoder.positions):
        part.register_forward_hook(lambda module, inputs, output: calls.append(output))
    decoder.transcribe(torch.randn(2, 26, 8), beam_size=beam_size)
    assert len(calls) == 2


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_variant_ignores_padding_and_its_transcription_has_the_probability_of_its_nll(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    decoder = build(6, length=12, hidden_dim=8, embed_dim=4, **options).eval()
    memory, labels, short = torch.randn(3, 12, 6), Labels.from_texts(TEXTS, CHARSET), 7
    valid = torch.ones(3, 12, dtype=torch.bool)
    valid[1, short:] = False
    padded = Memory(memory, valid)
    alone, label = memory[1:2, :short], Labels.from_texts(TEXTS[1:2], CHARSET)
    nll, weights = decoder.nll(padded, labels), decoder.alignment(padded, labels)
    torch.testing.assert_close(nll[1:2], decoder.nll(alone, label))
    assert (weights[1, :, short:] == 0).all()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 7))

    other = memory.clone()
    other[1, short:] = 100.0
    other = Memory(other, valid)
    assert torch.equal(decoder.nll(other, labels), nll)
    assert torch.equal(decoder.loss(other, labels), nll)
    for beam_size in (1, 4):
        read = decoder.transcribe(padded, beam_size=beam_size)
        assert torch.equal(decoder.transcribe(other, beam_size=beam_size).ids, read.ids)
        rows = zip(read.ids.tolist(), read.lengths.tolist(), strict=True)
        texts = Labels.from_texts([CHARSET.decode(ids[:length]) for ids, length in rows], CHARSET)
        torch.testing.assert_close(read.log_prob, -decoder.nll(padded, texts))


def test_sizes_in_frames_follow_from_the_median_character_of_the_labels() -> None:
    """24 frames, and a character takes a tenth of the width of the image: h = 2.4."""
    memory = SequenceSpec(length=24, dim=6, left_to_right=True)
    labels = LabelSpec(charset=CHARSET, max_length=25, width_per_character=(0.05, 0.1, 0.3))
    location, gmm, monotonic, given = (
        AttentionLSTM(AttentionLSTM.Config.model_validate(options), memory, labels).attention
        for options in (
            {"attention": "location"},
            {"attention": "gmm"},
            {"attention": "monotonic"},
            {"attention": "monotonic", "frames_per_step": 5.0},
        )
    )
    assert location.filters.kernel_size == (11,)
    step, width = F.softplus(gmm.mixture.bias[5:10]), F.softplus(gmm.mixture.bias[10:])
    torch.testing.assert_close(step, torch.full((5,), 2.4))
    torch.testing.assert_close(width, torch.full((5,), 1.2))
    assert monotonic.offset.item() == pytest.approx(-log(2.4))
    assert monotonic.gain.item() == 1  # energies differ by a good part of the noise of training
    assert given.offset.item() == pytest.approx(-log(5))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_place_in_feature_map_has_same_position_at_any_width(positions: str) -> None:
    decoder = build(6, length=12, shape=(2, 6), positions=positions, hidden_dim=8).eval()
    narrow, labels = torch.randn(1, 2, 4, 6), Labels.from_texts(["ab"], CHARSET)
    wide, valid = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 6, dtype=torch.bool)
    wide[:, :, :4], valid[:, :, :4] = narrow, True
    expected = decoder.nll(Memory(narrow.flatten(1, 2), torch.ones(1, 8, dtype=torch.bool), (2, 4)), labels)
    torch.testing.assert_close(decoder.nll(Memory(wide.flatten(1, 2), valid.flatten(1), (2, 6)), labels), expected)


def test_positions_tell_equal_frames_apart() -> None:
    frames, labels = torch.zeros(1, 26, 6), Labels.from_texts(["ab"], CHARSET)
    torch.manual_seed(0)
    even = torch.full((1, 2, 26), 1 / 26)
    torch.testing.assert_close(build(6).alignment(frames, labels), even)
    assert (build(6, positions="sinusoidal").alignment(frames, labels) - even).abs().max() > 1e-3


def test_memory_wider_than_learned_positions_is_refused() -> None:
    labels = Labels.from_texts(["ab"], CHARSET)
    with pytest.raises(ValueError, match=r"exist for 26 columns, as declared, and the memory has 27; use positions"):
        build(6, positions="learned").nll(torch.randn(1, 27, 6), labels)
    assert build(6, positions="sinusoidal").nll(torch.randn(1, 27, 6), labels).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 3}, "'additive' has no kernel; remove it, or use attention = 'location'"),
        (
            {"attention": "location", "frames_per_step": 2.0},
            "no frames_per_step; .*use attention = 'gmm' or 'monotonic'",
        ),
        ({"attention": "monotonic", "components": 5}, "'monotonic' has no components; .* attention = 'gmm'"),
        ({"attention": "gmm", "hard": True}, "'gmm' has no hard; remove it, or use attention = 'monotonic'"),
        ({"guided_sigma": 0.4}, "guided_loss = 0 has no guided_sigma; remove it, or give guided_loss a weight"),
        ({"attention": "location", "kernel": 6}, "an odd kernel, so that it has a middle, given 6; use 7"),
    ],
    ids=str,
)
def test_option_without_effect_is_infeasible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InfeasibleError, match=message):
        build(6, **options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"attention": "location"}, "attention = 'location'"),
        ({"attention": "gmm"}, "attention = 'gmm'"),
        ({"attention": "monotonic"}, "attention = 'monotonic'"),
        ({"guided_loss": 1.0}, "guided_loss"),
    ],
    ids=str,
)
def test_what_needs_reading_order_is_infeasible_for_a_map(options: dict[str, Any], what: str) -> None:
    with pytest.raises(
        InfeasibleError, match=f"{what} needs frames in reading order, .* do not run from left to right"
    ):
        build(6, length=12, shape=(2, 6), **options)
    build(6, length=12, shape=(1, 12), **options)
    build(6, length=12, shape=(2, 6), attention="coverage")


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_positions_are_infeasible_where_the_place_of_a_frame_is_not_known(positions: str) -> None:
    grid = SequenceSpec(length=12, dim=4, left_to_right=False)
    with pytest.raises(InfeasibleError, match="neither in reading order nor a feature map; use the bridge feature_map"):
        AttentionLSTM(AttentionLSTM.Config(positions=positions), grid, LABELS)
    AttentionLSTM(AttentionLSTM.Config(), grid, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("options", VARIANTS[1:], ids=str)
def test_variant_passes_the_kit(options: dict[str, Any]) -> None:
    check_decoder(AttentionLSTM, **options)


@pytest.mark.slow
def test_losses_pass_the_kit() -> None:
    weights = {"guided_loss": 0.5, "coverage_loss": 0.5, "label_smoothing": 0.1}
    check_decoder(AttentionLSTM, attention="location", **weights)


@pytest.mark.parametrize("options", [{"kernel": 16385}, {"frames_per_step": 1e300}], ids=str)
def test_sizes_wider_than_any_image_are_mistakes(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 16384"):
        AttentionLSTM.Config(**options)
