"""Position attention: both kinds by their formulas, sizes, padding, smoothing, and infeasible widths."""

import itertools
import string
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from decoderbench import (
    Charset,
    InfeasibleError,
    Labels,
    LabelSpec,
    Memory,
    SequenceSpec,
    additive_scores,
    memory_positions,
)
from decoderbench.model import additive_attention
from decoderbench_plugins.decoders.position_attention import A3, AdditiveAttention, PositionAttention

KINDS = ["additive", "a3"]
LABELS = LabelSpec(charset=Charset("abc"), max_length=3)
SHAPE = (2, 3)


def build(dim: int, labels: LabelSpec = LABELS, **options: Any) -> PositionAttention:
    torch.manual_seed(0)
    spec = SequenceSpec(length=6, dim=dim, left_to_right=False, shape=SHAPE)
    return PositionAttention(PositionAttention.Config(**options), spec, labels).eval()


def draw_map(dim: int, batch: int = 2) -> Memory:
    """Draw a map of which the last column of the last image is padding."""
    valid = torch.ones(batch, *SHAPE, dtype=torch.bool)
    valid[-1, :, -1] = False
    return Memory(torch.randn(batch, 6, dim), valid.flatten(1), SHAPE)


def parameters(decoder: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in decoder.parameters())


def log_probs_of(decoder: PositionAttention, memory: Memory, image: int) -> tuple[Tensor, Tensor]:
    """Return weights (S, T) and log probabilities (S, V) of an image by definition, one position of the text at a
    time, from its valid frames only.
    """
    frames = memory.frames[image] + memory_positions(memory)
    shown = memory.valid[image]
    attention = decoder.attention
    weights, rows = torch.zeros(4, 6), []
    for position in range(4):
        if isinstance(attention, AdditiveAttention):
            values = frames[shown]
            order = attention.order.weight[position]
            scores = [attention.score.weight[0] @ torch.tanh(order + attention.key(frame)) for frame in values]
            own = F.softmax(torch.stack(scores), dim=0)
            glyph = own @ values
        else:
            assert isinstance(attention, A3)
            normalized = attention.norm(frames[shown])
            first, second = (layer.weight[:, :, 0] for layer in attention.scores)
            per_group = normalized.shape[1] // 8
            grouped, values = (
                torch.cat(
                    [
                        normalized[:, per_group * group : per_group * (group + 1)]
                        @ weight[per_group * group : per_group * (group + 1)].T
                        for group in range(8)
                    ],
                    dim=1,
                )
                for weight in (first, attention.value.weight[:, :, 0])
            )
            own = F.softmax(grouped @ second[position], dim=0)
            glyph = attention.glyph_norm(own @ values)
        weights[position, shown] = own
        rows.append(F.log_softmax(decoder.head(glyph), dim=0))
    return weights, torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_nll_alignment_and_best_text_follow_the_formula(kind: str) -> None:
    decoder, memory = build(16, attention=kind, hidden_dim=5), draw_map(16)
    charset = LABELS.charset
    texts = ["".join(text) for n in range(4) for text in itertools.product("abc", repeat=n)]
    with torch.no_grad():
        for image in (0, 1):
            weights, log_probs = log_probs_of(decoder, memory, image)
            expected = [sum(log_probs[s, c] for s, c in enumerate([*charset.encode(text), 3])) for text in texts]
            alone = memory[[image] * len(texts)]
            labels = Labels.from_texts(texts, charset)
            torch.testing.assert_close(decoder.nll(alone, labels), -torch.stack(expected))
            torch.testing.assert_close(decoder.alignment(alone, labels)[0], weights[:3])
            tokens = log_probs.argmax(dim=1).tolist()
            up_to_end = "".join(charset.decode([token]) for token in tokens[: [*tokens[:3], 3].index(3)])
            for beam_size, text in ((1, up_to_end), (2, texts[int(torch.stack(expected).argmax())])):
                read = decoder.transcribe(memory[[image]], beam_size=beam_size)
                assert charset.decode(read.ids[0, : read.lengths[0]].tolist()) == text
                assert read.log_prob.item() == pytest.approx(expected[texts.index(text)].item(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_count(kind: str) -> None:
    decoder, memory = build(8, attention=kind), draw_map(8)
    labels = Labels.from_texts(["ab", "c"], LABELS.charset)
    noisy = memory.with_frames(torch.where(memory.valid[..., None], memory.frames, 100.0))
    assert torch.equal(decoder.nll(noisy, labels), decoder.nll(memory, labels))
    assert torch.equal(decoder.transcribe(noisy).log_prob, decoder.transcribe(memory).log_prob)
    narrow = Memory(memory.map()[1:, :, :, :2].flatten(2).transpose(1, 2), torch.ones(1, 4, dtype=torch.bool), (2, 2))
    torch.testing.assert_close(
        decoder.nll(narrow, Labels.from_texts(["c"], LABELS.charset)), decoder.nll(memory, labels)[1:]
    )


def test_parameters_of_additive_attention_follow_the_formula() -> None:
    """SRN: 25 characters and the end, width 512, 37 classes: order 26 x 512, key 512^2 + 512, score 512, and a head."""
    labels = LabelSpec(charset=Charset(string.ascii_lowercase + string.digits), max_length=25)
    with torch.device("meta"):
        decoder = build(512, labels, hidden_dim=512)
    assert parameters(decoder) == 26 * 512 + 512**2 + 512 + 512 + 37 * 513


def test_parameters_of_a3_follow_from_its_layers() -> None:
    """171,264 for 27 positions at width 768: two norms, 2 x 768^2 / 8, 27 x 768."""
    labels = LabelSpec(charset=Charset(string.ascii_lowercase + string.digits), max_length=26)
    with torch.device("meta"):
        decoder = build(768, labels, attention="a3")
    assert parameters(decoder.attention) == 171_264
    assert parameters(decoder) == 171_264 + 37 * 769


def test_loss_is_smoothed_and_nll_is_not() -> None:
    decoder, memory = build(8, label_smoothing=0.3), draw_map(8)
    labels = Labels.from_texts(["ab", "c"], LABELS.charset)
    log_probs = decoder.log_probs(memory)
    targets = [[0, 1, 3], [2, 3]]
    nll = torch.stack([-sum(log_probs[b, s, c] for s, c in enumerate(row)) for b, row in enumerate(targets)])
    spread = torch.stack([-log_probs[b, : len(row)].mean(dim=1).sum() for b, row in enumerate(targets)])
    torch.testing.assert_close(decoder.nll(memory, labels), nll)
    torch.testing.assert_close(decoder.loss(memory, labels), 0.7 * nll + 0.3 * spread)
    plain = build(8)
    torch.testing.assert_close(plain.loss(memory, labels), nll)


def test_a3_at_a_width_that_8_does_not_divide_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="width that 8 divides, this memory has D = 12; set projection_dim"):
        build(12, attention="a3")
    assert (
        build(12, attention="a3", projection_dim=16)
        .nll(draw_map(12), Labels.from_texts(["a", ""], LABELS.charset))[0]
        .isfinite()
    )


def test_scores_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    score, queries, keys = torch.nn.Linear(5, 1), torch.randn(2, 7, 5), torch.randn(2, 6, 5)
    scores = [score(torch.tanh(queries[b, s] + keys[b, t])) for b in range(2) for s in range(7) for t in range(6)]
    for size in (1, 150, 2**24):
        monkeypatch.setattr(additive_attention, "LARGEST_BLOCK", size)
        torch.testing.assert_close(additive_scores(queries, keys, score), torch.cat(scores).view(2, 7, 6))
