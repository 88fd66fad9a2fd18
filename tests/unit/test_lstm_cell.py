"""The loop over LSTMCell: every switch does what it says, and nn.LSTM with the same weights is the same function."""

import re
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decoderbench import Charset, Labels, LabelSpec, SequenceSpec
from decoderbench_plugins.decoders.lstm_cell import LSTMCellLoop, LSTMUnrolled, RecurrentReader, spans

CHARSET = Charset("ab")
LABELS = LabelSpec(charset=CHARSET, max_length=4)
STEPS = LABELS.max_length + 1
TEXTS = ["abba", "", "b", "aab"]
# T, D: of all that is not projected the vector is as wide as a one-hot token, the frames are no multiple of the steps.
SIZES = {"mean": (6, 4), "flatten": (2, 2), "frames": (7, 3)}


def build(cls: type[RecurrentReader], seed: int = 0, **options: Any) -> Any:
    config = cls.Config.model_validate(options)
    length, dim = SIZES[options.get("pool", "mean")]
    memory = SequenceSpec(length=length, dim=dim, left_to_right=True)
    assert cls.infeasible(config, memory, LABELS) is None
    torch.manual_seed(seed)
    return cls(config, memory, LABELS)


def draw(pool: str = "mean", batch: int = len(TEXTS)) -> Tensor:
    return 3 * torch.randn(batch, *SIZES[pool], generator=torch.Generator().manual_seed(1))


def draw_tokens(decoder: RecurrentReader) -> Tensor:
    tokens = torch.randint(decoder.vocabulary_size, (len(TEXTS), STEPS), generator=torch.Generator().manual_seed(2))
    tokens[:, 0] = decoder.start
    return tokens


def name_in_loop(name: str) -> str:
    """Return what a weight of `lstm_unrolled` is called in `lstm_cell`: recurrent.bias_hh_l1 is cells.1.bias_hh."""
    if not name.startswith("recurrent."):
        return name
    weight, _, layer = name.removeprefix("recurrent.").rpartition("_l")
    return f"cells.{layer}.{weight}"


SWITCHES = {
    "pool": ["mean", "flatten", "frames"],
    "input_projection": ["linear", "none"],
    "feedback": ["embedding", "one_hot", "nothing"],
    "cell": ["lstm", "gru"],
    "num_layers": [1, 2],
}


