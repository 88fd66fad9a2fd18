"""The LSTMCell loop: the effect of each option, and equality with nn.LSTM for the same weights."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import Charset, InfeasibleError, Labels, LabelSpec, Memory, SequenceSpec
from decoderbench_plugins.decoders.lstm_cell import LSTMCellLoop, LSTMUnrolled, RecurrentReader, average_spans

CHARSET = Charset("ab")
LABELS = LabelSpec(charset=CHARSET, max_length=4)
STEPS = LABELS.max_length + 1
TEXTS = ["abba", "", "b", "aab"]
# T, D. Without projection, a vector must be as wide as a one-hot token. T is not a multiple of the number of steps.
SIZES = {"mean": (6, 4), "flatten": (2, 2), "frames": (7, 3)}


def build(cls: type[RecurrentReader], seed: int = 0, **options: Any) -> Any:
    config = cls.Config.model_validate(options)
    length, dim = SIZES[options.get("pool", "mean")]
    memory = SequenceSpec(length=length, dim=dim, left_to_right=True)
    torch.manual_seed(seed)
    return cls(config, memory, LABELS)


def draw(pool: str = "mean", batch: int = len(TEXTS)) -> Tensor:
    return 3 * torch.randn(batch, *SIZES[pool], generator=torch.Generator().manual_seed(1))


def draw_tokens(decoder: RecurrentReader) -> Tensor:
    tokens = torch.randint(decoder.vocabulary_size, (len(TEXTS), STEPS), generator=torch.Generator().manual_seed(2))
    tokens[:, 0] = decoder.start
    return tokens


def name_in_loop(name: str) -> str:
    """Return the name in `lstm_cell` of a weight of `lstm_unrolled`: cells.1.cell.bias_hh for recurrent.bias_hh_l1."""
    if not name.startswith("recurrent."):
        return name
    if name.startswith("recurrent.layers."):  # of a minGRU
        return name.replace("recurrent.layers", "cells")
    weight, _, layer = name.removeprefix("recurrent.").rpartition("_l")
    return f"cells.{layer}.cell.{weight}"


OPTIONS = {
    "pool": ["mean", "flatten", "frames"],
    "input_projection": ["linear", "none"],
    "feedback": ["embedding", "one_hot", "nothing"],
    "cell": ["lstm", "gru"],
    "num_layers": [1, 2],
}
MINGRU = [(pool, "linear", feedback, "mingru", 2) for pool in OPTIONS["pool"] for feedback in ("embedding", "nothing")]


@pytest.mark.parametrize("values", [*product(*OPTIONS.values()), *MINGRU], ids=str)
def test_unrolled_computes_the_same_as_loop(values: tuple[Any, ...]) -> None:
    options = dict(zip(OPTIONS, values, strict=True)) | {"hidden_dim": 5, "embed_dim": 3}
    pool = options["pool"]
    loop = build(LSTMCellLoop, **options).double()
    unrolled = build(LSTMUnrolled, seed=1, **options).double()
    weights = loop.state_dict()
    unrolled.load_state_dict({name: weights.pop(name_in_loop(name)) for name in unrolled.state_dict()})
    assert not weights

    memories = [draw(pool).double().requires_grad_() for _ in range(2)]
    logits = [
        decoder.teacher_forced_logits(Memory.of(memory), draw_tokens(decoder))
        for decoder, memory in zip((loop, unrolled), memories, strict=True)
    ]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-10, atol=1e-12)
    for scores in logits:
        torch.autograd.backward(scores.square().sum())
    torch.testing.assert_close(memories[1].grad, memories[0].grad, rtol=1e-10, atol=1e-12)
    gradients = {name: parameter.grad for name, parameter in loop.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    for name, parameter in unrolled.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name_in_loop(name)], rtol=1e-10, atol=1e-12)

    for beam_size in (1, 3):
        read, again = (decoder.transcribe(memories[0].detach(), beam_size=beam_size) for decoder in (loop, unrolled))
        assert torch.equal(read.ids, again.ids)
        assert torch.equal(read.lengths, again.lengths)
        torch.testing.assert_close(read.log_prob, again.log_prob)


@given(frames=st.integers(1, 40), steps=st.integers(1, 12))
def test_average_spans_are_means_of_equal_parts(frames: int, steps: int) -> None:
    """Cut each frame into one piece per step; each span is the mean of as many pieces as there are frames."""
    memory = torch.randn(2, frames, 3, dtype=torch.float64)
    pieces = memory.repeat_interleave(steps, dim=1).view(2, steps, frames, 3)
    torch.testing.assert_close(average_spans(Memory.of(memory), steps), pieces.mean(dim=2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decoder", [LSTMCellLoop, LSTMUnrolled])
@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_frames_that_show_padding_count_as_if_they_were_not_there(decoder: type[RecurrentReader], pool: str) -> None:
    """Also where they are not at the end."""
    built = build(decoder, pool=pool, feedback="embedding", hidden_dim=5)
    memory, labels = draw(pool), Labels.from_texts(TEXTS, CHARSET)
    padded, valid = torch.full((len(TEXTS), 11, memory.shape[2]), 1e3), torch.zeros(len(TEXTS), 11, dtype=torch.bool)
    expected = built.nll(memory, labels)
    for row, (length, shift) in enumerate([(memory.shape[1], 0), (memory.shape[1], 3), (4, 0), (3, 1)]):
        padded[row, shift : shift + length], valid[row, shift : shift + length] = memory[row, :length], True
        alone = built.nll(memory[row : row + 1, :length], Labels.from_texts(TEXTS[row : row + 1], CHARSET))
        expected = expected.index_copy(0, torch.tensor([row]), alone)
    torch.testing.assert_close(built.nll(Memory(padded, valid), labels), expected)
    assert not built.reads_padding
    alignment = built.alignment(Memory(padded, valid), labels)
    if pool == "frames":
        assert (alignment[~valid[:, None].expand_as(alignment)] == 0).all()
        torch.testing.assert_close(alignment.sum(dim=2), torch.ones(alignment.shape[:2]))


def test_flattened_memory_is_read_with_its_padding() -> None:
    assert build(LSTMCellLoop, pool="flatten").reads_padding


@pytest.mark.parametrize(("frame", "first"), [(2, 1), (3, 2), (6, 4)])
def test_step_does_not_read_frames_to_the_right_of_its_span(frame: int, first: int) -> None:
    """Each of 5 steps reads 1.4 of 7 frames: 0 to 1.4, 1.4 to 2.8 and so on."""
    decoder, memory = build(LSTMCellLoop, pool="frames", feedback="logits"), draw("frames")
    tokens = draw_tokens(decoder)
    logits = decoder.teacher_forced_logits(Memory.of(memory), tokens)
    memory[:, frame] += 1
    changed = (decoder.teacher_forced_logits(Memory.of(memory), tokens) != logits).any(dim=2).all(dim=0)
    assert changed.tolist() == [step >= first for step in range(STEPS)]


def test_more_frames_than_declared_are_accepted() -> None:
    decoder, wide = build(LSTMCellLoop, pool="frames", feedback="embedding"), draw("frames").repeat(1, 3, 1)
    assert decoder.nll(wide, Labels.from_texts(TEXTS, CHARSET)).isfinite().all()
    assert len(decoder.transcribe(wide).lengths) == len(TEXTS)


@pytest.mark.parametrize("pool", ["mean", "flatten", "frames"])
@pytest.mark.parametrize("options", [{"feedback": "logits"}, {"feedback": "nothing"}, {"teacher_forcing": "never"}])
def test_logits_ignore_tokens_without_teacher_forcing(pool: str, options: dict[str, Any]) -> None:
    decoder, memory = build(LSTMCellLoop, **{"pool": pool, "feedback": "one_hot"} | options), draw(pool)
    tokens = draw_tokens(decoder)
    others = torch.cat([tokens[:, :1], (tokens[:, 1:] + 1) % decoder.vocabulary_size], dim=1)
    logits = decoder.teacher_forced_logits(Memory.of(memory), tokens)
    assert torch.equal(logits, decoder.teacher_forced_logits(Memory.of(memory), others))
    forced = build(LSTMCellLoop, pool=pool, feedback="one_hot")
    assert not torch.equal(
        forced.teacher_forced_logits(Memory.of(memory), tokens)[:, 1:],
        forced.teacher_forced_logits(Memory.of(memory), others)[:, 1:],
    )


def twins(pool: str, *teacher_forcing: str, **options: Any) -> list[Any]:
    """Return decoders with the same weights and different teacher forcing."""
    options |= {"pool": pool, "feedback": "embedding"}
    return [build(LSTMCellLoop, teacher_forcing=forcing, **options) for forcing in teacher_forcing]


@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_free_running_matches_teacher_forcing_with_own_predictions(pool: str) -> None:
    free, forced = twins(pool, "never", "always")
    logits = free.teacher_forced_logits(Memory.of(draw(pool)), draw_tokens(free))
    own = logits.argmax(dim=2)
    assert len(own.unique()) > 1
    tokens = torch.cat([draw_tokens(free)[:, :1], own[:, :-1]], dim=1)
    torch.testing.assert_close(forced.teacher_forced_logits(Memory.of(draw(pool)), tokens), logits)


@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_scheduled_sampling_forces_fewer_characters_over_time(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"teacher_forcing_ratio": 0.2, "teacher_forcing_steps": 4}
    scheduled, always, never = twins(pool, "scheduled", "always", "never", **schedule)
    memory, labels = draw(pool), Labels.from_texts(TEXTS, CHARSET)
    true, own = always.nll(memory, labels), never.nll(memory, labels)
    assert not torch.allclose(true, own)
    for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.2):
        before = scheduled.steps_trained.clone()
        for drawn, expected in ((share - 0.01, true), (share + 0.01, own)):
            scheduled.steps_trained.copy_(before)
            monkeypatch.setattr(torch, "rand", lambda shape, device, drawn=drawn: torch.full(shape, drawn))
            torch.testing.assert_close(scheduled.nll(memory, labels), expected)


def test_scheduled_sampling_draws_per_character_and_image() -> None:
    scheduled, always, never = twins("mean", "scheduled", "always", "never", teacher_forcing_steps=1)
    memory, labels = draw(batch=1).expand(50, -1, -1), Labels.from_texts(["abba"] * 50, CHARSET)
    true, own = always.nll(memory, labels), never.nll(memory, labels)
    torch.testing.assert_close(scheduled.nll(memory, labels), true)  # the schedule starts with true characters only
    drawn = scheduled.nll(memory, labels)
    assert (drawn - true).abs().min() < 1e-5
    assert (drawn - own).abs().min() < 1e-5
    assert len(drawn.unique()) > 2


def test_scheduled_sampling_uses_true_characters_in_eval_mode() -> None:
    scheduled, always = twins("mean", "scheduled", "always", teacher_forcing_ratio=0.0, teacher_forcing_steps=1)
    memory, labels = draw(), Labels.from_texts(TEXTS, CHARSET)
    for _ in range(3):
        scheduled.nll(memory, labels)
    assert scheduled.state_dict()["steps_trained"].item() == 3
    scheduled.eval()
    assert torch.equal(scheduled.nll(memory, labels), always.nll(memory, labels))
    assert scheduled.steps_trained.item() == 3
    assert "steps_trained" not in always.state_dict()


@pytest.mark.parametrize("feedback", ["logits", "embedding", "one_hot", "nothing"])
@pytest.mark.parametrize("pool", ["mean", "flatten", "frames"])
def test_nll_does_not_synchronize_the_device(pool: str, feedback: str) -> None:
    """Reading a value raises on the meta device, which has none."""
    forcing = ["always", "never", "scheduled"] if feedback in ("embedding", "one_hot") else ["never"]
    for teacher_forcing in forcing:
        decoder = build(LSTMCellLoop, pool=pool, feedback=feedback, teacher_forcing=teacher_forcing).to("meta")
        labels = Labels.from_texts(TEXTS, CHARSET, device="meta")
        torch.autograd.backward(decoder.nll(draw(pool).to("meta"), labels).sum())


@pytest.mark.parametrize(
    ("cls", "options", "resolved"),
    [
        (LSTMCellLoop, {}, "never"),
        (LSTMCellLoop, {"feedback": "nothing"}, "never"),
        (LSTMCellLoop, {"feedback": "embedding"}, "always"),
        (LSTMCellLoop, {"feedback": "one_hot", "teacher_forcing": "never"}, "never"),
        (LSTMUnrolled, {}, "always"),
        (LSTMUnrolled, {"feedback": "nothing"}, "never"),
    ],
)
def test_default_of_teacher_forcing_depends_on_feedback(
    cls: type[RecurrentReader], options: dict[str, Any], resolved: str
) -> None:
    config = cls.Config.model_validate(options)
    assert config.teacher_forcing == resolved
    assert cls.Config.model_validate(config.model_dump(mode="json")) == config


def test_embedding_is_as_wide_as_unprojected_vector() -> None:
    given_width = {"feedback": "embedding", "embed_dim": 9}
    assert build(LSTMCellLoop, **given_width).embed.embedding_dim == 9
    assert build(LSTMCellLoop, input_projection="none", **given_width).embed.embedding_dim == SIZES["mean"][1]
    with_spans = build(LSTMCellLoop, pool="frames", input_projection="none", **given_width)
    assert with_spans.embed.embedding_dim == 9


def test_module_of_the_answer_reads_vector_as_wide_as_vocabulary() -> None:
    config = LSTMCellLoop.Config(input_projection="none")
    memory = SequenceSpec(length=1, dim=len(CHARSET) + 1, left_to_right=True)
    decoder = LSTMCellLoop(config, memory, LABELS)
    assert {name.partition(".")[0] for name, _ in decoder.named_parameters()} == {"cells", "fc_out"}
    assert decoder.nll(torch.randn(1, 1, 3), Labels.from_texts(["ab"], CHARSET)).isfinite().all()


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            LSTMCellLoop,
            {"teacher_forcing": "always"},
            "feeds back logits, so .*'always' to force; remove it, or use",
        ),
        (LSTMCellLoop, {"feedback": "nothing", "teacher_forcing": "scheduled"}, "feeds back nothing, so .*'scheduled'"),
        (LSTMCellLoop, {"input_projection": "none"}, "vector is 4 wide and the logits 3; use input_projection = 'lin"),
        (LSTMCellLoop, {"input_projection": "none", "pool": "flatten", "feedback": "one_hot"}, "is 12 wide and the o"),
        (LSTMCellLoop, {"pool": "frames"}, r"T >= 5 \(the longest label and its end\), this memory has T = 3; use an"),
        (LSTMUnrolled, {"feedback": "logits"}, "feedback = 'logits' and .* a step depends on the previous one; use"),
        (LSTMUnrolled, {"teacher_forcing": "never"}, "'embedding' and teacher_forcing = 'never' a step depends on"),
        (LSTMUnrolled, {"teacher_forcing": "scheduled"}, "teacher_forcing = 'scheduled' a step depends on the prev"),
        (LSTMUnrolled, {"feedback": "nothing", "teacher_forcing": "always"}, "feeds back nothing, so there is no char"),
        (LSTMUnrolled, {"pool": "frames"}, "lstm_unrolled with pool = 'frames' needs T >= 5"),
    ],
)
def test_contradictory_options_are_infeasible(
    cls: type[RecurrentReader], options: dict[str, Any], message: str
) -> None:
    memory = SequenceSpec(length=3, dim=4, left_to_right=True)
    with pytest.raises(InfeasibleError, match=message):
        cls(cls.Config.model_validate(options), memory, LABELS)


def test_pool_frames_is_infeasible_without_reading_order() -> None:
    grid = SequenceSpec(length=12, dim=4, left_to_right=False)
    with pytest.raises(InfeasibleError, match=r"in reading order, .* do not run from left to right; use mean"):
        LSTMCellLoop(LSTMCellLoop.Config(pool="frames"), grid, LABELS)
    LSTMCellLoop(LSTMCellLoop.Config(pool="flatten"), grid, LABELS)