@pytest.mark.parametrize("switches", list(product(*SWITCHES.values())), ids=str)
def test_unrolled_is_the_same_function(switches: tuple[Any, ...]) -> None:
    options = dict(zip(SWITCHES, switches, strict=True)) | {"hidden_dim": 5, "embed_dim": 3}
    pool = options["pool"]
    loop = build(LSTMCellLoop, **options).double()
    unrolled = build(LSTMUnrolled, seed=1, **options).double()
    weights = loop.state_dict()
    unrolled.load_state_dict({name: weights.pop(name_in_loop(name)) for name in unrolled.state_dict()})
    assert not weights

    memories = [draw(pool).double().requires_grad_() for _ in range(2)]
    logits = [
        decoder.teacher_forced_logits(memory, draw_tokens(decoder))
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
def test_spans_are_means_of_equal_parts(frames: int, steps: int) -> None:
    """Each frame cut into as many pieces as there are steps, each step the mean of as many pieces as frames."""
    memory = torch.randn(2, frames, 3, dtype=torch.float64)
    pieces = memory.repeat_interleave(steps, dim=1).view(2, steps, frames, 3)
    torch.testing.assert_close(spans(memory, steps), pieces.mean(dim=2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("frame", "first"), [(2, 1), (3, 2), (6, 4)])
def test_a_step_sees_its_own_span_and_nothing_to_the_right_of_it(frame: int, first: int) -> None:
    """Of 7 frames each of 5 steps reads 1.4: 0 to 1.4, 1.4 to 2.8 and so on."""
    decoder, memory = build(LSTMCellLoop, pool="frames", feedback="logits"), draw("frames")
    tokens = draw_tokens(decoder)
    logits = decoder.teacher_forced_logits(memory, tokens)
    memory[:, frame] += 1
    changed = (decoder.teacher_forced_logits(memory, tokens) != logits).any(dim=2).all(dim=0)
    assert changed.tolist() == [step >= first for step in range(STEPS)]


def test_frames_may_be_more_than_were_declared() -> None:
    decoder, wide = build(LSTMCellLoop, pool="frames", feedback="embedding"), draw("frames").repeat(1, 3, 1)
    assert decoder.nll(wide, Labels.from_texts(TEXTS, CHARSET)).isfinite().all()
    assert len(decoder.transcribe(wide).lengths) == len(TEXTS)


@pytest.mark.parametrize("pool", ["mean", "flatten", "frames"])
@pytest.mark.parametrize("options", [{"feedback": "logits"}, {"feedback": "nothing"}, {"teacher_forcing": "never"}])
def test_where_no_true_character_is_fed_other_tokens_change_nothing(pool: str, options: dict[str, Any]) -> None:
    decoder, memory = build(LSTMCellLoop, **{"pool": pool, "feedback": "one_hot"} | options), draw(pool)
    tokens = draw_tokens(decoder)
    others = torch.cat([tokens[:, :1], (tokens[:, 1:] + 1) % decoder.vocabulary_size], dim=1)
    logits = decoder.teacher_forced_logits(memory, tokens)
    assert torch.equal(logits, decoder.teacher_forced_logits(memory, others))
    forced = build(LSTMCellLoop, pool=pool, feedback="one_hot")
    assert not torch.equal(
        forced.teacher_forced_logits(memory, tokens)[:, 1:], forced.teacher_forced_logits(memory, others)[:, 1:]
    )


def twins(pool: str, *teacher_forcing: str, **options: Any) -> list[Any]:
    """Return decoders of the same weights that differ in their teacher forcing."""
    options |= {"pool": pool, "feedback": "embedding"}
    return [build(LSTMCellLoop, teacher_forcing=forcing, **options) for forcing in teacher_forcing]


@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_running_free_is_being_forced_with_one_s_own_reading(pool: str) -> None:
    free, forced = twins(pool, "never", "always")
    logits = free.teacher_forced_logits(draw(pool), draw_tokens(free))
    own = logits.argmax(dim=2)
    assert len(own.unique()) > 1
    tokens = torch.cat([draw_tokens(free)[:, :1], own[:, :-1]], dim=1)
    torch.testing.assert_close(forced.teacher_forced_logits(draw(pool), tokens), logits)


@pytest.mark.parametrize("pool", ["mean", "frames"])
def test_scheduled_sampling_forces_ever_less(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_scheduled_sampling_draws_for_each_character_of_each_image() -> None:
    scheduled, always, never = twins("mean", "scheduled", "always", "never", teacher_forcing_steps=1)
    memory, labels = draw(batch=1).expand(50, -1, -1), Labels.from_texts(["abba"] * 50, CHARSET)
    true, own = always.nll(memory, labels), never.nll(memory, labels)
    torch.testing.assert_close(scheduled.nll(memory, labels), true)  # the schedule starts with the truth
    drawn = scheduled.nll(memory, labels)
    assert (drawn - true).abs().min() < 1e-5
    assert (drawn - own).abs().min() < 1e-5
    assert len(drawn.unique()) > 2


def test_scheduled_sampling_is_the_chain_rule_when_evaluated() -> None:
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
def test_nll_never_waits_for_the_device(pool: str, feedback: str) -> None:
    """The meta device has no values, so that looking at one raises."""
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
def test_teacher_forcing_is_resolved_where_it_is_left_out(
    cls: type[RecurrentReader], options: dict[str, Any], resolved: str
) -> None:
    config = cls.Config.model_validate(options)
    assert config.teacher_forcing == resolved
    assert cls.Config.model_validate(config.model_dump(mode="json")) == config


def test_one_vector_that_is_not_projected_sets_the_width_of_the_embedding() -> None:
    given_width = {"feedback": "embedding", "embed_dim": 9}
    assert build(LSTMCellLoop, **given_width).embed.embedding_dim == 9
    assert build(LSTMCellLoop, input_projection="none", **given_width).embed.embedding_dim == SIZES["mean"][1]
    beside = build(LSTMCellLoop, pool="frames", input_projection="none", **given_width)
    assert beside.embed.embedding_dim == 9


def test_the_answer_s_module_reads_a_vector_as_wide_as_the_vocabulary() -> None:
    config = LSTMCellLoop.Config(input_projection="none")
    memory = SequenceSpec(length=1, dim=len(CHARSET) + 1, left_to_right=True)
    assert LSTMCellLoop.infeasible(config, memory, LABELS) is None
    decoder = LSTMCellLoop(config, memory, LABELS)
    assert {name.partition(".")[0] for name, _ in decoder.named_parameters()} == {"cells", "fc_out"}
    assert decoder.nll(torch.randn(1, 1, 3), Labels.from_texts(["ab"], CHARSET)).isfinite().all()


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (
            LSTMCellLoop,
            {"teacher_forcing": "always"},
            "feeds back logits, so .*'always' to force; leave it out, or use",
        ),
        (LSTMCellLoop, {"feedback": "nothing", "teacher_forcing": "scheduled"}, "feeds back nothing, so .*'scheduled'"),
        (LSTMCellLoop, {"input_projection": "none"}, "vector is 4 wide and the logits 3; use input_projection = 'lin"),
        (LSTMCellLoop, {"input_projection": "none", "pool": "flatten", "feedback": "one_hot"}, "is 12 wide and the o"),
        (LSTMCellLoop, {"pool": "frames"}, r"T >= 5 \(the longest label and its end\), this memory has T = 3; use an"),
        (LSTMUnrolled, {"feedback": "logits"}, "feedback = 'logits' and .* a step needs the one before; use lstm_cell"),
        (LSTMUnrolled, {"teacher_forcing": "never"}, "'embedding' and teacher_forcing = 'never' a step needs the one"),
        (LSTMUnrolled, {"teacher_forcing": "scheduled"}, "teacher_forcing = 'scheduled' a step needs the one before"),
        (LSTMUnrolled, {"feedback": "nothing", "teacher_forcing": "always"}, "feeds back nothing, so there is no char"),
        (LSTMUnrolled, {"pool": "frames"}, "lstm_unrolled with pool = 'frames' needs T >= 5"),
    ],
)
def test_the_plan_says_what_does_not_go_together(
    cls: type[RecurrentReader], options: dict[str, Any], said: str
) -> None:
    memory = SequenceSpec(length=3, dim=4, left_to_right=True)
    assert re.search(said, str(cls.infeasible(cls.Config.model_validate(options), memory, LABELS)))


def test_frames_that_are_not_in_reading_order_are_refused() -> None:
    grid = SequenceSpec(length=12, dim=4, left_to_right=False)
    refused = LSTMCellLoop.infeasible(LSTMCellLoop.Config(pool="frames"), grid, LABELS)
    assert "in reading order, these are not left to right; use mean_height" in str(refused)
    assert LSTMCellLoop.infeasible(LSTMCellLoop.Config(pool="flatten"), grid, LABELS) is None
